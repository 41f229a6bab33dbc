"""What the parts of the bench speak of: a workload, a goal, the terms of a run, the sample of one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Terms:
    """`seconds` is how long the load lasts in a workload of rates; `scale` a factor on counts and other durations."""

    seconds: float = 2.0
    scale: float = 1.0
    is_pinned: bool = True

    def count(self, full: int, least: int = 1) -> int:
        return max(least, round(full * min(1.0, self.scale)))


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of ours is held against: a number, or so many times a peer's figure in the same run."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    peer: str = ""

    def __str__(self) -> str:
        bound = self.at_least if self.at_least is not None else self.at_most
        sign = "≥" if self.at_least is not None else "≤"
        return f"{sign} {bound:g}" + (" x it" if self.peer else f" {FIGURES[self.figure]}")

    def verdict(self, own: Sample | None, peer: Sample | None) -> str:
        """met, missed or not measured; with the ratio where it is one."""
        if own is None or (self.peer and peer is None):
            return "not measured"
        found = own[self.figure] / (peer[self.figure] or 1e-9) if self.peer and peer else own[self.figure]
        good = found >= self.at_least if self.at_least is not None else found <= (self.at_most or 0.0)
        worse = math.floor if self.at_least is not None else math.ceil  # so that what missed does not look as if it met
        return f"{'met' if good else 'missed'} ({worse(round(found * 100, 6)) / 100:.2f})"


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of what is measured. The first target is ours; the first column is the headline."""

    name: str
    what: str
    measure: Callable[[Any, Workload, Terms], Sample]
    targets: tuple[str, ...]
    columns: tuple[str, ...]
    options: dict[str, int | float | bool] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    unit: str = "msg/s"
    is_once: bool = False  # one run whatever is asked for: it takes long and varies little
    is_in_process: bool = False  # measured in the driver's own process, and so on its interpreter only


# Columns and their headings.
FIGURES = {
    "rate": "msg/s",
    "cpu": "CPU s/1000",
    "generator": "gen",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "resident_mib": "MiB",
    "each_kib": "KiB each",
    "threads": "threads",
    "wake_ups": "wake-ups/s",
    "cpu_a_minute": "CPU s/min",
    "grown_mib": "grown MiB",
    "start_stop_ms": "ms",
    "add_growth": "add x",
    "claim_growth": "claim x",
    "settle_growth": "settle x",
    "seconds": "s",
}
