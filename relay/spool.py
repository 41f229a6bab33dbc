"""The spool: where an accepted message becomes a promise. One per process; one sync serves all who wait.

    A drafted    memory or nameless file            nothing promised; gone
    B appended   in the segment, not known synced   nothing promised; after power loss cut off, after a kill imported
    C promised   synced, the 250 may go out         imported at the next start

Rule 1: a ticket of durability SYNCED is resolved only after the sync of its record, which follows the sync and link
of its body file, which follow the segment's header and name.
Rule 2: after a failed sync the descriptor is never synced again: the kernel may have dropped the pages and would
report success. The segment is suspect, cut back to what is synced, and a fresh one is begun.
Thread: promise() and has_room() from any; all else in the commit loop.
Not here: reading segments back and removing them (intake), the form of a record (segment).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from relay import segment
from relay.disk import Disk
from relay.envelope_form import pack
from relay.resends import Resends
from relay.spool_figures import Figures
from relay.spool_files import Position, body_path, bytes_in, lock_path, position_bytes, segment_path, suspect_path
from smtpd_core.draft import Draft, new_id
from smtpd_core.threads import Mailbox, Ticket, resolve_all, start_loop
from smtpd_core.wire.envelope import Envelope
from smtpd_core.wire.replies import Reply

log = logging.getLogger(__name__)

# A segment is closed, so that it can be removed once imported, when it is longer than this.
SEGMENT_SIZE = 64 << 20

# One batch: what one writev and one sync carry. More only delays those at its front.
BATCH_RECORDS = 256
BATCH_BYTES = 8 << 20

# How often, at most, a full spool looks whether there is room again; and after how many bytes an open one looks.
LOOK_AGAIN = 0.25
LOOK_AFTER = 8 << 20

spool_full_452 = Reply(452, "4.3.1", "Insufficient system storage, try again later")


class Durability(Enum):
    """When a message counts as kept."""

    SYNCED = "synced"  # survives power loss
    WRITTEN = "written"  # survives the process, not the machine
    MEMORY = "memory"  # survives nothing yet; it is written behind


class SpoolStopped(OSError):
    """The spool takes nothing any more."""


class _Entry(NamedTuple):
    ticket: Ticket
    lead: bytes
    content: bytes | None
    draft: Draft
    size: int
    durability: Durability
    key: bytes


def always_synced(envelope: Envelope) -> Durability:
    return Durability.SYNCED


class Spool:
    """Appends drafts to this process's segments.

    `limit` bounds the bytes that lie in the directory, all processes together, `free_floor` what must stay free on the
    disk; below either has_room() answers 452. `announce` is called after every sync, in the commit loop (intake's
    wake-up). `durability_of` chooses the level for a message; `resends` recognises second copies.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        limit: int = 4 << 30,
        free_floor: int = 64 << 20,
        segment_size: int = SEGMENT_SIZE,
        disk: Disk | None = None,
        announce: Callable[[], None] | None = None,
        durability_of: Callable[[Envelope], Durability] = always_synced,
        resends: Resends | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = os.fspath(directory)
        self.drafts: str | None = self.directory
        self.bodies = os.path.join(self.directory, "bodies")
        self.announce = announce
        self.limit, self.free_floor = limit, free_floor
        self._look_after = min(LOOK_AFTER, limit // 8)
        # Room comes back segment by segment, so one may not fill the spool.
        self._segment_size = min(segment_size, limit // 4)
        self._disk = disk or Disk()
        self._durability_of = durability_of
        self._resends = resends
        self._clock = clock
        self.figures = Figures()
        os.makedirs(self.bodies, mode=0o700, exist_ok=True)
        self.name, self._lock = self._take_name()
        self._descriptor = -1
        self._mark = self._between = b""
        self._written = 0
        self.position = Position(0, 0)
        self._looked_at, self._unlooked, self._is_full = clock(), 0, False
        self._look()
        self._mailbox: Mailbox[_Entry] = Mailbox()
        self._large: Mailbox[_Entry] = Mailbox()
        self._stopping = False
        self._loop = start_loop("spool-commit", self._commit_for_ever)
        self._bodies_loop = start_loop("spool-bodies", self._keep_bodies_for_ever)

    def _take_name(self) -> tuple[str, int]:
        """A name of our own, with its lock. Ids sort by time, so segments of all processes sort by age."""
        while True:
            name = new_id()
            path = lock_path(self.directory, name)
            lock = self._disk.lock(path)
            if lock is not None and os.path.exists(path):
                return name, lock
            # An intake came between file and lock, and took the name for an orphan's.
            if lock is not None:
                self._disk.close(lock)

    # What the server calls.

    def has_room(self) -> Reply | None:
        """None, or the 452 4.3.1 for MAIL."""
        if not self._is_full:
            return None
        now = self._clock()
        if now - self._looked_at >= LOOK_AGAIN:
            self._looked_at = now
            self._look()
        return spool_full_452 if self._is_full else None

    def promise(self, draft: Draft, envelope: Envelope) -> Ticket:
        """Keep the draft, which is the spool's from now on. The ticket's outcome is None once the message is kept, else
        the OSError that tells why not; its value is None or what the reply names instead of the draft's id: that of
        the earlier copy of which this is a resend, or the id with a durability below SYNCED."""
        ticket = Ticket()
        content = draft.content
        key = b""
        if self._resends is not None:
            key = self._resends.key_of(envelope, draft)
        # All that may raise comes before the key is in flight: later copies wait for it.
        lead = segment.lead(draft.id, pack(envelope), draft.trace, draft.size, content, key or segment.NO_KEY)
        durability = self._durability_of(envelope)
        if self._resends is not None and key and self._resends.is_known(key, draft.id, ticket):
            draft.close()
            return ticket
        entry = _Entry(ticket, lead, content, draft, segment.record_size(lead, content), durability, key)
        if self._stopping:
            self._refuse([entry], SpoolStopped(errno.ESHUTDOWN, "the spool is stopped"))
            return ticket
        if durability is not Durability.SYNCED:
            ticket.value = f"{draft.id} ({durability.value})"
        if durability is Durability.MEMORY:
            ticket.take()
            ticket.resolve(value=ticket.value)
        (self._mailbox if content is not None else self._large).put(entry)
        if self._stopping and not self._loop.is_alive:
            self._refuse_leftovers()
        return ticket

    def stop(self, timeout: float | None = None) -> bool:
        """Commit what waits, close the segment, give the lock back; what is not imported is an orphan from then on.
        True where all was done in time. Idempotent."""
        self._stopping = True
        self._large.poke()
        if not self._bodies_loop.join(timeout):
            return False
        self._mailbox.poke()
        if not self._loop.join(timeout):
            return False
        self._refuse_leftovers()
        if self._lock >= 0:
            self._disk.close(self._lock)
            self._lock = -1
        return True

    def abandon(self) -> None:
        """In the child after a fork: it is the parent's. Closing our copy of the lock leaves it with the parent."""
        self._stopping = True
        for descriptor in (self._lock, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._descriptor = -1

    @property
    def is_stopped(self) -> bool:
        """Whether its segments are orphans now."""
        return self._lock < 0

    def _refuse_leftovers(self) -> None:
        """Drafts that came while the loops ended."""
        self._refuse(self._large.take_all() + self._mailbox.take_all(), SpoolStopped(errno.ESHUTDOWN, "stopped"))

    # The commit loop.

    def _commit_for_ever(self) -> None:
        while True:
            is_last = self._stopping and not self._bodies_loop.is_alive
            entries = self._mailbox.wait(0 if is_last else None)
            if not entries and is_last:
                break
            at = 0
            while at < len(entries):
                end, size = at, 0
                while end < len(entries) and end - at < BATCH_RECORDS and size < BATCH_BYTES:
                    size += entries[end].size
                    end += 1
                batch = [one for one in entries[at:end] if one.ticket.take() or self._is_ours(one)]
                if batch:
                    self._commit(batch, size)
                at = end
        self._close_segment()

    def _is_ours(self, entry: _Entry) -> bool:
        """Whether a ticket that can't be taken is one that this spool took itself; else it was withdrawn."""
        if entry.durability is Durability.MEMORY or entry.content is None:
            return True
        self._forget(entry, OSError(errno.ECANCELED, "the first copy was withdrawn"))
        return False

    def _commit(self, batch: list[_Entry], size: int) -> None:
        """Keep the batch and resolve all its tickets."""
        error = self._keep(batch, size)
        if error is None:
            return
        # What was answered before its sync is promised as long as this process lives: a fresh segment may take it.
        answered = [one for one in batch if one.ticket.is_resolved]
        self._refuse([one for one in batch if not one.ticket.is_resolved], error)
        if answered and self._keep(answered, sum(one.size for one in answered)) is not None:
            ids = ", ".join(one.draft.id for one in answered)
            log.critical("spool %s: lost, though answered before the sync: %s", self.name, ids)
            self._refuse(answered, error)

    def _keep(self, batch: list[_Entry], size: int) -> OSError | None:
        """Append, sync and tell; why not, where that failed. Never raises: the loop must go on."""
        try:
            self._append_and_sync(batch, size)
        except OSError as error:
            return error
        except Exception as error:
            # Whatever this was, the clients must hear it and the segment can't be trusted.
            log.critical("spool %s: commit failed", self.name, exc_info=True)
            self._abandon_segment()
            return OSError(errno.EIO, str(error))
        try:
            self._tell(batch, size)
        except Exception:
            # The batch is promised; nothing that fails from here on takes it back.
            log.critical("spool %s: a batch is kept, but not everybody was told", self.name, exc_info=True)
        return None

    def _append_and_sync(self, batch: list[_Entry], size: int) -> None:
        try:
            if self._descriptor < 0 or self._written >= self._segment_size:
                self._begin_segment()
            self._append(batch)
        except OSError as error:
            log.error("spool %s can't append: %s", self.name, error)
            self._cut_back()
            self._is_full = self._is_full or error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise
        self._resolve(batch, Durability.WRITTEN)
        began = self._clock()
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            log.error("spool %s can't sync: %s; its segment %d is suspect", self.name, error, self.position.number)
            self._abandon_segment()
            raise
        self.figures.note(len(batch), size, self._clock() - began)
        self._publish()

    def _tell(self, batch: list[_Entry], size: int) -> None:
        self._resolve(batch, Durability.SYNCED)
        for one in batch:
            one.draft.close()
        self._unlooked += size
        if self._unlooked >= self._look_after:
            self._look()
        if self.announce is not None:
            self.announce()

    def _append(self, batch: list[_Entry]) -> None:
        pieces: list[bytes] = []
        between = self._mark
        for one in batch:
            pieces.append(between)
            pieces.append(one.lead)
            if one.content is not None:
                pieces.append(one.content)
            between = self._between
        pieces.append(segment.END)
        whole = sum(one.size for one in batch)
        done = self._disk.append(self._descriptor, pieces)
        self._written += done
        while done < whole:  # a signal, or a disk that is filling up: the next write tells which
            rest = memoryview(b"".join(pieces))[done:]
            more = self._disk.append(self._descriptor, [bytes(rest)])
            self._written += more
            done += more

    def _resolve(self, batch: list[_Entry], durability: Durability) -> None:
        tickets = []
        for one in batch:
            if one.durability is durability:
                tickets.append(one.ticket)
            if one.key and self._resends is not None and durability is Durability.SYNCED:
                self._resends.kept(one.key)
        resolve_all(tickets)

    def _refuse(self, batch: list[_Entry], error: OSError) -> None:
        for one in batch:
            self._forget(one, error)
        resolve_all([one.ticket for one in batch], error)

    def _forget(self, entry: _Entry, error: OSError) -> None:
        """The entry is not kept: nothing of it may be left."""
        if entry.key and self._resends is not None:
            self._resends.forget(entry.key, error)
        try:
            if entry.content is None:
                self._disk.remove(self._path_of_body(entry))
            entry.draft.close()
        except OSError as trouble:
            # No record names it, so recovery removes it.
            log.error("spool %s can't remove body %s: %s", self.name, entry.draft.id, trouble)

    # Segments.

    def _begin_segment(self) -> None:
        """Header, sync, name synced: all before the first record."""
        self._close_segment()
        number = self.position.number + 1
        mark = segment.new_mark()
        first = segment.header(mark)
        path = segment_path(self.directory, self.name, number)
        descriptor = self._disk.create(path)
        try:
            if self._disk.append(descriptor, [first]) != len(first):
                raise OSError(errno.ENOSPC, "no room for a segment's header")
            self._disk.sync(descriptor)
            self._disk.sync_directory(self.directory)
        except OSError:
            self._disk.close(descriptor)
            self._disk.remove(path)
            raise
        self._descriptor, self._mark, self._between = descriptor, mark, segment.END + mark
        self._written = len(first)
        self._publish(number)

    def _publish(self, number: int | None = None) -> None:
        """Say how far intake may read: in memory, and beside the segment for an intake in another process."""
        self.position = Position(self.position.number if number is None else number, self._written)
        try:
            self._disk.write_at(self._lock, position_bytes(self.position), 0)
        except OSError as error:
            # Intake then lags until the next one succeeds; nothing is lost.
            log.warning("spool %s can't publish its position: %s", self.name, error)

    def _close_segment(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def _cut_back(self) -> None:
        """A write failed half-way: what it left behind goes; where that fails too, the segment is suspect."""
        if self._descriptor < 0:
            return
        try:
            self._disk.truncate(self._descriptor, self.position.offset)
            self._written = self.position.offset
        except OSError:
            self._abandon_segment()

    def _abandon_segment(self) -> None:
        """Never sync this descriptor again. The name carries how far the segment is good, and it is cut there too."""
        if self._descriptor < 0:
            return
        number, offset = self.position
        path = segment_path(self.directory, self.name, number)
        steps: tuple[Callable[[], None], ...] = (
            lambda: self._disk.rename(path, suspect_path(path, offset)),
            lambda: self._disk.sync_directory(self.directory),
            lambda: self._disk.truncate(self._descriptor, offset),
        )
        for step in steps:
            try:
                step()
            except OSError as error:
                log.error("spool %s, suspect segment %d: %s", self.name, number, error)
        self._close_segment()

    # Large bodies: synced and linked beside the commit loop, so that nobody waits behind a gigabyte.

    def _keep_bodies_for_ever(self) -> None:
        while True:
            entries = self._large.wait(0 if self._stopping else None)
            if not entries and self._stopping:
                return
            for entry in entries:
                if entry.durability is not Durability.MEMORY and not entry.ticket.take():
                    self._forget(entry, OSError(errno.ECANCELED, "the first copy was withdrawn"))
                    continue
                try:
                    self._keep_body(entry)
                except OSError as error:
                    log.error("spool %s can't keep body %s: %s", self.name, entry.draft.id, error)
                    self._refuse([entry], error)
                    continue
                self._unlooked += entry.draft.size
                self._mailbox.put(entry)

    def _keep_body(self, entry: _Entry) -> None:
        """Sync, link, sync the directory, in this order; only then may a record name the file."""
        path = self._path_of_body(entry)
        descriptor = entry.draft.fileno()
        self._disk.sync(descriptor)
        try:
            self._disk.link(descriptor, path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                raise
            self._copy_body(entry.draft, path)  # no /proc, no nameless files here, or the draft is on another disk
        self._disk.sync_directory(self.bodies)

    def _copy_body(self, draft: Draft, path: str) -> None:
        descriptor = self._disk.create(path)
        try:
            for piece in draft.chunks(1 << 20):
                while piece:
                    piece = piece[self._disk.append(descriptor, [piece]) :]
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def _path_of_body(self, entry: _Entry) -> str:
        return body_path(self.directory, self.name, entry.draft.id)

    def _look(self) -> None:
        """Measure the directory and the disk."""
        self._unlooked = 0
        try:
            used = bytes_in(self.directory) + bytes_in(self.bodies)
            free = self._disk.free(self.directory)
        except OSError as error:
            log.error("spool %s can't measure its directory: %s", self.name, error)
            return
        was, self._is_full = self._is_full, used >= self.limit or free < self.free_floor
        if self._is_full != was:
            log.warning(
                "spool %s %s: %d bytes spooled of %d, %d bytes free, floor %d",
                self.name, "is full" if self._is_full else "has room again", used, self.limit, free, self.free_floor,
            )  # fmt: skip
