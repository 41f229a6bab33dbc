"""A start that takes long, since a former run left much in the spool: said in the log, on a terminal, and to the
supervisor, who would take it for one that hangs.

Only what holds up the start is here; what was left comes into the queue while mail is taken already (relay/backlog).
Thread: the one that starts the outbox.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from smtpd_core.app.terminal import Steps, progress

log = logging.getLogger(__name__)

# A start that takes no longer needs no word; so often it says that it goes on; and so much more time it asks for then.
PATIENCE, EVERY, LONGER = 1.0, 5.0, 60.0

Recovering = Callable[[int, int], None]
"""Called for every message that is read, with the bytes that are done and those in all."""


@contextmanager
def recovery(tell: Callable[[str], None], *, has_bar: bool = True) -> Iterator[Recovering]:
    """`tell` gets what a supervisor is to hear, a line for each of its states. `has_bar`: this process has the terminal
    for itself."""
    with ExitStack() as bars:
        one = _Recovery(tell, bars if has_bar else None)
        yield one.goes_on
        one.end()


class _Recovery:
    def __init__(self, tell: Callable[[str], None], bars: ExitStack | None) -> None:
        self._tell, self._bars = tell, bars
        self._step: Steps | None = None
        self._since = self._last = time.monotonic()
        self._due = self._since + PATIENCE
        self._messages = self._shown = 0
        self._is_long = False

    def goes_on(self, done: int, total: int) -> None:
        self._messages += 1
        if self._bars is not None:
            self._step = self._step or self._bars.enter_context(progress("reading the spool, KiB", total >> 10))
            self._step((done >> 10) - self._shown)
            self._shown = done >> 10
        self._last = now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EVERY
        if not self._is_long:
            self._is_long = True
            log.info("recovery: reading the mail that lies in the spool, %d bytes", total)
        percent = 100 * done // max(total, 1)
        self._tell(
            f"EXTEND_TIMEOUT_USEC={int(LONGER * 1e6)}\nSTATUS=reading the mail that lies in the spool, {percent} %"
        )

    def end(self) -> None:
        if self._is_long:
            seconds = self._last - self._since
            log.info("recovery: read %d messages that lie in the spool in %.1f s", self._messages, seconds)
            self._tell("STATUS=")
