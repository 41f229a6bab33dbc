"""What a spool's commit loop did so far, in numbers."""

from __future__ import annotations

from collections import Counter


class Figures:
    """What the commit loop did so far. Written there, read by whoever is curious."""

    __slots__ = ("bytes", "commits", "largest_group", "longest_sync", "messages", "promised", "sync_seconds")

    def __init__(self) -> None:
        self.commits = self.messages = self.bytes = self.largest_group = 0
        self.sync_seconds = self.longest_sync = 0.0
        self.promised: Counter[str] = Counter()  # messages, by what their 250 means

    def note(self, group: int, size: int, seconds: float) -> None:
        """One commit."""
        self.commits += 1
        self.messages += group
        self.bytes += size
        self.largest_group = max(self.largest_group, group)
        self.sync_seconds += seconds
        self.longest_sync = max(self.longest_sync, seconds)
