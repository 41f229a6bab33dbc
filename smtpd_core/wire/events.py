"""What the protocol core tells the floor above: one event at a time, from ServerProtocol.next_event().

Events marked (verdict) stop the core until accept(), refuse() or, for NeedSecret, supply() is called; meanwhile
next_event() returns AWAITING_VERDICT. All others are notices. Events are read-only by convention: a frozen dataclass
costs three times as much to make, and these are made for every command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.replies import Reply


class Waiting(Enum):
    """Why there is no event now."""

    NEED_BYTES = "the core needs bytes from the client"
    AWAITING_VERDICT = "the core waits for accept, refuse or supply"
    OUTPUT_FULL = "16 KiB of replies wait: send what take_output() gives, then ask again; no bytes are needed"
    ENDED = "the dialogue is over; send what is in the output and close"


NEED_BYTES = Waiting.NEED_BYTES
AWAITING_VERDICT = Waiting.AWAITING_VERDICT
OUTPUT_FULL = Waiting.OUTPUT_FULL
ENDED = Waiting.ENDED


@dataclass(slots=True)
class Connected:
    """(verdict) The greeting is due: accept() says 220, refuse(reply) says the reply and ends."""


@dataclass(slots=True)
class Hello:
    """(verdict) EHLO, HELO or LHLO. `domain` is the argument, a domain or an address literal in brackets."""

    verb: str
    domain: str


@dataclass(slots=True)
class MailFrom:
    """(verdict) MAIL. `reverse_path` is "" for the null path."""

    reverse_path: str
    parameters: MailParameters


@dataclass(slots=True)
class RcptTo:
    """(verdict) RCPT."""

    recipient: Recipient


@dataclass(slots=True)
class ContentBegins:
    """(verdict) DATA, or the first BDAT of a transaction. accept() says 354 (DATA) or lets the chunk in (BDAT)."""

    verb: str


@dataclass(slots=True)
class BodyChunk:
    """Content, dots undone, byte-exact. Any size up to what was received at once."""

    data: bytes


@dataclass(slots=True)
class ContentEnds:
    """(verdict) All content is here and within limits. LMTP: accept(replies=[...]) with one reply per recipient."""

    size: int


@dataclass(slots=True)
class ContentDropped:
    """The core refused the content (too large, bare LF, ...) or the transaction ended inside it: forget the draft."""

    reply: Reply


@dataclass(slots=True)
class TransactionReset:
    """RSET, a new EHLO or STARTTLS dropped a transaction in progress."""


@dataclass(slots=True)
class StartTls:
    """(verdict) STARTTLS. After accept() the next event is Upgrade."""


@dataclass(slots=True)
class Upgrade:
    """Flush the output, then start TLS on the connection, then call tls_is_up(). No bytes may be fed in between."""


@dataclass(slots=True)
class NeedSecret:
    """(verdict, by supply) A mechanism needs the store. See smtpd_core.wire.sasl.exchange for kinds and answers.

    refuse(reply) ends the exchange, with 454 4.7.0 where no reply is given (the back end failed).
    """

    mechanism: str
    user: str
    kind: str
    detail: object = field(default=None, repr=False)  # may be the password


@dataclass(slots=True)
class Authenticated:
    """(verdict) AUTH succeeded for `identity`: accept() says 235, refuse(reply) forgets it.

    `acts_as` is the authorisation identity that it asked for, "" for its own: the floor above must check it.
    """

    mechanism: str
    identity: str
    acts_as: str = ""


@dataclass(slots=True)
class AuthFailed:
    """(verdict) AUTH failed: refuse() says 535 5.7.8, or the reply given. `user` may be ""."""

    mechanism: str
    user: str


@dataclass(slots=True)
class Verify:
    """(verdict) VRFY. Without a reply of the floor above: 252."""

    text: str


@dataclass(slots=True)
class Expand:
    """(verdict) EXPN."""

    text: str


@dataclass(slots=True)
class Etrn:
    """(verdict) ETRN (RFC 1985)."""

    text: str


@dataclass(slots=True)
class ClientFacts:
    """(verdict) XCLIENT or XFORWARD from a trusted peer: decoded attributes, upper-case names."""

    verb: str
    attributes: dict[str, str]


@dataclass(slots=True)
class CustomCommand:
    """(verdict) A verb that the embedding program added."""

    verb: str
    argument: str


Event = (
    Connected
    | Hello
    | MailFrom
    | RcptTo
    | ContentBegins
    | BodyChunk
    | ContentEnds
    | ContentDropped
    | TransactionReset
    | StartTls
    | Upgrade
    | NeedSecret
    | Authenticated
    | AuthFailed
    | Verify
    | Expand
    | Etrn
    | ClientFacts
    | CustomCommand
)
