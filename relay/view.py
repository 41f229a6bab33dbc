"""What operators see of a queue and may order: plain data, and the contract of who shows it.

Looking never changes anything and never waits for the server; orders go to whoever holds the queue (control).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from relay.mail import Envelope


class Status:
    """A recipient's state in an operator's words."""

    WAITING = "waiting"  # not tried yet
    DEFERRED = "deferred"  # tried, to be tried again
    ACTIVE = "active"  # claimed by a courier
    HELD = "held"  # until an operator lets it go
    FINAL = ("delivered", "relayed", "failed", "expired")
    ALL = (WAITING, DEFERRED, ACTIVE, HELD, *FINAL)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages are meant; all that is given must fit. Ages are in seconds.

    `destination` is one ("mx:example.test"), or its part behind the colon; `sender` and `recipient` are addresses, or
    "@domain"; `status` is one of Status.ALL and asks whether any recipient has it.
    """

    destination: str = ""
    sender: str = ""
    recipient: str = ""
    status: str = ""
    older_than: float = 0.0
    younger_than: float = 0.0
    limit: int = 0  # 0: all


@dataclass(frozen=True, slots=True)
class Addressee:
    """One recipient in the queue. `reason` is what the last attempt heard, "" before the first."""

    number: int
    address: str
    destination: str
    status: str
    attempts: int
    next_attempt: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One message in a list."""

    id: str
    sender: str
    arrived: float
    size: int
    recipients: tuple[Addressee, ...]


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt for one recipient, as it was settled."""

    at: float
    number: int
    result: str
    code: int
    enhanced: str
    text: str
    remote: str
    scope: str
    next_attempt: float


@dataclass(frozen=True, slots=True)
class Story:
    """Everything about one message."""

    listed: Listed
    envelope: Envelope
    trace: str
    tries: tuple[Try, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """The queue in numbers. `destinations`: name, recipients waiting and the oldest's next attempt, fullest first."""

    messages: int
    bytes: int
    oldest: float | None
    recipients: dict[str, int] = field(default_factory=dict)
    destinations: tuple[tuple[str, int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong on disk, in a sentence; `id` is the message that can't be delivered because of it, or ""."""

    text: str
    id: str = ""


class QueueView(Protocol):
    """Thread: one at a time."""

    def messages(self, filter: Filter, now: float) -> Iterator[Listed]:
        """In order of arrival, as they are read: memory does not grow with the queue."""

    def show(self, id: str, now: float) -> Story:
        """Raises KeyError for an unknown message."""

    def open_body(self, id: str) -> BinaryIO:
        """The content without trace headers. Raises KeyError."""

    def totals(self, now: float) -> Totals: ...

    def faults(self, looked: Callable[[], None] | None = None) -> Sequence[Fault]:
        """What is wrong on disk; empty when all is well. `looked` is called for each message that was looked at."""
