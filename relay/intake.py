"""Intake: from the spool's segments into the queue, and away with what is imported.

It alone reads and removes segments. Of a live segment it reads up to the published synced offset; a segment whose
spool's lock is free is an orphan, read to its end. How far a segment is imported is stored with the messages, in the
same transaction, so nothing is imported twice or left out whenever the process dies.
What can't be read is moved to aside/ and named in the log; nothing unread is deleted.
Thread: import_all() and run from one thread; announce(), look_around() and stop() from any.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence

from relay import segment
from relay.backlog import Backlog
from relay.bell import Bell
from relay.disk import Disk
from relay.envelope_form import unpack
from relay.fresh import Fresh
from relay.mail import Body, Message, Stop
from relay.other_disk import move
from relay.queue import Queue
from relay.queue_database import TROUBLE
from relay.resends import Resends
from relay.segment_reading import Reading
from relay.spool import Spool
from relay.spool_files import Found, Position, body_path, found_in, lock_path, position_of
from smtpd_core.threads import Loop, Mailbox, start_loop
from smtpd_core.wire.envelope import Envelope

log = logging.getLogger(__name__)

# One transaction of the queue: enough that its sync is shared by many, little enough that nobody waits long for it.
BATCH_RECORDS = 500
BATCH_BYTES = 4 << 20

# Imports follow each other at this distance at least, and further apart the more there is to import. The messages are
# safe where they are, larger batches cost less, and the processor is better spent on those who wait for their 250.
PAUSE = 0.05
PAUSE_EACH = 0.0005
LONGEST_PAUSE = 1.0

# After the queue failed (disk full, locked) it is tried again so often.
TRY_AGAIN = 2.0

# With receivers in other processes: how often to look for segments that nobody announces (their process died).
LOOK_AROUND = 5.0

# The destination of a recipient for whom routing raised.
UNROUTABLE = "unroutable:"


class Intake:
    """Imports from `directory` into `queue`; `stops_for(envelope)` says where its recipients go (Routes.stops).

    `spool` is the one of this process, if there is one. `imported` is called after every batch (the dispatcher's
    wake-up). `alone` says that no other process spools into this directory. `resends` is told of the messages that
    other spools, dead ones above all, had promised. `clock` gives Unix time.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        queue: Queue,
        stops_for: Callable[[Envelope], Sequence[Stop]],
        *,
        spool: Spool | None = None,
        aside: str | os.PathLike[str] | None = None,
        imported: Callable[[], None] | None = None,
        alone: bool = True,
        resends: Resends | None = None,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.time,
        pause: float = PAUSE,
    ) -> None:
        self.directory = os.fspath(directory)
        self.aside = os.fspath(aside) if aside is not None else os.path.join(os.path.dirname(self.directory), "aside")
        self._queue, self._stops_for = queue, stops_for
        self._spool, self._imported, self._alone = spool, imported, alone
        if spool is not None:
            spool.fresh = Fresh()
        self._disk, self._clock, self._pause = disk or Disk(), clock, pause
        self._offsets: dict[str, int] = {}
        self._damaged: set[str] = set()
        self._resends = resends
        self._bell: Bell | None = None
        self._bell_loop: Loop | None = None
        self._current: Reading | None = None
        self._news: Mailbox[None] = Mailbox()
        self._stop: Mailbox[None] = Mailbox()
        self._stopping = False
        self._looks_around = False
        self._count = 0  # messages of the last import
        self._backlog: Backlog | None = None
        self._trouble = ""  # why the last one failed
        self._loop: Loop | None = None
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    # Its life.

    def announce(self) -> None:
        """There may be something new."""
        self._news.poke()

    def look_around(self) -> None:
        """Somebody else may have put a segment here."""
        self._looks_around = True
        self._news.poke()

    def start(self) -> None:
        if not self._alone and hasattr(os, "mkfifo"):
            self._bell = Bell(self.directory)
            self._bell.listen()
            self._bell_loop = start_loop("intake-bell", self._hear)
        self._loop = start_loop("intake", self._run)

    def stop(self, timeout: float | None = None) -> bool:
        """Import what is there and end. True where that was done in time. Idempotent."""
        self._stopping = True
        self._stop.poke()
        self._news.poke()
        if self._bell is not None and self._bell_loop is not None:
            self._bell.ring_self()
            if self._bell_loop.join(timeout):
                self._bell.close()
                self._bell = None
        return self._loop is None or self._loop.join(timeout)

    def _hear(self) -> None:
        assert self._bell is not None
        while not self._stopping:
            self._bell.hear()
            self._news.poke()

    def _run(self) -> None:
        self._backlog = Backlog(self.directory)
        self._try(self.import_all)
        self._backlog.over()
        while not self._stopping:
            self._news.wait(None if self._alone else LOOK_AROUND)
            if self._stopping:
                break
            if not self._try(self.import_new):
                self._stop.wait(TRY_AGAIN)
                self.look_around()  # for what could not be read
            elif self._pause:
                self._stop.wait(min(self._pause + PAUSE_EACH * self._count, LONGEST_PAUSE))
        self._try(self.import_all)
        self._forget_current()

    def _try(self, work: Callable[[], int]) -> bool:
        try:
            self._count = work()
        except Exception as error:
            # The spool keeps everything until the queue works again; MAIL is refused once it is full.
            if str(error) != self._trouble:
                self._trouble = str(error)
                is_unforeseen = not isinstance(error, TROUBLE)
                log.error("intake to %s failed, nothing is lost: %s", self.directory, error, exc_info=is_unforeseen)
            return False
        if self._trouble:
            self._trouble = ""
            log.info("intake to %s goes on", self.directory)
        return True

    # What to import.

    def import_new(self) -> int:
        """What this process's spool synced since the last time; everything where another segment has begun."""
        reading = self._current
        if not self._alone or self._spool is None or reading is None or self._looks_around:
            self._looks_around = False
            return self.import_all()
        position = self._spool.position  # once: an offset belongs to its own segment only
        if reading.found.number != position.number:
            return self.import_all()
        return self._import(reading, position.offset)

    def import_all(self) -> int:
        """Everything that is promised in the directory. How many messages were imported; raises what the queue
        raises."""
        count = 0
        trouble: OSError | None = None
        # The position is read before the directory: a segment that begins in between waits for the next time.
        position = self._spool.position if self._spool is not None else None
        for name, several in found_in(self.directory).items():
            try:
                count += self._import_spool(name, several, position)
            except OSError as error:
                # One spool that can't be read must not hold up the others; it is tried again with them.
                log.error("intake: spool %s: %s", name, error)
                trouble = error
        if trouble is not None:
            raise trouble
        return count

    def _import_spool(self, name: str, several: list[Found], position: Position | None) -> int:
        if self._spool is not None and name == self._spool.name and not self._spool.is_stopped:
            return self._import_live(several, position)
        path = lock_path(self.directory, name)
        lock = self._disk.lock(path)
        if lock is None:
            return self._import_live(several, self._published(path))
        try:
            count = self._import_orphans(name, several)
            self._disk.remove(path)
        finally:
            self._disk.close(lock)
        return count

    def _published(self, path: str) -> Position | None:
        with open(path, "rb") as file:
            return position_of(file.read(64))

    def _import_live(self, several: list[Found], position: Position | None) -> int:
        """Segments of a spool at work, up to what it says is synced."""
        count = 0
        for found in several:
            if position is None or found.number > position.number:
                break
            if found.number < position.number:
                count += self._import_whole(found)
                continue
            reading = self._reading_of_live(found)
            if reading is None:
                break  # its header is not written yet
            try:
                count += self._import(reading, position.offset if found.upto is None else found.upto)
            finally:
                if reading is not self._current:
                    reading.close()
        return count

    def _reading_of_live(self, found: Found) -> Reading | None:
        """Our own spool's last segment stays open; its file is the same after it became suspect."""
        if self._current is not None and self._current.found.key == found.key:
            return self._current
        reading = Reading.of(found)
        if reading is not None and self._spool is not None and found.name == self._spool.name and found.upto is None:
            self._forget_current()
            self._current = reading
        return reading

    def _import_orphans(self, name: str, several: list[Found]) -> int:
        count = sum(self._import_whole(found, is_promised=found is not several[-1]) for found in several)
        # Bodies that were linked, but whose record was never synced: nobody was promised anything.
        prefix = f"{name}-"
        bodies = os.path.join(self.directory, "bodies")
        for file in os.listdir(bodies) if os.path.isdir(bodies) else ():
            if file.startswith(prefix):
                log.info("intake removes body %s, which no record names", file)
                self._disk.remove(os.path.join(bodies, file))
        return count

    def _import_whole(self, found: Found, *, is_promised: bool = True) -> int:
        """A complete segment: import the rest of it, then away with it. `is_promised`: another one was begun after it,
        so all of it was synced."""
        if self._current is not None and self._current.found.key == found.key:
            self._forget_current()
        reading = Reading.of(found)
        if reading is None:
            self._set_segment_aside(found, "it has no readable header and no record")
            return 0
        try:
            stop = reading.size if found.upto is None else min(found.upto, reading.size)
            count = self._import(reading, stop, is_promised=is_promised or found.upto is not None)
        finally:
            reading.close()
        if found.key in self._damaged:
            self._set_segment_aside(found, "it is damaged; its good records are in the queue")
        else:
            self._disk.remove(found.path)
        self._queue.forget_source(found.key)
        self._offsets.pop(found.key, None)
        return count

    # Importing.

    def _forget_current(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _import(self, reading: Reading, stop: int, *, is_promised: bool = True) -> int:
        """Records up to `stop` that are not in the queue yet, in batches. Where all of them were promised, an end that
        can't be read is damage."""
        key = reading.found.key
        start = self._offsets.get(key)
        if start is None:
            start = self._queue.offset(key) or segment.HEADER_SIZE
            self._look_back(reading, start)
        count = 0
        for batch, end in self._batches(reading, start, stop, is_promised):
            messages = [one for record in batch if (one := self._message(reading, record)) is not None]
            if messages or end < stop:
                self._queue.add(messages, key, end, self._clock())
                count += len(messages)
                if self._backlog is not None:
                    self._backlog.imported(len(messages))
            self._offsets[key] = end
            for message, _ in messages:
                if message.body.path:
                    self._disk.remove(message.body.path)
            if messages and self._imported is not None:
                self._imported()
        return count

    def _look_back(self, reading: Reading, upto: int) -> None:
        """What an earlier intake imported of it: where it found damage, the segment is still to be kept."""
        if any(isinstance(one, segment.Damage) for one in reading.scan(segment.HEADER_SIZE, upto)):
            self._damaged.add(reading.found.key)

    def _batches(
        self, reading: Reading, start: int, stop: int, is_promised: bool
    ) -> Iterator[tuple[list[segment.Record], int]]:
        batch: list[segment.Record] = []
        size = 0
        end = start
        for one in self._records(reading, start, stop):
            end = one.end
            if isinstance(one, segment.Damage):
                self._note_damage(reading, one, is_promised)
                continue
            batch.append(one)
            size += one.end - one.start
            if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield batch, end
                batch, size = [], 0
        if batch or end > start:
            yield batch, end

    def _records(self, reading: Reading, start: int, stop: int) -> Iterator[segment.Record | segment.Damage]:
        """From memory where this process's spool still has them, what lies before and behind from the file."""
        found = reading.found
        fresh: list[segment.Record] = []
        if self._spool is not None and self._spool.fresh is not None and found.name == self._spool.name:
            fresh = [one for one in self._spool.fresh.take(found.number) if one.start >= start]
        if fresh:
            yield from reading.scan(start, fresh[0].start)
            yield from fresh
            start = fresh[-1].end
        yield from reading.scan(start, stop)

    def _message(self, reading: Reading, record: segment.Record) -> tuple[Message, Sequence[Stop]] | None:
        """The record as a message with its stops; None where it had to be set aside."""
        path = ""
        if record.content is None:
            path = body_path(self.directory, reading.found.name, record.id)
            if not os.path.exists(path):
                self._set_record_aside(reading, record, f"its body {path} is missing")
                return None
        envelope = record.unpacked
        if envelope is None:
            try:
                envelope = unpack(record.envelope)
            except ValueError as error:
                self._set_record_aside(reading, record, str(error))
                return None
        key = ""
        if record.resend_key != segment.NO_KEY:
            key = record.resend_key.hex()
            if self._resends is not None and (self._spool is None or reading.found.name != self._spool.name):
                self._resends.remember([(record.resend_key, record.id, envelope.arrived)])
        body = Body(record.size, record.content, path)
        message = Message(
            record.id, envelope, record.trace, body, key, record.envelope, record.is_held, record.was_tried
        )
        return message, self._stops(record.id, envelope)

    def _stops(self, id: str, envelope: Envelope) -> Sequence[Stop]:
        try:
            return self._stops_for(envelope)
        except Exception:
            # One address that the routing chokes on must not hold up everybody's mail.
            log.exception("intake: no route for the recipients of %s; they wait as %s", id, UNROUTABLE)
            return [Stop(number, one, UNROUTABLE) for number, one in enumerate(envelope.recipients)]

    # What can't be read.

    def _note_damage(self, reading: Reading, damage: segment.Damage, is_promised: bool) -> None:
        found = reading.found
        if is_promised or not damage.is_tail:
            self._damaged.add(found.key)
            log.error(
                "intake: bytes %d to %d of %s are damaged (%s); what is good behind them is imported",
                damage.start, damage.end, found.path, damage.why,
            )  # fmt: skip
            return
        path = self._aside_path(f"{found.key}.tail-{damage.start}")
        with open(path, "wb") as file:
            at = damage.start
            while piece := reading.pread(min(1 << 20, damage.end - at), at):
                file.write(piece)
                at += len(piece)
        log.warning(
            "intake: %s ends with %d bytes that were never promised (%s); they are cut off and kept as %s",
            found.path, damage.end - damage.start, damage.why, path,
        )  # fmt: skip

    def _set_record_aside(self, reading: Reading, record: segment.Record, why: str) -> None:
        path = self._aside_path(f"{reading.found.key}.record-{record.start}")
        with open(path, "wb") as file:
            file.write(reading.pread(record.end - record.start, record.start))
            file.flush()
            self._disk.sync(file.fileno())
        # It was promised, and its segment will be removed.
        self._disk.sync_directory(self.aside)
        log.error("intake: message %s can't be imported: %s; its record is kept as %s", record.id, why, path)

    def _set_segment_aside(self, found: Found, why: str) -> None:
        if os.path.getsize(found.path) <= segment.HEADER_SIZE:
            self._disk.remove(found.path)  # its process died while it began it
            return
        path = self._aside_path(os.path.basename(found.path))
        move(self._disk, found.path, path)
        self._disk.sync_directory(self.aside)
        self._damaged.discard(found.key)
        log.error("intake: segment %s is kept as %s: %s", found.path, path, why)

    def _aside_path(self, name: str) -> str:
        os.makedirs(self.aside, mode=0o700, exist_ok=True)
        return os.path.join(self.aside, name)
