"""A session and its transaction, as hooks and the live view see them: values, never a socket.

Session and transaction are two objects: RSET drops one. `session.values` is the program's own place.
Thread: written in the turns of the connection; hooks of the session may read and write all, other threads may read
(SmtpServer.connections) and see the state of some instant.
"""

from __future__ import annotations

from typing import Any

from certs.facts import TlsFacts
from smtpd_core.accounts import Account
from smtpd_core.draft import Draft
from smtpd_core.net import ListenerSettings, Peer
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.rules import Phase
from smtpd_core.wire.server import ServerProtocol

_STATES = {
    Phase.GREETING: "greeting",
    Phase.CONNECTED: "connected",
    Phase.READY: "ready",
    Phase.SENDER: "sender",
    Phase.RECIPIENTS: "recipients",
    Phase.CHUNKS: "content",
    Phase.CONTENT: "content",
    Phase.LOGIN: "login",
    Phase.UPGRADE: "tls",
    Phase.ENDED: "ended",
}


class Transaction:
    """From MAIL to the verdict on the message."""

    __slots__ = ("draft", "parameters", "recipients", "redirected", "sender")

    def __init__(self, sender: str, parameters: MailParameters) -> None:
        self.sender = sender
        self.parameters = parameters
        self.recipients: list[Recipient] = []
        self.draft: Draft | None = None
        self.redirected: dict[int, int] = {}  # one RCPT became several recipients: where, and how many

    @property
    def size(self) -> int:
        """Octets of content received so far."""
        draft = self.draft
        return draft.size if draft is not None else 0

    def __repr__(self) -> str:
        return (
            f"<Transaction from <{self.sender}> to {', '.join(one.address for one in self.recipients) or 'nobody yet'}>"
        )


class Session:
    """One client.

    `id` names the session in logs and transcripts. `address` and `port` are the client's ("" for a unix socket), behind
    PROXY or XCLIENT those that were told; `peer` has the connection's. `user` is the Account, None before a login.
    `ended_because` is "" while it lives. `messages` counts those kept.
    """

    __slots__ = (
        "_protocol",
        "_values",
        "address",
        "ended_because",
        "facts",
        "id",
        "listener",
        "messages",
        "peer",
        "port",
        "started",
        "tls",
        "transaction",
        "user",
    )

    def __init__(
        self, id: str, peer: Peer, listener: ListenerSettings, protocol: ServerProtocol, started: float
    ) -> None:
        self.id = id
        self.peer = peer
        self.address = peer.address
        self.port = peer.port
        self.listener = listener
        self.started = started  # Unix time
        self.tls: TlsFacts | None = None
        self.user: Account | None = None
        self.transaction: Transaction | None = None
        self.messages = 0
        self.ended_because = ""
        self.facts: dict[str, str] | None = None  # what XFORWARD told
        self._protocol = protocol
        self._values: dict[str, Any] | None = None

    @property
    def hello(self) -> str:
        """The argument of EHLO, HELO or LHLO, "" before it."""
        return self._protocol.hello

    @property
    def esmtp(self) -> bool:
        """Whether the client said EHLO (or LHLO)."""
        return self._protocol.esmtp

    @property
    def state(self) -> str:
        """greeting, connected, ready, sender, recipients, content, login, tls or ended."""
        return _STATES[self._protocol.phase]

    @property
    def user_name(self) -> str:
        """The authenticated user's name, "" before a login."""
        return self.user.user_name if self.user is not None else ""

    @property
    def relay_user(self) -> str:
        """The same where the user's mail for other domains is sent on, else ""."""
        return self.user.user_name if self.user is not None and self.user.may_relay else ""

    @property
    def service(self) -> str:
        """mx, submission or lmtp."""
        return self.listener.service

    @property
    def listener_name(self) -> str:
        """Service and address of the listener, with the real port: "mx 127.0.0.1:2525"."""
        host, port = self.peer.local
        if not host:
            return f"{self.listener.service} {self.listener.bind}"
        return f"{self.listener.service} [{host}]:{port}" if ":" in host else f"{self.listener.service} {host}:{port}"

    @property
    def values(self) -> dict[str, Any]:
        """A dictionary for the program's own use, as long as the session lives."""
        if self._values is None:
            self._values = {}
        return self._values

    def __repr__(self) -> str:
        return f"<Session {self.id} of {self.peer!r}: {self.state}>"
