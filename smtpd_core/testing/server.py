"""A mail server for tests: catches everything, waits instead of sleeping, and misbehaves where told to.

    with TestServer() as smtpd:
        with smtpd.client() as client:
            client.sendmail("a@a.test", ["b@b.test"], "Subject: Hello\\r\\n\\r\\nHi\\r\\n")
        assert smtpd.inbox.wait_for(to="b@b.test").subject == "Hello"

It listens on a free port of loopback, is up in milliseconds, and works with any test framework.
Thread: any.
Not here: pytest's fixtures (plugin.py), what can go wrong (faults.py).
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

from smtpd_core.accounts import UserAccount
from smtpd_core.draft import Draft
from smtpd_core.net.guard import GuardSettings
from smtpd_core.net.settings import ListenerSettings, Peer
from smtpd_core.server.component import SETTABLE
from smtpd_core.server.dialogue import Dialogue
from smtpd_core.testing.certificates import Certificates, checked
from smtpd_core.testing.fault import known_extension
from smtpd_core.testing.faults import Faults
from smtpd_core.testing.faulty import FaultyDialogue, FaultyServer
from smtpd_core.testing.inbox import PATIENCE, Inbox
from smtpd_core.testing.letter import Letter
from smtpd_core.testing.sessions import REMEMBERED, Sessions
from smtpd_core.threads import Ticket
from smtpd_core.wire.envelope import Envelope
from smtpd_core.wire.replies import Reply

# How a test names the TLS mode.
TLS_MODES = {
    "none": "none",
    "starttls": "explicit_allow",
    "starttls-required": "explicit_require",
    "implicit": "implicit",
}

# How often a probe that is not accepted yet is looked at, in seconds.
_LOOK = 0.05

# Options that are no property of SmtpServer.
_OPTIONS = ("tls", "certificate", "accounts", "auth", "without")

# A test that logs in wrongly on purpose is not made to wait, nor locked out.
_PATIENT = GuardSettings(login_delay=0.0, lock_out_after=0)


class TestServer:
    """See the module.

    `tls`: none, starttls, starttls-required or implicit, with a certificate of a test authority that `ssl_context()`
    trusts. `certificate` names another one, such as "expired", "wrong-host", "untrusted" or "self-signed".
    `accounts`: users as {"name": "password"} or UserAccount; then `auth` is "offered" or "required".
    `without`: extensions that EHLO does not show. All other keywords are properties of SmtpServer.
    """

    __test__ = False  # pytest: this is no test case

    def __init__(
        self,
        *,
        tls: str = "none",
        certificate: str = "good",
        accounts: dict[str, str] | Iterable[UserAccount] = (),
        auth: str = "",
        without: Iterable[str] = (),
        **properties: Any,
    ) -> None:
        if tls not in TLS_MODES:
            raise ValueError(f"tls {tls!r}: one of {', '.join(TLS_MODES)} is due")
        checked(certificate)
        for name in properties.keys() - SETTABLE:
            if near := get_close_matches(name, _OPTIONS, 1):
                raise TypeError(f"TestServer has no option {name!r}; did you mean {near[0]!r}?")
        hidden = tuple(known_extension(one) for one in ([without] if isinstance(without, str) else without))
        users = [UserAccount(*one) for one in accounts.items()] if isinstance(accounts, dict) else list(accounts)
        self.tls = tls
        self.accounts = users
        self._logs_in = bool(users) and auth != "off" and "AUTH" not in hidden
        self.faults = Faults()
        self._authority_file = ""
        self.inbox = Inbox(self.settle)
        self._sessions = Sessions()
        self._certificates = Certificates("mx.example.test") if tls != "none" else None
        given: dict[str, Any] = {
            "port": 0,
            "server_name": "mx.example.test",
            "use_tls": TLS_MODES[tls],
            "user_accounts": users or None,
            "use_auth": auth or ("offered" if users else "off"),
            "clear_text_without_tls": tls == "none",
            "without_extensions": hidden,
            "transcript_memory": REMEMBERED,
            "store": _Store(self.inbox),
            "guard": _PATIENT,
        }
        if self._certificates is not None:
            given["certificate"] = self._certificates.pair(certificate)
        self.server = _Server(self._open, self.faults, self._certificates, **(given | properties))

    # -- life

    def start(self) -> TestServer:
        """Serve. Raises as SmtpServer.start()."""
        self.server.start()
        return self

    def stop(self, timeout: float = 5.0) -> bool:
        """Close what is open and end."""
        path, self._authority_file = self._authority_file, ""
        if path:
            Path(path).unlink(missing_ok=True)
        return self.server.stop(timeout)

    def reset(self) -> None:
        """Forget letters, faults, and the transcripts of sessions that have ended; connections stay."""
        self.inbox.clear()
        self._sessions.forget()
        self.faults.clear()

    def __enter__(self) -> TestServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop(0.5)

    # -- where it is

    @property
    def host(self) -> str:
        return str(self.server.address[0])

    @property
    def port(self) -> int:
        return int(self.server.address[1])

    @property
    def url(self) -> str:
        """smtp://user:password@host:port, or smtps:// for implicit TLS. User and password are percent-encoded."""
        login = ""
        if self.accounts:
            first = self.accounts[0]
            login = f"{quote(first.user_name, safe='')}:{quote(str(first.password), safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'smtps' if self.tls == 'implicit' else 'smtp'}://{login}{host}:{self.port}"

    def settings(self) -> dict[str, Any]:
        """Settings in the words of frameworks: EMAIL_* of Django, MAIL_* of Flask-Mail and Flask-Mailman, and SMTP_URL.

        Those that make a framework keep its mail to itself while it is tested are set to send.
        """
        first = self.accounts[0] if self.accounts else None
        user, password = (first.user_name, str(first.password)) if first else ("", "")
        starttls, implicit = self.tls.startswith("starttls"), self.tls == "implicit"
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": self.host,
            "EMAIL_PORT": self.port,
            "EMAIL_HOST_USER": user,
            "EMAIL_HOST_PASSWORD": password,
            "EMAIL_USE_TLS": starttls,
            "EMAIL_USE_SSL": implicit,
            "MAIL_BACKEND": "smtp",
            "MAIL_SUPPRESS_SEND": False,
            "MAIL_SERVER": self.host,
            "MAIL_PORT": self.port,
            "MAIL_USERNAME": user,
            "MAIL_PASSWORD": password,
            "MAIL_USE_TLS": starttls,
            "MAIL_USE_SSL": implicit,
            "SMTP_URL": self.url,
        }

    def environ(self) -> dict[str, str]:
        """The same as environment variables; with TLS also SSL_CERT_FILE, by which Python and OpenSSL trust the test
        authority (and nobody else)."""
        trust = {"SSL_CERT_FILE": self.authority_file} if self.tls != "none" else {}
        return {name: str(value) for name, value in self.settings().items()} | trust

    def ssl_context(self) -> ssl.SSLContext:
        """A client's context that trusts the test authority and checks host names. ValueError without TLS."""
        return ssl.create_default_context(cadata=self.authority_pem)

    @property
    def authority_pem(self) -> str:
        """The test authority's certificate, for clients that want a file."""
        if self._certificates is None:
            raise ValueError("this server has no TLS; make it with tls='starttls' or tls='implicit'")
        return self._certificates.authority_pem

    @property
    def authority_file(self) -> str:
        """The path of a file with it, which is there until stop()."""
        if not self._authority_file:
            pem = self.authority_pem.encode()
            descriptor, self._authority_file = tempfile.mkstemp(suffix=".pem", prefix="test-authority-")
            with open(descriptor, "wb") as file:
                file.write(pem)
        return self._authority_file

    def client(self, *, login: bool = True, timeout: float = 5.0, hello: str = "client.test") -> smtplib.SMTP:
        """A connected smtplib client that has done EHLO, TLS and AUTH, as far as the server has them."""
        if self.tls == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                "localhost", self.port, local_hostname=hello, timeout=timeout, context=self.ssl_context()
            )
        else:
            client = smtplib.SMTP(self.host, self.port, local_hostname=hello, timeout=timeout)
        try:
            client.ehlo_or_helo_if_needed()
            if self.tls.startswith("starttls"):
                client._host = "localhost"  # type: ignore[attr-defined]  # the name that the certificate is checked for
                client.starttls(context=self.ssl_context())
                client.ehlo()
            if login and self._logs_in:
                client.login(self.accounts[0].user_name, str(self.accounts[0].password))
        except BaseException:
            client.close()  # nobody else can: an open connection would hold up assert_none()
            raise
        return client

    # -- what happened

    @property
    def transcript(self) -> str:
        """Every session so far with its lines and times, oldest first, secrets masked; of one that is still open what
        was said until now. Waits for nothing."""
        under_way = self._under_way()  # first: a session that ends meanwhile is found among those that have
        found = (self.server.transcript(one) or under_way.get(one) for one in self._sessions.known())
        return "\n".join(filter(None, found))

    def _under_way(self) -> dict[str, str]:
        engine = self.server.engine
        return {
            one.session.id: "\n".join([*one.witness.lines.copy(), "         -- open"])
            for one in (engine.conversations if engine is not None else [])
            if isinstance(one, FaultyDialogue) and one.witness is not None and one.witness.lines is not None
        }

    def settle(self, timeout: float = PATIENCE) -> None:
        """Return once every connection that was made before this call is closed and handled.

        A connection of our own, made now, stands behind all of them in the listen queue: when it has been accepted, so
        have they. Raises TimeoutError that names the sessions which are still open.
        """
        until = time.monotonic() + timeout
        while (earlier := self._open_before_a_probe(until)) is None:
            pass  # refused, as by a limit of connections: those that are open may leave
        left = self._sessions.await_end(earlier, until)
        if left:
            raise TimeoutError(f"still open after {timeout:g} s: {', '.join(sorted(left))}\n{self.transcript}")

    def _open_before_a_probe(self, until: float) -> set[str] | None:
        """What was open when a connection of our own was accepted; None where it was refused."""
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
            probe.bind((self.host, 0))
            port = probe.getsockname()[1]
            with self._sessions.probing(port):
                probe.connect((self.host, self.port))
                while time.monotonic() < until:
                    earlier = self._sessions.before(port, min(until, time.monotonic() + _LOOK))
                    if earlier is not None:
                        _take_leave(probe, until)
                        return earlier
                    if _is_refused(probe):
                        return None
        raise TimeoutError(f"the server accepts no connection; is it running, or full?\n{self.transcript}")

    # -- parts

    def _open(self, house: Any, peer: Peer, listener: ListenerSettings, session_id: str) -> Dialogue:
        if self._sessions.open(session_id, peer.port):
            return Dialogue(house, peer, listener, session_id)
        return FaultyDialogue(house, peer, listener, session_id, self.faults, self._certificates, self._sessions.close)


def _is_refused(probe: socket.socket) -> bool:
    """Whether the server has closed, or said that it is going to."""
    probe.setblocking(False)
    try:
        return probe.recv(1, socket.MSG_PEEK) in (b"", b"4", b"5")
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _take_leave(probe: socket.socket, until: float) -> None:
    """Close, and wait for the server to do so: where connections are counted, the next client finds a place."""
    probe.settimeout(max(until - time.monotonic(), 0.001))
    try:
        probe.shutdown(socket.SHUT_WR)
        while probe.recv(4096):
            pass
    except OSError:
        pass  # it is gone, or slow; what was asked of it is known


class _Server(FaultyServer):
    """FaultyServer with dialogues of our making."""

    def __init__(self, opens: Callable[..., Dialogue], *arguments: Any, **properties: Any) -> None:
        self._opens = opens
        super().__init__(*arguments, **properties)

    def _open(self, peer: Peer, listener: ListenerSettings, session_id: str) -> Dialogue:
        return self._opens(self._house, peer, listener, session_id)


class _Store:
    """Satisfies server.keeping: what is accepted lies in the inbox before the client hears of it."""

    drafts: str | None = None

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def has_room(self) -> Reply | None:
        return None

    def holds(self, address: str) -> bool:
        return True

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        with draft.open() as file:
            letter = Letter(envelope, file.read(), draft.trace, draft.id)
        self._inbox.deliver(letter)
        draft.close()
        ticket = Ticket()
        ticket.resolve()
        return ticket
