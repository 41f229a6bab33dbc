"""What is known of a destination: how many conversations it may have at once, and at what pace it takes mail.

A window starts small, grows by one for each window of successes, halves when the destination is in trouble, and after
several troubles in a row is closed for a while; then one conversation probes it. Its pace is measured: what its last
parcels took, smoothed, and whether one is under way for too long right now.
Thread: the dispatcher's only.
Not here: what a pace means for the couriers (couriers.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

START = 5.0
# Troubles without a success between them after which a destination is left alone.
TROUBLES = 3
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 1800.0
# Seconds that a parcel may take before its destination counts as slow. Greeting pauses of 5 to 6 s are common.
SLOW = 10.0
# Bytes per second that a large message is allowed on top: a slow line is not a slow destination.
FAIR_RATE = 65_536
# Windows that are remembered. What is forgotten is learnt anew with one courier.
MAX_WINDOWS = 20_000


def patience(size: int) -> float:
    """Seconds that a parcel of `size` bytes may take before its destination counts as slow."""
    return SLOW + size / FAIR_RATE


class Pace(Enum):
    """How fast a destination takes mail."""

    NEW = "nothing was tried yet"
    QUICK = "parcels take less than SLOW"
    SLOW = "parcels take longer, or one is taking longer now"


@dataclass(slots=True)
class Window:
    """One destination. `busy` conversations are under way, `lingering` of them for longer than SLOW; `seconds` is what
    a parcel takes of late, less than 0 where none was tried."""

    most: int = 20
    limit: float = START
    busy: int = 0
    troubles: int = 0
    closed_until: float = 0.0
    reason: str = ""  # what closed it
    seconds: float = -1.0
    lingering: int = 0

    def __post_init__(self) -> None:
        self.limit = min(self.limit, float(self.most))

    def allow(self, most: int) -> None:
        """So many at most, from now on."""
        self.most = most
        self.limit = min(self.limit, float(most))

    def room(self, now: float) -> int:
        """How many more conversations may start now."""
        if self.is_closed(now):
            return 0
        if self.troubles >= TROUBLES:
            return 1 if self.busy == 0 else 0  # a probe
        return max(0, int(self.limit) - self.busy)

    def is_closed(self, now: float) -> bool:
        # A pause that is longer than any can be was reckoned by a clock that has been set back since.
        return now < self.closed_until <= now + LONGEST_PAUSE

    def went_well(self) -> None:
        self.troubles = 0
        self.closed_until = 0.0
        self.reason = ""
        self.limit = min(float(self.most), self.limit + 1.0 / max(self.limit, 1.0))

    def had_trouble(self, now: float, reason: str) -> None:
        """The host or the destination was in trouble, not the message or a recipient."""
        self.troubles += 1
        self.limit = max(1.0, self.limit / 2)
        if self.troubles >= TROUBLES:
            pause = min(FIRST_PAUSE * 2.0 ** (self.troubles - TROUBLES), LONGEST_PAUSE)
            self.closed_until = now + pause
            self.reason = reason

    def took(self, seconds: float, size: int) -> None:
        """A parcel of `size` bytes was carried there and back, whatever came of it."""
        seconds = max(0.0, seconds - size / FAIR_RATE)
        self.seconds = seconds if self.seconds < 0 else (self.seconds + seconds) / 2

    @property
    def pace(self) -> Pace:
        if self.lingering or self.seconds >= SLOW:
            return Pace.SLOW
        return Pace.NEW if self.seconds < 0 else Pace.QUICK

    @property
    def is_forgettable(self) -> bool:
        """Nothing is under way and nothing was learnt that a new window would not know."""
        return self.busy == 0 and self.troubles == 0 and self.seconds < SLOW


class Windows:
    """All of them by destination. `most_of(destination)` is asked once for each new one."""

    def __init__(self, most_of: Callable[[str], int], most: int = MAX_WINDOWS) -> None:
        self._most_of = most_of
        self._most = most
        self._known: dict[str, Window] = {}

    def __getitem__(self, destination: str) -> Window:
        window = self._known.get(destination)
        if window is None:
            if len(self._known) >= self._most:
                self._forget()
            window = self._known[destination] = Window(self._most_of(destination))
        return window

    def get(self, destination: str) -> Window | None:
        return self._known.get(destination)

    def _forget(self) -> None:
        """Room for a quarter, so that it is not looked for again at once: the dull ones, and if they are too few the
        oldest where nothing is under way."""
        wanted = max(1, self._most // 4)
        rest = [name for name, one in self._known.items() if one.busy == 0]
        gone = [name for name in rest if self._known[name].is_forgettable]
        if len(gone) < wanted:
            gone += [name for name in rest if not self._known[name].is_forgettable][: wanted - len(gone)]
        for name in gone:
            del self._known[name]
