"""What is told to the log, awaited instead of slept for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Told(logging.Handler):
    """The messages so far."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.messages.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, words: str, timeout: float = 20.0) -> None:
        """Until a message has these words."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(words in one for one in self.messages), timeout)
        assert found, f"nothing said {words!r}: {self.messages}"


@contextmanager
def told_to_the_log() -> Iterator[Told]:
    """What is logged meanwhile."""
    told = Told()
    logging.getLogger().addHandler(told)
    try:
        yield told
    finally:
        logging.getLogger().removeHandler(told)
