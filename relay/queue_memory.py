"""A queue in memory: for tests and for programs that want delivery without durability. A crash loses it all.

It obeys the same contract as the durable ones. Small content stays in memory; body files are read where they lie, so
whoever adds them keeps them until they are settled.
Thread: any.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from relay import timing
from relay.mail import Message, Outcome, Parcel, Result, Settlement, Stop
from smtpd_core.threads import Lock

_COUNT_BOUND = 100


@dataclass(slots=True)
class _Waiting:
    """One recipient that is not final."""

    stop: Stop
    next_attempt: float
    attempts: int = 0
    last_tried: float = 0.0
    claims: int = 0
    lease: int = 0
    is_held: bool = False


@dataclass(slots=True)
class _Kept:
    message: Message
    body: BinaryIO | None
    waiting: dict[int, _Waiting] = field(default_factory=dict)


class MemoryQueue:
    def __init__(self) -> None:
        self._lock = Lock()
        self._messages: dict[str, _Kept] = {}
        self._by_destination: dict[str, dict[tuple[str, int], _Waiting]] = {}
        self._offsets: dict[str, int] = {}
        self._lease = 0

    def add(self, batch: Sequence[tuple[Message, Sequence[Stop]]], source: str, offset: int, now: float) -> None:
        with self._lock:
            self._insert(batch, now)
            self._offsets[source] = offset

    def _insert(self, batch: Sequence[tuple[Message, Sequence[Stop]]], now: float) -> None:
        for message, stops in batch:
            if message.id in self._messages or not stops:
                continue
            # Opened at once: the file's name is its giver's to remove, and an open file outlives its name.
            body = open(message.body.path, "rb") if message.body.path else None  # noqa: SIM115
            kept = self._messages[message.id] = _Kept(message, body)
            when = timing.first_attempt(message.envelope, now)
            for stop in stops:
                one = kept.waiting[stop.number] = _Waiting(
                    stop, when, claims=int(message.was_tried), is_held=message.is_held
                )
                self._by_destination.setdefault(stop.destination, {})[message.id, stop.number] = one

    def offset(self, source: str) -> int:
        return self._offsets.get(source, 0)

    def forget_source(self, source: str) -> None:
        self._offsets.pop(source, None)

    def due(self, now: float, limit: int = 1000) -> list[tuple[str, int]]:
        with self._lock:
            found = []
            for destination, waiting in self._by_destination.items():
                times = [one.next_attempt for one in waiting.values() if one.next_attempt <= now and not one.is_held]
                if times:
                    found.append((min(times), destination, min(len(times), _COUNT_BOUND)))
        return [(destination, count) for _, destination, count in sorted(found)[:limit]]

    def next_due(self) -> float | None:
        with self._lock:
            every = (one for waiting in self._by_destination.values() for one in waiting.values())
            return min((one.next_attempt for one in every if not one.is_held), default=None)

    def claim(self, destination: str, room: int, now: float, lease: float) -> list[Parcel]:
        with self._lock:
            claimed: dict[str, list[_Waiting]] = {}
            due = [
                (timing.rank(self._messages[id].message.envelope), one.next_attempt, id, number, one)
                for (id, number), one in self._by_destination.get(destination, {}).items()
                if one.next_attempt <= now and not one.is_held
            ]
            due.sort(key=lambda row: row[:4])
            for _, _, id, _, one in due:
                if id in claimed or len(claimed) < room:
                    claimed.setdefault(id, []).append(one)
            self._lease += 1
            return [self._claimed(id, several, destination, now + lease) for id, several in claimed.items()]

    def _claimed(self, id: str, several: list[_Waiting], destination: str, until: float) -> Parcel:
        message = self._messages[id].message
        for one in several:
            one.next_attempt, one.lease, one.claims = until, self._lease, one.claims + 1
        stops = tuple(
            Stop(one.stop.number, one.stop.recipient, destination, one.attempts)
            for one in sorted(several, key=lambda one: one.stop.number)
        )
        attempt = max(one.claims for one in several)
        return Parcel(
            id, message.envelope, message.trace, message.body.size, destination, stops, self._lease, attempt
        )  # fmt: skip

    def settle(
        self,
        parcel: Parcel,
        outcomes: Sequence[Outcome],
        new_mail: Sequence[tuple[Message, Sequence[Stop]]],
        now: float,
    ) -> bool:
        with self._lock:
            leased = self._leased(parcel)
            if not leased or any(one.number not in leased for one in outcomes):
                return False
            self._insert(new_mail, now)
            until = timing.deadline(parcel.envelope)
            for outcome in outcomes:
                one = leased[outcome.number]
                one.lease, one.attempts, one.last_tried = 0, one.attempts + 1, outcome.at or now
                if outcome.result is Result.DEFERRED:
                    one.next_attempt = timing.put_off(outcome.next_attempt, until, now)
                else:
                    self._remove(parcel.message_id, outcome.number)
            return True

    def settle_all(self, settlements: Sequence[Settlement], now: float) -> list[bool]:
        return [self.settle(one.parcel, one.outcomes, one.new_mail, now) for one in settlements]

    def _leased(self, parcel: Parcel) -> dict[int, _Waiting]:
        kept = self._messages.get(parcel.message_id)
        if kept is None:
            return {}
        return {number: one for number, one in kept.waiting.items() if one.lease == parcel.lease}

    def _remove(self, id: str, number: int) -> None:
        kept = self._messages[id]
        destination = kept.waiting.pop(number).stop.destination
        self._by_destination[destination].pop((id, number))
        if not self._by_destination[destination]:
            del self._by_destination[destination]
        if not kept.waiting:
            del self._messages[id]
            if kept.body is not None:
                kept.body.close()

    def last_tried(self, message_id: str, number: int) -> float:
        with self._lock:
            kept = self._messages.get(message_id)
            one = kept.waiting.get(number) if kept is not None else None
            return one.last_tried if one is not None else 0.0

    def extend(self, parcel: Parcel, now: float, lease: float) -> bool:
        with self._lock:
            leased = self._leased(parcel)
            for one in leased.values():
                one.next_attempt = now + lease
            return bool(leased)

    def release(self, parcel: Parcel, now: float) -> None:
        with self._lock:
            for one in self._leased(parcel).values():
                one.next_attempt, one.lease = now, 0

    def open_body(self, message_id: str) -> BinaryIO:
        with self._lock:
            kept = self._messages[message_id]
            if kept.body is None:
                return io.BytesIO(kept.message.body.content or b"")
            # By number, not by name: the name is gone once the message is here.
            return open(f"/proc/self/fd/{kept.body.fileno()}", "rb") if os.path.exists("/proc/self/fd") else kept.body

    def hold(self, ids: Sequence[str]) -> int:
        with self._lock:
            return sum(self._set(id, lambda one: not one.is_held, None, True) for id in ids)

    def let_go(self, ids: Sequence[str], now: float) -> int:
        with self._lock:
            return sum(self._set(id, lambda one: one.is_held, now, False) for id in ids)

    def retry_now(self, ids: Sequence[str], now: float) -> int:
        def waits(one: _Waiting) -> bool:
            return not one.is_held and not one.lease and one.next_attempt > now

        with self._lock:
            return sum(self._set(id, waits, now, False) for id in ids)

    def _set(self, id: str, fits: Callable[[_Waiting], bool], when: float | None, is_held: bool) -> bool:
        """Change those recipients of a message that fit; whether there were any."""
        kept = self._messages.get(id)
        chosen = [one for one in kept.waiting.values() if fits(one)] if kept is not None else []
        for one in chosen:
            one.is_held = is_held
            # What a courier still has keeps its lease: let go at once it would be delivered twice.
            one.next_attempt = one.next_attempt if when is None or one.lease else when
        return bool(chosen)

    def delete(self, ids: Sequence[str]) -> int:
        with self._lock:
            known = [id for id in dict.fromkeys(ids) if id in self._messages]
            for id in known:
                for number in list(self._messages[id].waiting):
                    self._remove(id, number)
            return len(known)

    def set_aside(self, ids: Sequence[str]) -> int:
        """Memory is always readable, and there is no place for what is not."""
        return 0

    def close(self) -> None:
        with self._lock:
            self._messages.clear()
            self._by_destination.clear()
