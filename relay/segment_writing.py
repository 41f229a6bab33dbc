"""The segments of one spool as they are written: begun, appended to, synced, closed, or given up.

Rule: after a failed sync the descriptor is never synced again: the kernel may have dropped the pages and would report
success. The segment is suspect, cut back to what is synced, and the next append begins a fresh one.
Thread: the commit loop of the spool; `position` is read by any.
Not here: the form of a record (segment), reading (segment_reading, intake).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence

from relay import segment
from relay.disk import Disk
from relay.spool_files import Position, position_bytes, segment_path, suspect_path

log = logging.getLogger(__name__)


class SegmentWriting:
    """Of the spool `name` in `directory`. A segment longer than `limit` is closed, so that it can be removed once it is
    imported. How far it is synced is published in the file of the descriptor `lock`."""

    def __init__(self, directory: str, name: str, lock: int, limit: int, disk: Disk) -> None:
        self.limit = limit
        self.position = Position(0, 0)
        self._directory, self._name, self._lock, self._disk = directory, name, lock, disk
        self._descriptor = -1
        self._mark = self._between = b""
        self._written = 0

    def append(self, records: Sequence[tuple[bytes, bytes]], size: int) -> int:
        """Write lead and content of each, `size` bytes in all with their marks; the offset of the first. Raises
        OSError, and then nothing of them is left."""
        try:
            if self._descriptor < 0 or self._written >= self.limit:
                self._begin()
            start = self._written
            self._append(records, size)
            return start
        except OSError as error:
            log.error("spool %s can't append: %s", self._name, error)
            self._cut_back()
            raise

    def _append(self, records: Sequence[tuple[bytes, bytes]], size: int) -> None:
        pieces: list[bytes] = []
        between = self._mark
        for lead, content in records:
            pieces += (between, lead, content)
            between = self._between
        pieces.append(segment.END)
        done = self._disk.append(self._descriptor, pieces)
        self._written += done
        while done < size:  # a signal, or a disk that is filling up: the next write tells which
            rest = memoryview(b"".join(pieces))[done:]
            more = self._disk.append(self._descriptor, [bytes(rest)])
            self._written += more
            done += more

    def sync(self) -> None:
        """What is appended is on disk when this returns. Raises OSError, and then it is gone."""
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            log.error("spool %s can't sync: %s; its segment %d is suspect", self._name, error, self.position.number)
            self.give_up()
            raise
        self._publish(self.position.number)

    def close(self) -> None:
        """The segment is complete."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def give_up(self) -> None:
        """Never sync this descriptor again. The name carries how far the segment is good, and it is cut there too."""
        if self._descriptor < 0:
            return
        number, offset = self.position
        path = segment_path(self._directory, self._name, number)
        steps: tuple[Callable[[], None], ...] = (
            lambda: self._disk.rename(path, suspect_path(path, offset)),
            lambda: self._disk.sync_directory(self._directory),
            lambda: self._disk.truncate(self._descriptor, offset),
        )
        for step in steps:
            try:
                step()
            except OSError as error:
                log.error("spool %s, suspect segment %d: %s", self._name, number, error)
        self.close()

    def abandon(self) -> int:
        """The descriptor that is left to whoever forked: nothing is to be done with it but to close it."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def _begin(self) -> None:
        """Header, sync, name synced: all before the first record."""
        self.close()
        number = self.position.number + 1
        mark = segment.new_mark()
        first = segment.header(mark)
        path = segment_path(self._directory, self._name, number)
        descriptor = self._disk.create(path)
        try:
            if self._disk.append(descriptor, [first]) != len(first):
                raise OSError(errno.ENOSPC, "no room for a segment's header")
            self._disk.sync(descriptor)
            self._disk.sync_directory(self._directory)
        except OSError:
            self._disk.close(descriptor)
            self._disk.remove(path)
            raise
        self._descriptor, self._mark, self._between = descriptor, mark, segment.END + mark
        self._written = len(first)
        self._publish(number)

    def _publish(self, number: int) -> None:
        """Say how far intake may read: in memory, and beside the segment for an intake in another process."""
        self.position = Position(number, self._written)
        try:
            self._disk.write_at(self._lock, position_bytes(self.position), 0)
        except OSError as error:
            # Intake then lags until the next one succeeds; nothing is lost.
            log.warning("spool %s can't publish its position: %s", self._name, error)

    def _cut_back(self) -> None:
        """A write failed half-way: what it left behind goes; where that fails too, the segment is suspect."""
        if self._descriptor < 0:
            return
        try:
            self._disk.truncate(self._descriptor, self.position.offset)
            self._written = self.position.offset
        except OSError:
            self.give_up()
