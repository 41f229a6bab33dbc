"""Named daemon threads that live as long as their owner wants: commit loop, intake, dispatcher, queue writer.

A loop is stopped by its owner through whatever it reads (usually a Mailbox); `join` only waits for that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Lock = threading.Lock
Condition = threading.Condition


class Loop:
    """One running loop. Thread: any; join() not from the loop itself."""

    __slots__ = ("_thread",)

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    @property
    def name(self) -> str:
        return self._thread.name

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        return self._thread is threading.current_thread()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the loop to end; True when it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


def start_loop(name: str, run: Callable[[], None]) -> Loop:
    """Run `run` in a daemon thread named `name`. What it raises ends the loop and is logged as critical."""

    def body() -> None:
        try:
            run()
        except Exception:
            log.critical("loop %s died", name, exc_info=True)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return Loop(thread)
