"""The figures of several processes as those of one server: receivers post theirs, the relay adds and shows them.

A receiver posts what its counters grew by since the last post that the box took, so a post that found no room is made
up by the next one, a process that ends takes nothing back, and its successor begins anew without being known. Gauges
are those of the last post; who is silent for a while has none any more. What is too much for one message (a thousand
certificates are) is posted in several.
Thread: Reports from the receiver's main; Sums.add() from the loop that empties the box, joined() from any (one lock).
Not here: the box (net/post_box.py), what is counted (figures.py).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from smtpd_core.app.figures import METRICS, Figure
from smtpd_core.net.post_box import MOST, PostBox
from smtpd_core.threads import Lock, Loop, start_loop

log = logging.getLogger(__name__)

# Seconds between two posts of a receiver, and after which one that says nothing is not counted as there.
EVERY = 2.0
SILENT = 4 * EVERY

# Series that are added up. Labels come from tables of ours, so this many are a mistake of ours.
MOST_SERIES = 20_000

# How a gauge of several processes is one; None is what the relay alone can tell.
JOINED_BY: dict[str, Callable[[Iterable[float]], float] | None] = {
    "smtpd_connections_open": sum,
    "smtpd_sessions": sum,
    "smtpd_spool_sync_seconds_longest": max,
    "smtpd_spool_group_largest": max,
    "smtpd_spool_has_room": min,
    "smtpd_threads": sum,
    "smtpd_sessions_waiting": sum,
    "smtpd_wait_seconds_longest": max,
    "smtpd_hook_seconds_longest": max,
    "smtpd_queue_messages": None,
    "smtpd_queue_recipients": None,
    "smtpd_queue_destination": None,
    "smtpd_certificate_expiry_seconds": min,
    "smtpd_up_seconds": None,
}

_KINDS = {metric.name: metric.kind for metric in METRICS}

Series = tuple[str, str, tuple[str, ...]]  # metric, part, labels
_Row = tuple[str, Series, float]  # "grown" or "gauges", and what it is

# The rows of one message, in bytes as they are counted here; what stands around them has the rest.
_PIECE = MOST // 2


class Reports:
    """What one receiver posts. `samples()` are its figures now."""

    def __init__(self, box: PostBox, samples: Callable[[], list[Figure]]) -> None:
        self._box = box
        self._samples = samples
        self._name = f"{os.getpid()} {time.monotonic_ns()}"
        self._posted: dict[Series, float] = {}

    def post(self, *, ends: bool = False) -> None:
        """Never waits. `ends`: the last one; no sessions or threads are left."""
        now = _by_series(self._samples())
        counters = {series: value for series, value in now.items() if _KINDS[series[0]] != "gauge"}
        gauges = {series: value for series, value in now.items() if JOINED_BY.get(series[0])}
        grown = {series: by for series, value in counters.items() if (by := value - self._posted.get(series, 0.0)) > 0}
        rows = [("grown", series, by) for series, by in grown.items()]
        rows += [("gauges", series, value) for series, value in gauges.items()]
        for number, several in enumerate(_pieces(rows)):
            told: dict[str, list[Any]] = {"grown": [], "gauges": []}
            for kind, series, value in several:
                told[kind].append([*series, value])
            message = {"from": self._name, "begins": not number, "ends": ends, **told}
            if not self._box.post(json.dumps(message).encode()):
                return
            self._posted |= {series: counters[series] for kind, series, _ in several if kind == "grown"}


def _pieces(rows: list[_Row]) -> Iterator[list[_Row]]:
    """The rows in messages that the box takes; at least one, which says that its sender lives."""
    several: list[_Row] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row))
        if several and size + length > _PIECE:
            yield several
            several, size = [], 0
        several.append(row)
        size += length
    yield several


class Sums:
    """What the receivers posted, together."""

    def __init__(self, box: PostBox, clock: Callable[[], float] = time.monotonic) -> None:
        self._box = box
        self._clock = clock
        self._lock = Lock()
        self._counters: dict[Series, float] = {}
        self._gauges: dict[str, tuple[float, dict[Series, float]]] = {}  # by process: when it was heard, and its own
        self._loop: Loop | None = None
        self._stopping = False

    def start(self) -> None:
        self._loop = start_loop("sums", self._empty_the_box)

    def stop(self) -> None:
        """Idempotent."""
        self._stopping = True
        if self._loop is not None:
            self._box.wake()
            self._loop.join(1.0)
            self._loop = None

    def _empty_the_box(self) -> None:
        while not self._stopping:
            message = self._box.take()
            if message:
                self.add(message)

    def add(self, message: bytes) -> None:
        """Count what one receiver posted."""
        try:
            told = json.loads(message)
            name, begins = str(told["from"]), bool(told["begins"])
            grown, gauges = _series(told["grown"]), _series(told["gauges"])
        except (ValueError, KeyError, TypeError):
            log.error("the figures of a receiver can't be read: %r", message[:200])
            return
        with self._lock:
            for series, by in grown.items():
                if series in self._counters or len(self._counters) < MOST_SERIES:
                    self._counters[series] = self._counters.get(series, 0.0) + by
            if told.get("ends"):
                self._gauges.pop(name, None)
            else:
                before = {} if begins else self._gauges.get(name, (0.0, {}))[1]
                self._gauges[name] = (self._clock(), before | gauges)

    def joined(self, own: list[Figure]) -> list[Figure]:
        """With the relay's own: the figures of the whole server."""
        with self._lock:
            counters = dict(self._counters)
            gauges = [those for _, those in self._those_who_are_there().values()]
        found = {series: [value] for series, value in _by_series(own).items()}
        for series, value in counters.items():
            found.setdefault(series, []).append(value)
        for several in gauges:
            for series, value in several.items():
                found.setdefault(series, []).append(value)
        return [
            Figure(metric, labels, float((JOINED_BY.get(metric) or sum)(values)), part)
            for (metric, part, labels), values in found.items()
        ]

    @property
    def receivers(self) -> int:
        """How many were heard of lately."""
        with self._lock:
            return len(self._those_who_are_there())

    def _those_who_are_there(self) -> dict[str, tuple[float, dict[Series, float]]]:
        """Within the lock."""
        oldest = self._clock() - SILENT
        self._gauges = {name: heard for name, heard in self._gauges.items() if heard[0] >= oldest}
        return self._gauges


def _by_series(figures: Iterable[Figure]) -> dict[Series, float]:
    return {(one.metric, one.part, one.labels): one.value for one in figures}


def _series(rows: list[list[Any]]) -> dict[Series, float]:
    """Rows of metric, part, labels and value; those of no metric of ours are left out."""
    return {
        (metric, str(part), tuple(str(label) for label in labels)): float(value)
        for metric, part, labels, value in rows
        if metric in _KINDS
    }
