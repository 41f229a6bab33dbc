"""The contract of a queue: messages with recipients, leases and one transaction per change.

One body, N recipients with stable numbers. No method takes or returns a whole body: small content rides in
Message.body, large is a file that the queue links into its own room, and readers open it. `now` is always Unix time
given by the caller. MT-PRIORITY decides who is claimed first within a destination, FUTURERELEASE when for the first
time; nothing is put off beyond its DELIVERBY deadline, so that the dispatcher sees it when it is due.
Implementations: queue_memory, queue_sqlite. All pass one suite, tests/contract/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Protocol

from relay.mail import Message, Outcome, Parcel, Settlement, Stop


class QueueIsHeld(OSError):
    """Another process holds this queue; only one may change it."""


class QueueUnreadable(OSError):
    """The queue's file is damaged, of a later program, or none of ours."""


class Queue(Protocol):
    """Thread: any; every change is done by the one writer, callers wait for it."""

    def add(self, batch: Sequence[tuple[Message, Sequence[Stop]]], source: str, offset: int, now: float) -> None:
        """Store messages in one transaction, with the place in the spool up to which `source` (a segment name) is
        imported. Ids that are known already are stored once. Of a message that is held nothing is tried until it is
        let go; the first claim of one that was tried counts as its second."""

    def offset(self, source: str) -> int:
        """How far a segment is imported; 0 for an unknown one."""

    def forget_source(self, source: str) -> None:
        """The segment is gone."""

    def due(self, now: float, limit: int = 1000) -> list[tuple[str, int]]:
        """Destinations that have recipients to try now, longest waiting first, with how many messages (at most counted
        up to a bound)."""

    def next_due(self) -> float | None:
        """When the next recipient is due, None for an empty queue."""

    def claim(self, destination: str, room: int, now: float, lease: float) -> list[Parcel]:
        """Up to `room` parcels whose recipients are due; theirs until now + lease. Parcel.attempt is 1 only where
        nobody can have tried before, neither in this run nor in an earlier one. A claim alone is not synced."""

    def settle(
        self,
        parcel: Parcel,
        outcomes: Sequence[Outcome],
        new_mail: Sequence[tuple[Message, Sequence[Stop]]],
        now: float,
    ) -> bool:
        """Record all outcomes and add the bounces in one transaction. False where the lease was lost meanwhile.
        A message whose recipients are all final is removed with its body."""

    def settle_all(self, settlements: Sequence[Settlement], now: float) -> list[bool]:
        """settle() for many parcels in one transaction: what came in while the dispatcher was busy is synced once."""

    def last_tried(self, message_id: str, number: int) -> float:
        """When the last settled attempt for this recipient was made; 0 where there was none."""

    def extend(self, parcel: Parcel, now: float, lease: float) -> bool:
        """Keep a claim longer; False where it was lost."""

    def release(self, parcel: Parcel, now: float) -> None:
        """Give a claim back untried, due at once."""

    def hold(self, ids: Sequence[str]) -> int:
        """Nothing of these messages is tried until they are let go. All orders say for how many they did something."""

    def let_go(self, ids: Sequence[str], now: float) -> int:
        """Held messages are due at once."""

    def retry_now(self, ids: Sequence[str], now: float) -> int:
        """Deferred recipients of these messages are due at once."""

    def delete(self, ids: Sequence[str]) -> int:
        """Gone, without a bounce. A courier that has one under way may still deliver it; its report is refused."""

    def set_aside(self, ids: Sequence[str]) -> int:
        """Out of the queue, with all that can be read of them kept where the operator finds it."""

    def open_body(self, message_id: str) -> BinaryIO:
        """The content (without trace headers) as a seekable file. Raises KeyError for an unknown message."""

    def close(self) -> None:
        """Finish what is under way and close."""
