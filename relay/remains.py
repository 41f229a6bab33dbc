"""What is still to be delivered in a state directory that no server uses: of its queue, and of its spool.

As long as it is open no server can deliver from there. Nothing is removed, and nothing but lock files is written.
Thread: one at a time.
Not here: where it goes (importing).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from relay.disk import Disk
from relay.foreign import Unfit, look_over
from relay.importing import is_unfinished
from relay.mail import Message
from relay.queue import QueueIsHeld
from relay.queue_remains import QueueRemains
from relay.spool_files import found_in, position_of_living
from relay.spool_remains import spool_remains
from relay.view import Fault


class Remains:
    """Of the state directory `directory`. Raises FileNotFoundError where it is none, Unfit where something in it leads
    elsewhere or it can't be locked, QueueIsHeld where a server uses it or an import into it was not finished,
    QueueUnreadable where its queue can't be read or is of a later program, OSError as the disk does."""

    def __init__(self, directory: str | os.PathLike[str], disk: Disk | None = None) -> None:
        self.directory = os.path.abspath(os.fspath(directory))
        self._disk = disk or Disk()
        self._spool = os.path.join(self.directory, "spool")
        path = os.path.join(self.directory, "queue.db")
        if not os.path.exists(path) and not os.path.isdir(self._spool):
            raise FileNotFoundError(f"{directory} is no state directory: it has neither queue.db nor spool/")
        look_over(self.directory)
        try:
            lock = self._disk.lock(os.path.join(self.directory, "queue.lock"))
        except OSError as error:
            raise Unfit(
                f"{directory} can't be locked against servers: {error.strerror}; copy it to where it can be written,"
                " and import the copy"
            ) from None
        if lock is None:
            raise QueueIsHeld(f"{directory} is in use by a running server; stop that first")
        self._lock = lock
        try:
            self._look_for_receivers()
            if is_unfinished(self._spool):
                raise QueueIsHeld(f"an import into {directory} was not finished; make that again first")
            self._queue = QueueRemains(path) if os.path.exists(path) else None
        except BaseException:
            self._disk.close(lock)
            raise

    def _look_for_receivers(self) -> None:
        """They may outlive the process that holds the queue."""
        for name in found_in(self._spool) if os.path.isdir(self._spool) else ():
            if position_of_living(self._spool, name, self._disk) is not None:
                raise QueueIsHeld(f"{self.directory} is in use by a running server, which spools; stop that first")

    @property
    def count(self) -> int:
        """About how many there are; those in the spool are not counted."""
        return self._queue.count if self._queue is not None else 0

    def __iter__(self) -> Iterator[Message | Fault | None]:
        """Each message, or what is wrong with it; None for one that has nothing left to deliver."""
        if self._queue is None:
            bodies = os.path.join(self.directory, "bodies")
            if os.path.isdir(bodies) and (count := len(os.listdir(bodies))):
                yield Fault(f"queue.db is missing, and with it the messages that {count} files in {bodies} belong to")
            yield from spool_remains(self._spool, lambda segment: 0)
            return
        yield from self._queue.messages()
        for one in spool_remains(self._spool, self._queue.offset):
            id = one.id
            if not id or not self._queue.has(id):
                yield one

    def close(self) -> None:
        """Idempotent."""
        if self._queue is not None:
            self._queue.close()
        if self._lock >= 0:
            self._disk.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Remains:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
