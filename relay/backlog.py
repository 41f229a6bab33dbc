"""Says in the log that an intake has much to import at its start, and when it is through: mail is taken meanwhile, but
what lay there before is delivered only then.

Thread: the intake's.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

# An import that takes no longer needs no word. Seconds.
PATIENCE = 1.0


class Backlog:
    """Of one start. `directory` is the spool's."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._since = time.monotonic()
        self._messages = 0
        self._is_long = self._is_over = False

    def imported(self, count: int) -> None:
        """So many messages more."""
        self._messages += count
        if not self._is_over and not self._is_long and time.monotonic() - self._since >= PATIENCE:
            self._is_long = True
            log.info("intake: importing what lay in %s, %d messages so far", self._directory, self._messages)

    def over(self) -> None:
        """All that lay there is imported, or could not be. Idempotent."""
        if self._is_long and not self._is_over:
            seconds = time.monotonic() - self._since
            log.info("intake: imported %d messages that lay in %s in %.1f s", self._messages, self._directory, seconds)
        self._is_over = True
