"""An open segment, read as far as the disk allows.

Thread: one at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from relay import segment
from relay.disk import Disk
from relay.spool_files import Found

log = logging.getLogger(__name__)


class Reading:
    """An open segment."""

    __slots__ = ("_descriptor", "found", "mark")

    def __init__(self, found: Found, descriptor: int, mark: bytes) -> None:
        self.found, self._descriptor, self.mark = found, descriptor, mark

    @classmethod
    def of(cls, found: Found) -> Reading | None:
        """None where the file has neither a good header nor a good first record."""
        reading = cls(found, os.open(found.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), b"")
        mark = segment.mark_of(reading.pread(segment.HEADER_SIZE, 0))
        if mark is None:
            # The first record repeats the mark, and its checksum proves it.
            first = next(segment.scan(reading.pread, b"", segment.HEADER_SIZE, reading.size), None)
            if not isinstance(first, segment.Record):
                reading.close()
                return None
            mark = reading.pread(16, segment.HEADER_SIZE)
        reading.mark = mark
        return reading

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes of the file; what the disk can't read is given as zeros, which no checksum takes for a record."""
        try:
            if hasattr(os, "pread"):
                return os.pread(self._descriptor, length, offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, length)
        except OSError as error:
            if length > 4096:
                return b"".join(self.pread(min(4096, length - done), offset + done) for done in range(0, length, 4096))
            log.error("intake: %s at %d: %s", self.found.path, offset, error)
            return bytes(max(0, min(length, self.size - offset)))

    def scan(self, start: int, stop: int) -> Iterator[segment.Record | segment.Damage]:
        """Its records and its damage in [start, stop)."""
        return segment.scan(self.pread, self.mark, start, stop)

    def sync(self, disk: Disk) -> None:
        """All that can be read of it is on disk when this returns."""
        disk.sync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
