"""The couriers of one kind: a bounded crew, and whose mail may hold how much of it.

A courier blocks for as long as its next hop likes, so that a few dozen tarpits could hold them all. Hence the shares:
    at work    `active` couriers, for destinations that take mail quickly, and for new ones; an eighth of them is for
               those known to be quick, whatever number of unknown ones comes at once
    patient    `patient` more. Two thirds of them may be sent to destinations known to be slow, which so wait for each
               other only. And a courier that has been under way for LINGER counts among them from then on, whatever its
               destination: it only waits, and another is at work in its place.
An eighth of the patient is for slow destinations, however many others linger. Patient ones beyond their share take
places of those at work; the time limits of a transaction bound for how long.
Thread: the dispatcher's only; the jobs run in the crew's.
Not here: what is slow (window.py), which destination comes first (dispatcher.py).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from relay.courier import Round
from relay.window import Pace, Window, patience
from smtpd_core.threads import Crew

# Seconds after which a courier is taken to be waiting. Over a fair line a transaction takes a second or two.
LINGER = 2.0


class Couriers:
    """send() where room() allows it, heard() for every letter, ended() after the last; look() as time goes by."""

    def __init__(self, name: str, active: int, patient: int) -> None:
        self.active = active
        self.patient = patient
        self._crew = Crew(name, active + patient)
        self._reserve = active // 8
        self._for_slow = max(1, patient * 2 // 3)
        self._kept_for_slow = patient // 8
        self._sent_slow = 0
        self._at_work = 0
        self._lingering = 0
        self._numbers = count()
        self._watched: list[tuple[float, int, Round, Window]] = []

    def room(self, pace: Pace) -> int:
        """How many more may be sent to destinations of this pace."""
        kept = max(0, self._kept_for_slow - self._sent_slow)
        if pace is Pace.SLOW:
            workers = self.active + self.patient - self._at_work - self._lingering
            return max(0, min(max(self._for_slow - self._lingering, kept), workers))
        free = self.active - self._at_work - max(0, self._lingering + kept - self.patient)
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
            round.lingers = round.is_slow = round.was_slow = True
            self._sent_slow += 1
            window.lingering += 1
            self._lingering += 1
        else:
            self._at_work += 1
            round.since = now
            self._watch(now + LINGER, round, window)
        window.busy += 1
        self._crew.submit(job)

    def heard(self, round: Round, now: float) -> None:
        """The next parcel of the round has its own time."""
        round.since = now

    def ended(self, round: Round, window: Window) -> None:
        window.busy -= 1
        window.lingering -= round.is_slow
        self._sent_slow -= round.was_slow
        if round.lingers:
            self._lingering -= 1
        else:
            self._at_work -= 1

    def look(self, now: float) -> None:
        """Whoever has been under way for LINGER is one of the patient, and for SLOW a sign that its destination is."""
        while self._watched and self._watched[0][0] <= now:
            _, _, round, window = heappop(self._watched)
            if round.left == 0:
                continue
            slow_at = round.since + _patience(round)
            if slow_at <= now:
                round.is_slow = True
                window.lingering += 1
            else:
                due = slow_at if round.lingers or round.since + LINGER <= now else round.since + LINGER
                self._watch(due, round, window)
            if not round.lingers and round.since + LINGER <= now:
                round.lingers = True
                self._at_work -= 1
                self._lingering += 1

    def stop(self, timeout: float) -> bool:
        return self._crew.stop(timeout)

    def _watch(self, until: float, round: Round, window: Window) -> None:
        heappush(self._watched, (until, next(self._numbers), round, window))


def _patience(round: Round) -> float:
    return patience(max(parcel.size for parcel in round.parcels))
