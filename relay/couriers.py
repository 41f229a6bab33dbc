"""The couriers of one kind: a bounded crew, and whose mail may hold how much of it.

A courier blocks for as long as its next hop likes, so that a few dozen tarpits could hold them all. Hence the shares:
    at work    `active` couriers, for destinations that take mail quickly, and for new ones; an eighth of them is for
               those known to be quick, whatever number of unknown ones comes at once
    patient    `patient` more, for destinations known to be slow: they wait for each other only. A courier that has
               been under way for too long counts among these from then on, and another is at work in its place.
Patient ones beyond their share take places of those at work; the time limits of a transaction bound for how long.
Thread: the dispatcher's only; the jobs run in the crew's.
Not here: what is slow (window.py), which destination comes first (dispatcher.py).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from relay.courier import Round
from relay.window import FAIR_RATE, SLOW, Pace, Window
from smtpd_core.threads import Crew


class Couriers:
    """send() where room() allows it, heard() for every letter, ended() after the last; look() as time goes by."""

    def __init__(self, name: str, active: int, patient: int) -> None:
        self.active = active
        self.patient = patient
        self._crew = Crew(name, active + patient)
        self._reserve = active // 8
        self._at_work = 0
        self._lingering = 0
        self._numbers = count()
        self._watched: list[tuple[float, int, Round, Window]] = []

    def room(self, pace: Pace) -> int:
        """How many more may be sent to destinations of this pace."""
        if pace is Pace.SLOW:
            return max(0, self.patient - self._lingering)
        free = self.active - self._at_work - max(0, self._lingering - self.patient)
        return max(0, free - (self._reserve if pace is Pace.NEW else 0))

    @property
    def has_room(self) -> bool:
        return self.room(Pace.QUICK) > 0 or self.room(Pace.SLOW) > 0

    @property
    def lingering(self) -> int:
        """How many only wait."""
        return self._lingering

    def send(self, round: Round, window: Window, now: float, job: Callable[[], None]) -> None:
        if window.pace is Pace.SLOW:
            self._linger(round, window)
        else:
            self._at_work += 1
            round.slow_at = now + _patience(round)
            heappush(self._watched, (round.slow_at, next(self._numbers), round, window))
        window.busy += 1
        self._crew.submit(job)

    def heard(self, round: Round, now: float) -> None:
        """The next parcel of the round has its own time."""
        round.slow_at = now + _patience(round)

    def ended(self, round: Round, window: Window) -> None:
        window.busy -= 1
        if round.lingers:
            self._lingering -= 1
            window.lingering -= 1
        else:
            self._at_work -= 1

    def look(self, now: float) -> None:
        """Whoever has been under way for too long is one of the patient."""
        while self._watched and self._watched[0][0] <= now:
            _, number, round, window = heappop(self._watched)
            if round.left == 0:
                continue
            if round.slow_at > now:
                heappush(self._watched, (round.slow_at, number, round, window))
                continue
            self._at_work -= 1
            self._linger(round, window)

    def stop(self, timeout: float) -> bool:
        return self._crew.stop(timeout)

    def _linger(self, round: Round, window: Window) -> None:
        round.lingers = True
        self._lingering += 1
        window.lingering += 1


def _patience(round: Round) -> float:
    return SLOW + max(parcel.size for parcel in round.parcels) / FAIR_RATE
