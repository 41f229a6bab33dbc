"""The words of keeping and delivering: plain data that spool, queue, dispatcher and agents exchange.

A destination says where a recipient's mail goes next, as "agent:where": "maildir:PATH-TEMPLATE", "mbox:PATH",
"lmtp:HOST:PORT", "pipe:COMMAND", "mx:example.test" or "smtp:HOST:PORT" (a smart host). Recipients of one message with
the same destination travel in one parcel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from smtpd_core.wire.envelope import Envelope, Recipient

__all__ = ["Body", "Envelope", "Message", "Outcome", "Parcel", "Recipient", "Result", "Settlement", "Stop", "replace"]


class Result(Enum):
    """What became of one recipient in one attempt."""

    DELIVERED = "delivered"  # final: it is in a mailbox
    RELAYED = "relayed"  # final: the next hop promised to care
    DEFERRED = "deferred"  # try again at `next_attempt`
    FAILED = "failed"  # final: bounced, or dropped where a bounce is not wanted
    EXPIRED = "expired"  # final: tried for too long

    @property
    def is_final(self) -> bool:
        return self is not Result.DEFERRED


@dataclass(frozen=True, slots=True)
class Body:
    """Where a message's content lies: in `content`, or in the file `path` (bodies over 256 KiB)."""

    size: int
    content: bytes | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way from the spool into the queue. `trace` are the header lines that precede the content.
    `packed` is the envelope in its stored form where it came so, empty where nobody has packed it yet. One that comes
    from another queue may be held there, or may have been tried."""

    id: str
    envelope: Envelope
    trace: bytes
    body: Body
    resend_key: str = ""
    packed: bytes = b""
    is_held: bool = False
    was_tried: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """One recipient in the queue: its stable number within the message, where it goes, and how often it was tried."""

    number: int
    recipient: Recipient
    destination: str
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a courier carries: one message and those of its recipients that share a destination, under one lease."""

    message_id: str
    envelope: Envelope  # with all recipients; `stops` says which are meant
    trace: bytes
    size: int
    destination: str
    stops: tuple[Stop, ...]
    lease: int  # fencing token: settle with an older one is refused
    attempt: int = 1  # 1 for the first claim ever; more: look before you write


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one recipient. Enhanced code and text are the remote's own where there was a reply."""

    number: int
    result: Result
    code: int = 0
    enhanced: str = ""
    text: str = ""
    remote: str = ""  # host name and address of the next hop, "" for local delivery
    at: float = 0.0  # Unix time
    next_attempt: float = 0.0  # for DEFERRED
    scope: str = "recipient"  # recipient, message, host, destination: whom else this concerns
    dsn_passed_on: bool = False  # the hop offered DSN, so it reports success itself
    kind: str = ""  # what else is worth knowing: greylisted, mailbox full, no such user, too many recipients, lost


class Settlement(NamedTuple):
    """What became of one parcel: its outcomes, and the bounces that are stored in the same transaction."""

    parcel: Parcel
    outcomes: tuple[Outcome, ...]
    new_mail: tuple[tuple[Message, tuple[Stop, ...]], ...] = ()
