"""Deadlines of connections: a wheel of coarse ticks.

Rule: a connection stands in one tick at most. Moving its deadline later costs nothing (it is looked at when its tick
comes, and set again then); only an earlier one moves it. So a command costs no entry, and closing leaves none behind.
Deadlines are never early, and late by at most an eighth of a second, or a second where they are further than ten.
Thread: the leader of the reactor only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

_TICKS = 8  # in a second
_FAR = 10 * _TICKS


class Timed(Protocol):
    due: float  # monotonic time of the deadline, or 0.0 for none
    tick: int  # where it stands in the wheel, 0 for nowhere


class Deadlines:
    __slots__ = ("_order", "_ticks")

    def __init__(self) -> None:
        self._ticks: dict[int, set[Timed]] = {}
        self._order: list[int] = []

    def arm(self, timed: Timed, now: float) -> None:
        """See that `timed` is reported at its `due`."""
        tick = int(timed.due * _TICKS) + 1
        if tick - now * _TICKS > _FAR:
            tick += -tick % _TICKS
        if timed.tick:
            if timed.tick <= tick:
                return
            self.forget(timed)
        timed.tick = tick
        others = self._ticks.get(tick)
        if others is None:
            self._ticks[tick] = {timed}
            heapq.heappush(self._order, tick)
        else:
            others.add(timed)

    def forget(self, timed: Timed) -> None:
        if timed.tick:
            self._ticks[timed.tick].discard(timed)
            timed.tick = 0

    def wait(self, now: float) -> float | None:
        """Seconds until the next tick with anybody in it; None where nobody waits."""
        while self._order:
            tick = self._order[0]
            if self._ticks[tick]:
                return max(0.0, tick / _TICKS - now)
            del self._ticks[heapq.heappop(self._order)]
        return None

    def overdue(self, now: float) -> list[Timed]:
        """Those whose deadline has passed, taken off the wheel."""
        late: list[Timed] = []
        again: list[Timed] = []
        while self._order and self._order[0] <= now * _TICKS:
            for timed in self._ticks.pop(heapq.heappop(self._order)):
                timed.tick = 0
                if timed.due:
                    (late if timed.due <= now else again).append(timed)
        for timed in again:
            self.arm(timed, now)
        return late


class Alarm:
    """A deadline that belongs to no connection."""

    __slots__ = ("act", "due", "tick")

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.due = 0.0
        self.tick = 0
