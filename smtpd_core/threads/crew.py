"""A crew: a bounded number of worker threads for work that blocks on the outside world (couriers)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

# A worker with nothing to do goes home after this many seconds, so that an idle crew holds no threads.
IDLE_SECONDS = 30.0


class Crew:
    """Jobs in order of submission, on at most `max` threads, which start when they are needed.

    What a job raises is logged; the worker lives on. Thread: submit() from any; stop() from any but a worker.
    """

    def __init__(self, name: str, max: int) -> None:
        if max < 1:
            raise ValueError(f"a crew of {max}: at least one worker is needed")
        self.name = name
        self.max = max
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._started = 0
        self._stopped = False

    def submit(self, job: Callable[[], None]) -> bool:
        """Hand in a job; False where the crew was stopped, and the job will not run."""
        with self._changed:
            if self._stopped:
                return False
            self._jobs.append(job)
            if self._idle >= len(self._jobs) or len(self._threads) >= self.max:
                self._changed.notify()
                return True
            self._started += 1
            thread = threading.Thread(target=self._work, name=f"{self.name}-{self._started}", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            # The system has no thread left. Whoever ends a job takes this one, else the next submit() tries again.
            log.error("crew %s: %s; the job waits", self.name, error)
            with self._changed:
                self._threads.discard(thread)
                self._changed.notify_all()
        return True

    def stop(self, timeout: float | None = None) -> bool:
        """Take no more jobs, drop those not begun, wait for those under way; True when all workers are gone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._stopped = True
            self._jobs.clear()
            self._changed.notify_all()
            while self._threads:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                job()
            except Exception:
                log.exception("a job of crew %s failed", self.name)

    def _next_job(self) -> Callable[[], None] | None:
        with self._changed:
            deadline = time.monotonic() + IDLE_SECONDS
            while not self._jobs:
                left = deadline - time.monotonic()
                if self._stopped or left <= 0:
                    self._threads.discard(threading.current_thread())
                    self._changed.notify_all()
                    return None
                self._idle += 1
                self._changed.wait(left)
                self._idle -= 1
            return self._jobs.popleft()
