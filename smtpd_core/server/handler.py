"""Handler: every event with its arguments, to subclass or to read. Any object with some of these methods will do.

Deciders return None or Accept to accept, a Reply or Refuse to refuse; verdicts.py has the rest. A decider that raises
is reported through on_server_error, and the client hears 421 4.3.0 (connection), 454 4.7.0 (login) or 451 4.3.0.
Observers decide nothing; what they raise is reported and dropped.
Thread: events run in threads of the server's pool, one at a time per session, many sessions at once. They may block: a
slow one costs a thread of max_thread_count while it runs and holds up nobody else. on_start and on_stop run in the
caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from smtpd_core.accounts import Account, UserAccount
from smtpd_core.server.login import Login
from smtpd_core.server.message import Message
from smtpd_core.server.session import Session
from smtpd_core.server.verdicts import Accept, Redirect, Refuse, Verdict
from smtpd_core.threads import Ticket
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.replies import Reply

if TYPE_CHECKING:
    from smtpd_core.server.server import SmtpServer

F = TypeVar("F", bound=Callable[..., Any])


def _left_alone(method: F) -> F:
    """Marks an event that nobody overrode: its slot stays empty."""
    method._does_nothing = True  # type: ignore[attr-defined]
    return method


class Handler:
    """Override what you need."""

    @_left_alone
    def on_start(self, server: SmtpServer) -> None:
        """The server listens; server.address is known. What it raises is reported, and the server runs on."""

    @_left_alone
    def on_stop(self, server: SmtpServer) -> None:
        """Every session is over."""

    @_left_alone
    def on_accept_connection(self, session: Session) -> Verdict:
        """A client connected. A refusal is said in place of the greeting, and the connection closes."""
        return None

    @_left_alone
    def on_close_connection(self, session: Session) -> None:
        """The connection is over, for whatever reason: session.ended_because. Also where a TLS handshake failed before
        on_accept_connection was asked."""

    @_left_alone
    def on_read_connection(self, session: Session, data: bytes) -> None:
        """Bytes as they came, after TLS. They hold passwords and mail."""

    @_left_alone
    def on_hello(self, session: Session, domain: str) -> Verdict:
        """EHLO, HELO or LHLO with this argument."""
        return None

    @_left_alone
    def on_authenticate(self, session: Session, login: Login) -> Account | UserAccount | Accept | Refuse | Reply | None:
        """Somebody logs in: login.mechanism, login.user, login.password (PLAIN and LOGIN) or login.token.

        None leaves it to user_accounts. An Account or Accept logs the user in without any check (where the secret is
        known: PLAIN, LOGIN, tokens, certificates). A UserAccount supplies the account: the mechanism checks its
        password. Refuse or a Reply refuses.
        """
        return None

    @_left_alone
    def on_mail_from(self, session: Session, sender: str, parameters: MailParameters) -> Verdict:
        """MAIL; "" is the null path. Redirect(address) puts another sender in its place."""
        return None

    @_left_alone
    def on_recipient_to(self, session: Session, recipient: Recipient) -> Verdict:
        """RCPT. Redirect(*addresses) puts others in its place; Accept() also permits relaying to it."""
        return None

    @_left_alone
    def on_message_received(
        self, session: Session, message: Message
    ) -> Accept | Refuse | Redirect | Reply | Ticket | Sequence[Reply] | None:
        """All content is here and nothing is promised yet. After it, store and outbox keep the message, then 250.

        A Ticket: the verdict comes with ticket.resolve(None, verdict) and no thread waits. Redirect(*addresses)
        replaces all recipients. On LMTP a list has one Reply per recipient. `message` is valid until the
        ticket is resolved.
        """
        return None

    @_left_alone
    def on_partial_message(self, session: Session, message: Message) -> None:
        """The client vanished or timed out within the content; message has what came."""

    @_left_alone
    def on_get_certificate(self, session: Session, server_name: str) -> Any:
        """A TLS handshake with this SNI name ("" without). None for the configured certificate, or a pair
        (certificate, key) of PEM paths."""
        return None

    @_left_alone
    def on_verify(self, session: Session, text: str) -> Verdict:
        """VRFY. None answers 252, which tells nothing."""
        return None

    @_left_alone
    def on_expand(self, session: Session, text: str) -> Verdict:
        """EXPN; 502 unless this is set."""
        return None

    @_left_alone
    def on_etrn(self, session: Session, text: str) -> Verdict:
        """ETRN; 502 unless this is set."""
        return None

    @_left_alone
    def on_receive_command(self, session: Session, command: str) -> None:
        """A command line, secrets masked. Called in order, shortly after the command was read."""

    @_left_alone
    def on_send_response(self, session: Session, reply: Reply) -> None:
        """A reply that was given, secrets masked."""

    @_left_alone
    def on_server_error(self, session: Session | None, error: BaseException) -> None:
        """An unexpected exception, of a hook or of the server. The client saw a code and no detail.

        What on_authenticate, on_read_connection or the account store raises may quote a password: then it is a
        WithheldError, which tells the kind and the place and has the exception itself as `original`."""
