"""How long each hook takes, and which hooks share a part of the slots.

Rule: a meter changes only under the lock of the pool's books.
Thread: made by one, then read and written by the pool's books alone.
"""

from __future__ import annotations

# A hook slower than this on average is entered only after stepping down: a handler of 0.5 ms made 1 150 messages a
# second inline and 3 900 after a hand-over.
SLOW = 0.0005

# The longest duration that counts into the average, so that one hiccup of the machine does not make a hook slow, and
# two in a row do.
_HICCUP = 8 * SLOW


class Share:
    """A part of the slots for hooks that must leave room for others (account look-ups and hash checks: a half).

    `at_most`: and no more than that many, however many slots there are; 0 is no limit.
    """

    __slots__ = ("at_most", "fraction", "held")

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.at_most = 0
        self.held = 0

    def limit(self, slots: int) -> int:
        part = max(1, int(slots * self.fraction))
        return min(part, self.at_most) if self.at_most else part


class HookMeter:
    """The moving average of one hook's duration, and what `calls` took together. One per hook and server.

    `budget`: seconds after which the watchdog reports a running call.
    `share`: the part of the slots that this hook may hold together with the others of the same Share.
    `always_slow`: the hook is entered after stepping down whatever it took before.
    """

    __slots__ = ("always_slow", "average", "budget", "calls", "longest", "name", "over_budget", "seconds", "share")

    def __init__(
        self, name: str, budget: float = 30.0, share: Share | None = None, *, always_slow: bool = False
    ) -> None:
        self.name = name
        self.budget = budget
        self.share = share
        self.always_slow = always_slow
        self.average = 0.0
        self.longest = 0.0
        self.seconds = 0.0
        self.calls = 0
        self.over_budget = 0

    @property
    def is_slow(self) -> bool:
        return self.always_slow or self.average > SLOW

    def note(self, seconds: float) -> None:
        """Count one call. Under the lock of the books."""
        self.calls += 1
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds
        self.average += (min(seconds, _HICCUP) - self.average) / 8
