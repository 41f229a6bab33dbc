"""Whether there is room for more mail: in the spool's directory, and on its disk.

Measured after so many bytes were kept, and, once full, now and then when somebody asks.
Thread: refusal() from any, all else in the commit loop; a count or a look that two make at once does no harm.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from relay.disk import Disk
from relay.spool_files import bytes_in
from smtpd_core.wire.replies import Reply

log = logging.getLogger(__name__)

# How often, at most, a full spool looks whether there is room again; and after how many bytes an open one looks.
LOOK_AGAIN = 0.25
LOOK_AFTER = 8 << 20

spool_full_452 = Reply(452, "4.3.1", "Insufficient system storage, try again later")


class Room:
    """`limit` bounds the bytes that lie in `directory`, all processes together, `free_floor` what must stay free on the
    disk. `name` is the spool's, for the log."""

    def __init__(
        self,
        directory: str,
        name: str,
        limit: int,
        free_floor: int,
        disk: Disk,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit, self.free_floor = limit, free_floor
        self._directory, self._name = directory, name
        self._disk, self._clock = disk, clock
        self._is_full = False
        self._unlooked = 0
        self._looked_at = clock()
        self._look()

    def change(self, limit: int, free_floor: int) -> None:
        """Other limits, measured at once. Thread: any."""
        self.limit, self.free_floor = limit, free_floor
        self._look()

    def refusal(self) -> Reply | None:
        """None, or the 452 4.3.1 for MAIL."""
        if not self._is_full:
            return None
        now = self._clock()
        if now - self._looked_at >= LOOK_AGAIN:
            self._looked_at = now
            self._look()
        return spool_full_452 if self._is_full else None

    def took(self, size: int) -> None:
        """So many bytes were kept."""
        self._unlooked += size
        if self._unlooked >= min(LOOK_AFTER, self.limit // 8):
            self._look()

    def ran_out(self) -> None:
        """The disk said so."""
        self._is_full = True

    def _look(self) -> None:
        self._unlooked = 0
        try:
            used = bytes_in(self._directory) + bytes_in(os.path.join(self._directory, "bodies"))
            free = self._disk.free(self._directory)
        except OSError as error:
            log.error("spool %s can't measure its directory: %s", self._name, error)
            return
        was, self._is_full = self._is_full, used >= self.limit or free < self.free_floor
        if self._is_full != was:
            log.warning(
                "spool %s %s: %d bytes spooled of %d, %d bytes free, floor %d",
                self._name, "is full" if self._is_full else "has room again", used, self.limit, free, self.free_floor,
            )  # fmt: skip
