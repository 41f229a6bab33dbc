"""Brings messages from elsewhere into a spool, beside the spools of running servers or without any.

They go into segments of their own that are made out of sight, in spool/importing/, and then handed over as a whole: to
whoever delivers here that is the segment of a process that died, which it imports by its own routes, like any other.

    1 records and bodies synced in spool/importing/    nothing promised; the next import removes it
    2 their ids in the ledger, synced                  promised: the next import goes on with 3
    3 bodies, then the segment, moved into the spool   promised; imported by the server, or at its next start

Each segment has a spool's name of its own: intake removes the bodies of a dead spool that no record of it names.
Thread: one at a time, and one process (a lock sees to that).
Not here: where they come from (remains), what is known already (import_ledger).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from relay import segment
from relay.disk import Disk
from relay.foreign import body_fault
from relay.import_ledger import ImportLedger
from relay.mail import Body, Message
from relay.other_disk import link
from relay.segment_writing import SegmentWriting
from relay.spool_files import body_path, segment_path
from relay.spool_remains import spool_remains
from smtpd_core.draft import new_id

# A segment is handed over when it holds so much: an import that is stopped has not much to do again, and the server has
# something to deliver meanwhile.
MESSAGES = 500
BYTES = 32 << 20

# No segment is begun with less: the queue needs as much again before it removes one, and mail is to be taken meanwhile.
FLOOR = 128 << 20


def is_unfinished(spool: str) -> bool:
    """Whether an import into this spool's directory was stopped; what it promised may not be in the spool yet."""
    room = os.path.join(spool, "importing")
    return os.path.isdir(room) and any(name.endswith(".seg") for name in os.listdir(room))


class ImportUnderWay(OSError):
    """Another process brings messages into the same directory."""


class Importing:
    """Into the state directory `state`. `handed_over` is called for every segment. Raises OSError as the disk does, and
    then what was handed over stays."""

    def __init__(
        self, state: str | os.PathLike[str], handed_over: Callable[[], None], *, disk: Disk | None = None
    ) -> None:
        self._disk = disk or Disk()
        self._handed_over = handed_over
        self._spool = os.path.join(os.path.abspath(os.fspath(state)), "spool")
        self._room = os.path.join(self._spool, "importing")
        for folder in (self._room, os.path.join(self._spool, "bodies"), os.path.join(self._room, "bodies")):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = self._disk.lock(os.path.join(self._room, "lock"))
        if lock is None:
            raise ImportUnderWay(f"another import into {state} is under way")
        self._lock = lock
        self._name, self._ids, self._size = "", list[str](), 0
        self._segment: SegmentWriting | None = None
        self._spooled = set[str]()  # and what was taken since
        try:
            self._ledger = ImportLedger(os.path.dirname(self._spool), self._disk)
            self._finish_the_last()
            self._spooled.update(self._in_the_spool())
        except BaseException:
            self.close()
            raise

    def _in_the_spool(self) -> Iterator[str]:
        """What no queue has yet: a place that was brought away may be brought back."""
        try:
            yield from (one.id for one in spool_remains(self._spool, lambda key: 0) if isinstance(one, Message))
        except FileNotFoundError:
            pass  # a running server's intake was quicker, and the queue is asked too

    def has(self, id: str) -> bool:
        """Whether the message was brought in before, or by this one already, or lay in the spool when this began."""
        return id in self._ledger or id in self._spooled

    def take(self, message: Message) -> bool:
        """False where it can't be a record: its envelope is too long. Raises Unreadable where its body can't be copied,
        and others may be taken."""
        key = bytes.fromhex(message.resend_key) or segment.NO_KEY
        besides = segment.HELD * message.is_held + segment.TRIED * message.was_tried
        body = message.body
        content = None if body.path else body.content
        lead = segment.lead(message.id, message.packed, message.trace, body.size, content, key, besides)
        if segment.is_too_long(lead, content):
            return False
        if self._segment is None:
            self._look_for_room()
            self._name = new_id()
            self._segment = SegmentWriting(self._room, self._name, self._lock, 1 << 62, self._disk)
        if body.path:
            self._take_body(body, body_path(self._room, self._name, message.id))
        size = segment.record_size(lead, content)
        self._segment.append([(lead, content or b"")], size)
        self._ids.append(message.id)
        self._spooled.add(message.id)
        self._size += size + (body.size if body.path else 0)
        if len(self._ids) >= MESSAGES or self._size >= BYTES:
            self.hand_over()
        return True

    def _look_for_room(self) -> None:
        free = self._disk.free(self._spool)
        if free < FLOOR:
            raise OSError(
                errno.ENOSPC, f"only {free >> 20} MiB are free there, and {FLOOR >> 20} MiB stay free for the server"
            )

    def _take_body(self, body: Body, path: str) -> None:
        """Synced too: it may be a copy that somebody made just now."""
        link(self._disk, body.path, path)
        if fault := body_fault(path, body.size):
            raise OSError(f"{body.path} was changed meanwhile: it {fault}")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def hand_over(self) -> None:
        """What was taken so far is promised on return, and on its way."""
        if self._segment is None or not self._ids:
            return
        self._segment.sync()
        self._segment.close()
        self._disk.sync_directory(os.path.join(self._room, "bodies"))
        self._ledger.promise(self._name, self._ids)
        self._move(self._name, self._ids)
        self._segment, self._ids, self._size = None, [], 0

    def _move(self, name: str, ids: list[str]) -> None:
        """Step 3, or what is left of it."""
        for id in ids:
            path = body_path(self._room, name, id)
            if os.path.exists(path):
                self._disk.rename(path, body_path(self._spool, name, id))
        self._disk.sync_directory(os.path.join(self._spool, "bodies"))
        self._disk.rename(segment_path(self._room, name, 1), segment_path(self._spool, name, 1))
        self._disk.sync_directory(self._spool)
        self._handed_over()

    def _finish_the_last(self) -> None:
        """An import that was killed: what it promised goes on its way, the rest is still where it came from."""
        for file in os.listdir(self._room):
            path = os.path.join(self._room, file)
            if os.path.isdir(path) or file == "lock":
                continue
            ids = self._ledger.ids_of(file.partition("-")[0])
            if ids:
                self._move(file.partition("-")[0], ids)
            else:
                self._disk.remove(path)
        self._remove_bodies()

    def _remove_bodies(self) -> None:
        bodies = os.path.join(self._room, "bodies")
        for file in os.listdir(bodies):
            self._disk.remove(os.path.join(bodies, file))

    def _leave_out(self) -> None:
        """A server that runs here needs the room on the disk, which may be full."""
        if self._ledger.ids_of(self._name):
            return  # promised: the next import goes on with it
        for file in os.listdir(self._room):
            if file.startswith(f"{self._name}-"):
                self._disk.remove(os.path.join(self._room, file))
        self._remove_bodies()

    def close(self) -> None:
        """What was not handed over is left out, and takes no room. Idempotent."""
        try:
            if self._segment is not None:
                self._segment.close()
                self._segment = None
                self._leave_out()
        finally:
            if self._lock >= 0:
                self._disk.close(self._lock)
                self._lock = -1

    def __enter__(self) -> Importing:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
