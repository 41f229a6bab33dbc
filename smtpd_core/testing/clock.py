"""A clock that stands still until it is told to go on: days of retries in milliseconds.

    clock = VirtualClock()
    outbox = Outbox(folder, clock=clock)
    clock.wakes(outbox.wake)
    ...
    clock.advance(5 * 86_400)

Thread: any.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from smtpd_core.threads import Lock


class VirtualClock:
    """Call it for the time, in Unix seconds."""

    def __init__(self, now: float | None = None) -> None:
        self._now = time.time() if now is None else now
        self._wakes: list[Callable[[], object]] = []
        self._lock = Lock()

    def __call__(self) -> float:
        return self._now

    def wakes(self, wake: Callable[[], object]) -> None:
        """Call `wake` after every advance(): somebody sleeps until an instant of this clock."""
        with self._lock:
            self._wakes.append(wake)

    def advance(self, seconds: float) -> float:
        """Let so much time pass, and wake who waits for it."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}): time goes forward")
        with self._lock:
            self._now += seconds
            wakes = list(self._wakes)
        for wake in wakes:
            wake()
        return self._now
