"""How many conversations a destination may have at once, by what it answered so far.

It starts small, grows by one for each window of successes, halves when the destination is in trouble, and after
several troubles in a row is closed for a while; then one conversation probes it.
Thread: the dispatcher's only.
"""

from __future__ import annotations

from dataclasses import dataclass

START = 5.0
# Troubles without a success between them after which a destination is left alone.
TROUBLES = 3
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 1800.0


@dataclass(slots=True)
class Window:
    """One destination. `busy` conversations are under way."""

    most: int = 20
    limit: float = START
    busy: int = 0
    troubles: int = 0
    closed_until: float = 0.0
    reason: str = ""  # what closed it

    def __post_init__(self) -> None:
        self.limit = min(self.limit, float(self.most))

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

    @property
    def is_forgettable(self) -> bool:
        """Nothing is under way and nothing was learnt that a new window would not know."""
        return self.busy == 0 and self.troubles == 0
