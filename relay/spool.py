"""The spool: where an accepted message becomes a promise. One per process; one sync serves all who wait.

    A drafted    memory or nameless file            nothing promised; gone
    B appended   in the segment, not known synced   nothing promised; after power loss cut off, after a kill imported
    C promised   synced, the 250 may go out         imported at the next start

Rule 1: a ticket of durability SYNCED is resolved only after the sync of its record, which follows the sync and link
of its body file, which follow the segment's header and name.
Rule 2: what failed is refused; what was answered before its sync and lost that is kept again.
Thread: promise() and has_room() from any; all else in the commit loop.
Not here: files and syncs (segment_writing, spool_bodies), reading segments back and removing them (intake).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from relay import segment
from relay.disk import Disk
from relay.envelope_form import pack
from relay.fresh import Fresh
from relay.resends import Resends
from relay.segment_writing import SegmentWriting
from relay.spool_bodies import keep_body
from relay.spool_figures import Figures
from relay.spool_files import Position, body_path, lock_path
from relay.spool_room import Room
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


class Durability(Enum):
    """When a message counts as kept."""

    SYNCED = "synced"  # survives power loss
    WRITTEN = "written"  # survives the process, not the machine
    MEMORY = "memory"  # survives nothing yet; it is written behind


class SpoolStopped(OSError):
    """The spool takes nothing any more."""


class _Entry(NamedTuple):
    ticket: Ticket
    envelope: Envelope
    packed: bytes
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
        self._disk = disk or Disk()
        self._durability_of = durability_of
        self._resends = resends
        self._clock = clock
        self.figures = Figures()
        self.fresh: Fresh | None = None  # intake's, where it is in this process
        os.makedirs(self.bodies, mode=0o700, exist_ok=True)
        self.name, self._lock = self._take_name()
        # Room comes back segment by segment, so one may not fill the spool.
        self._segment = SegmentWriting(self.directory, self.name, self._lock, min(segment_size, limit // 4), self._disk)
        self._room = Room(self.directory, self.name, limit, free_floor, self._disk, clock)
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

    def change(self, limit: int, free_floor: int, durability_of: Callable[[Envelope], Durability]) -> None:
        """Other limits and levels, from the next message on; segments stay as long as they were. Thread: any."""
        self._room.change(limit, free_floor)
        self._durability_of = durability_of

    # What the server calls.

    @property
    def position(self) -> Position:
        """How far it is synced."""
        return self._segment.position

    def has_room(self) -> Reply | None:
        """None, or the 452 4.3.1 for MAIL."""
        return self._room.refusal()

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
        packed = pack(envelope)
        lead = segment.lead(draft.id, packed, draft.trace, draft.size, content, key or segment.NO_KEY)
        if segment.is_too_long(lead, content):
            draft.close()
            why = f"an envelope of {len(envelope.recipients)} recipients is too long; send several messages"
            ticket.resolve(OSError(errno.EMSGSIZE, why))
            return ticket
        durability = self._durability_of(envelope)
        if self._resends is not None and key and self._resends.is_known(key, draft.id, ticket):
            log.info("m-%s: sent again, and not kept: it is m-%s", draft.id, ticket.value or "one that is being kept")
            draft.close()
            return ticket
        size = segment.record_size(lead, content)
        entry = _Entry(ticket, envelope, packed, lead, content, draft, size, durability, key)
        if self._stopping:
            self._refuse([entry], SpoolStopped(errno.ESHUTDOWN, "the spool is stopped"))
            return ticket
        if durability is not Durability.SYNCED:
            ticket.value = f"{draft.id} ({durability.value})"
        if durability is Durability.MEMORY:
            ticket.take()
            self.figures.promised[durability.value] += 1
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
        for descriptor in (self._lock, self._segment.abandon()):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = -1

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
            for batch, size in self._batches(entries):
                self._commit(batch, size)
        self._segment.close()

    def _batches(self, entries: list[_Entry]) -> Iterator[tuple[list[_Entry], int]]:
        """What nobody withdrew, in pieces of which each is one write and one sync, with their bytes."""
        batch: list[_Entry] = []
        size = 0
        for one in entries:
            if not (one.ticket.take() or self._is_ours(one)):
                continue
            batch.append(one)
            size += one.size
            if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield batch, size
                batch, size = [], 0
        if batch:
            yield batch, size

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
            self._segment.give_up()
            return OSError(errno.EIO, str(error))
        try:
            self._tell(batch, size)
        except Exception:
            # The batch is promised; nothing that fails from here on takes it back.
            log.critical("spool %s: a batch is kept, but not everybody was told", self.name, exc_info=True)
        return None

    def _append_and_sync(self, batch: list[_Entry], size: int) -> None:
        try:
            start = self._segment.append([(one.lead, one.content or b"") for one in batch], size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._room.ran_out()
            raise
        self._resolve(batch, Durability.WRITTEN)
        began = self._clock()
        self._segment.sync()
        self.figures.note(len(batch), size, self._clock() - began)
        if self.fresh is not None:
            self.fresh.put(self.position.number, _records(batch, start))

    def _resolve(self, batch: list[_Entry], level: Durability) -> None:
        tickets = [one.ticket for one in batch if one.durability is level and not one.ticket.is_resolved]
        if tickets:
            self.figures.promised[level.value] += len(tickets)
            resolve_all(tickets)

    def _tell(self, batch: list[_Entry], size: int) -> None:
        if self._resends is not None:
            for one in batch:
                if one.key:
                    self._resends.kept(one.key)
        self._resolve(batch, Durability.SYNCED)
        for one in batch:
            one.draft.close()
        self._room.took(size)
        if self.announce is not None:
            self.announce()

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
                    keep_body(entry.draft, self._path_of_body(entry), self._disk)
                except OSError as error:
                    log.error("spool %s can't keep body %s: %s", self.name, entry.draft.id, error)
                    self._refuse([entry], error)
                    continue
                except Exception as error:  # whatever this was, the client hears it, and the next body has its turn
                    log.critical("spool %s: keeping body %s failed", self.name, entry.draft.id, exc_info=True)
                    self._refuse([entry], OSError(errno.EIO, str(error)))
                    continue
                self._room.took(entry.draft.size)
                self._mailbox.put(entry)

    def _path_of_body(self, entry: _Entry) -> str:
        return body_path(self.directory, self.name, entry.draft.id)


def _records(batch: list[_Entry], at: int) -> list[segment.Record]:
    """The batch as it lies in its segment from offset `at` on."""
    records = []
    for one in batch:
        draft, end = one.draft, at + one.size
        key = one.key or segment.NO_KEY
        records.append(
            segment.Record(draft.id, one.packed, draft.trace, draft.size, one.content, key, at, end, one.envelope)
        )
        at = end
    return records
