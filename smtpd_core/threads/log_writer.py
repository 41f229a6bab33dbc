"""Log lines leave their threads at once and are written by one thread, in order, several with one write.

Thread: any may log; stop() and reopen() from the owner.
Not here: forms and files (smtpd_core.app.logs).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from smtpd_core.threads.loop import Lock, start_loop
from smtpd_core.threads.mailbox import Mailbox

# Lines that wait to be written. A writer that can't keep up (a stopped terminal) costs lines, never memory or mail.
MAX_WAITING = 100_000


class LogWriter:
    """`write(lines)` and `reopen()` run in the writer's own thread."""

    def __init__(
        self, form: logging.Formatter, write: Callable[[list[str]], None], reopen: Callable[[], None] | None = None
    ) -> None:
        self.handler = _ToMailbox()
        self._form = form
        self._write = write
        self._reopen = reopen
        self._wants_reopen = False
        self._stopping = False
        self._loop = start_loop("log", self._run)

    def reopen(self) -> None:
        """Open the file again before the next line."""
        self._wants_reopen = True
        self.handler.box.poke()

    def stop(self, timeout: float = 2.0) -> bool:
        """Write what is there and end. Idempotent."""
        self._stopping = True
        self.handler.box.poke()
        return self._loop.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            self._write_all(self.handler.box.wait())
        self._write_all(self.handler.box.take_all())

    @property
    def dropped(self) -> int:
        """Lines that found no room."""
        return self.handler.dropped

    def _write_all(self, records: list[logging.LogRecord]) -> None:
        if self._wants_reopen and self._reopen is not None:
            self._wants_reopen = False
            self._reopen()
        if records:
            self._write([self._form.format(record) for record in records])
            self.handler.written(len(records))


class _ToMailbox(logging.Handler):
    """Arguments are filled in by the thread that logs, since they may change later; nothing else is."""

    def __init__(self) -> None:
        super().__init__()
        self.box: Mailbox[logging.LogRecord] = Mailbox()
        self.dropped = 0
        self._waiting = 0
        self._count = Lock()

    def createLock(self) -> None:
        # The mailbox has its own.
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Without a lock, which logging from Python 3.13 on takes unasked."""
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.msg = record.getMessage()
        except Exception as error:
            print(f"log: {record.name}: {error}", file=sys.stderr)
            return
        record.args = None
        with self._count:
            if self._waiting >= MAX_WAITING:
                self.dropped += 1
                return
            self._waiting += 1
        self.box.put(record)

    def written(self, lines: int) -> None:
        with self._count:
            self._waiting -= lines
