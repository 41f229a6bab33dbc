"""Parcels that are claimed and not settled, and how many there may be, by how long the queue takes to settle.

What is delivered and not settled is delivered again after a crash, and a queue that is behind with what came back is
not helped by more. So each slow settlement, or one that failed, halves what may be out; each quick one lets it grow by
what it settled.
Thread: the dispatcher's only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from relay.mail import Settlement
from relay.queue import Queue

# A settlement that takes longer is slow. A sync takes some milliseconds on a busy disk.
SLOW = 1.0

# So many may be out however slow the queue is: one settlement carries them all, and fewer would make it no quicker.
LEAST = 16


class Outstanding:
    """At most `most`. `stopwatch` gives seconds from anywhere."""

    def __init__(self, most: int, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._most = max(most, LEAST)
        self._limit = self._most
        self._count = 0
        self._stopwatch = stopwatch

    @property
    def room(self) -> int:
        """How many more may be claimed."""
        return self.room_beside(0)

    def room_beside(self, waiting: int) -> int:
        """The same where so many of those that are out only wait for a slow hop, with nothing to settle in sight."""
        return max(0, self._limit - self._count + waiting)

    def claimed(self, count: int) -> None:
        self._count += count

    def given_back(self, count: int) -> None:
        self._count -= count

    def settle(self, queue: Queue, settlements: Sequence[Settlement], now: float) -> list[bool]:
        """What the queue says of them. Raises what it raises, and then they are still out."""
        began = self._stopwatch()
        try:
            kept = queue.settle_all(settlements, now)
        except Exception:
            self._slow_down()
            raise
        self._count -= len(settlements)
        if self._stopwatch() - began > SLOW:
            self._slow_down()
        else:
            self._limit = min(self._most, self._limit + len(settlements))
        return kept

    def _slow_down(self) -> None:
        self._limit = max(LEAST, self._limit // 2)
