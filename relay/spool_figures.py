"""What a spool's commit loop did so far, in numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

# Upper bounds of the classes that commits are sorted into; one more class holds what is above. A sync takes a tenth of
# a millisecond on a good disk and some milliseconds at a busy moment of it.
SYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
GROUP_MESSAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Figures:
    """What the commit loop did so far. Written there, read by whoever is curious."""

    __slots__ = (
        "bytes",
        "commits",
        "group_classes",
        "largest_group",
        "longest_sync",
        "messages",
        "promised",
        "sync_classes",
        "sync_seconds",
    )

    def __init__(self) -> None:
        self.commits = self.messages = self.bytes = self.largest_group = 0
        self.sync_seconds = self.longest_sync = 0.0
        self.promised: Counter[str] = Counter()  # messages, by what their 250 means
        self.sync_classes = [0] * (len(SYNC_SECONDS) + 1)
        self.group_classes = [0] * (len(GROUP_MESSAGES) + 1)

    def note(self, group: int, size: int, seconds: float) -> None:
        """One commit."""
        self.commits += 1
        self.messages += group
        self.bytes += size
        self.largest_group = max(self.largest_group, group)
        self.sync_seconds += seconds
        self.longest_sync = max(self.longest_sync, seconds)
        self.sync_classes[bisect_left(SYNC_SECONDS, seconds)] += 1
        self.group_classes[bisect_left(GROUP_MESSAGES, group)] += 1
