"""The durable queue of one node: a SQLite file in WAL mode, one writing connection, one sync for all who wait.

Rule 1: whoever holds the writing lock carries out the changes of all who wait, in one transaction; so concurrent
settles share a sync without a thread of their own.
Rule 2: a change that ends something (add, settle, an operator's order) is synced; a claim is not: what it could lose is
only that it happened, and Parcel.attempt is above 1 for all that was in the queue before this run.
Rule 3: rows refer to body files; the link is synced before the row, the row goes before the file.
Thread: any. Another process may only read (queue_reader); the lock file beside the database sees to that.
Not here: SQL (statements), looking and listing (queue_reader).
"""

from __future__ import annotations

import ctypes
import io
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Generic, TypeVar

from relay import statements as sql
from relay import timing
from relay.disk import Disk
from relay.envelope_form import pack, unpack
from relay.mail import Message, Outcome, Parcel, Recipient, Result, Settlement, Stop
from relay.queue import QueueIsHeld, QueueUnreadable
from smtpd_core.threads import Lock
from smtpd_core.wire.envelope import Envelope

log = logging.getLogger(__name__)

T = TypeVar("T")

_STATE_OF = {
    Result.DELIVERED: sql.DELIVERED,
    Result.RELAYED: sql.RELAYED,
    Result.FAILED: sql.FAILED,
    Result.EXPIRED: sql.EXPIRED,
}

# A message claimed in one go has this many recipients at most on average; else PICK is asked again for more.
_RECIPIENTS_PER_MESSAGE = 4

# Second copies of a message are recognised for this long after the first, across restarts.
RESEND_WINDOW = 600.0


class _Order(Generic[T]):
    """One change on its way into a transaction."""

    __slots__ = ("error", "is_done", "is_durable", "job", "value")

    def __init__(self, job: Callable[[sqlite3.Connection], T], is_durable: bool) -> None:
        self.job = job
        self.is_durable = is_durable
        self.is_done = False
        self.value: T | None = None
        self.error: Exception | None = None


class SqliteQueue:
    """The queue in the file `path`; bodies over 256 KiB are files in `bodies` beside it.

    Raises QueueIsHeld where another process has it, QueueUnreadable where the file is damaged or none of ours.
    """

    def __init__(self, path: str | os.PathLike[str], *, disk: Disk | None = None) -> None:
        self.path = os.fspath(path)
        folder = os.path.dirname(os.path.abspath(self.path))
        self.bodies = os.path.join(folder, "bodies")
        self._disk = disk or Disk()
        os.makedirs(self.bodies, mode=0o700, exist_ok=True)
        lock = self._disk.lock(os.path.join(folder, "queue.lock"))
        if lock is None:
            raise QueueIsHeld(f"the queue {self.path} is held by another process")
        self._lock = lock
        self._gate = Lock()
        self._writing = Lock()
        self._waiting: list[_Order[Any]] = []
        self._lanes: dict[tuple[str, int], int] = {}
        self._dirty: set[int] = set()
        self._unlink: list[str] = []
        self._is_full_sync = True
        try:
            self._db = self._open()
            facts = os.stat(self.path)
            self._file = (facts.st_dev, facts.st_ino) if os.name == "posix" else ()
            # Couriers open bodies and the dispatcher looks around while a commit syncs; WAL lets them.
            self._reading = Lock()
            self._reader = self._open_reader()
            self._seq = self._first_seq = (self._db.execute(sql.LAST_SEQ).fetchone()[0] or 0) + 1
            # Tokens of an earlier run never fit one of this run.
            self._lease: int = self._db.execute(sql.NEW_RUN).fetchone()[0] << 32
            for lane in {lane for (lane,) in self._db.execute(sql.ABANDONED).fetchall()}:
                self._db.execute(sql.LANE_DUE, (lane,))
            self._db.execute(sql.UNUSED_LANES)
            self._remove_strays()
        except sqlite3.Error as error:
            self._disk.close(lock)
            raise QueueUnreadable(f"the queue {self.path} can't be opened: {error}") from error
        except BaseException:
            self._disk.close(lock)
            raise

    def _open(self) -> sqlite3.Connection:
        fresh = not os.path.exists(self.path)
        if fresh:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
        for pragma in sql.PRAGMAS:
            db.execute(pragma)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._set_bodies_aside()
        if version > sql.VERSION:
            db.close()
            raise sqlite3.DatabaseError(
                f"{self.path} has schema version {version}; this program knows versions up to {sql.VERSION}"
            )
        for number in range(version, sql.VERSION):
            db.executescript(f"BEGIN IMMEDIATE; {sql.MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT;")
        if fresh:
            self._disk.sync_directory(os.path.dirname(os.path.abspath(self.path)))
        return db

    def _open_reader(self) -> sqlite3.Connection:
        reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        reader.execute("PRAGMA query_only = ON")
        # Only the writer checkpoints.
        reader.execute("PRAGMA wal_autocheckpoint = 0")
        return reader

    # Transactions.

    def change(self, job: Callable[[sqlite3.Connection], T], *, is_durable: bool = True) -> T:
        """Carry out `job` in a transaction, perhaps together with others'. Raises what it raised, or the commit's
        sqlite3.Error; then nothing of it happened."""
        order: _Order[T] = _Order(job, is_durable)
        with self._gate:
            self._waiting.append(order)
        with self._writing:
            if not order.is_done:
                with self._gate:
                    orders, self._waiting = self._waiting, []
                self._carry_out(orders)
                self._remove_files()
        if order.error is not None:
            raise order.error
        return order.value  # type: ignore[return-value]

    def _carry_out(self, orders: list[_Order[Any]]) -> None:
        db = self._db
        try:
            self._sync_fully(any(one.is_durable for one in orders))
            if db.in_transaction:  # a rollback that failed: nothing of it may be committed with this
                db.execute("ROLLBACK")
            self._look_for_the_file()
            db.execute("BEGIN IMMEDIATE")
            for one in orders:
                self._carry_out_one(db, one, len(orders) > 1)
            for lane in self._dirty:
                db.execute(sql.LANE_DUE, (lane,))
            db.execute("COMMIT")
        except Exception as error:
            # First of all everybody's error: whoever finds none takes the change for made.
            for one in orders:
                one.error = one.error or error
            self._lanes.clear()
            self._unlink.clear()
            self._roll_back(db)
        finally:
            self._dirty.clear()
            for one in orders:
                one.is_done = True

    def _look_for_the_file(self) -> None:
        """Where somebody removed or replaced the file under us, all that is written would be gone with our handle."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            found = None
        if found is None or (self._file and (found.st_dev, found.st_ino) != self._file):
            raise OSError(f"the queue {self.path} was removed or replaced while it is in use; restart the server")

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.error("queue %s can't roll back: %s", self.path, error)

    def _carry_out_one(self, db: sqlite3.Connection, order: _Order[Any], has_company: bool) -> None:
        """Alone, an error ends the transaction; in company only this order's part is undone."""
        if not has_company:
            order.value = order.job(db)
            return
        db.execute("SAVEPOINT one")
        unlink = len(self._unlink)
        try:
            order.value = order.job(db)
        except Exception as error:
            db.execute("ROLLBACK TO one")
            self._lanes.clear()
            del self._unlink[unlink:]
            order.error = error
        db.execute("RELEASE one")

    def _sync_fully(self, wanted: bool) -> None:
        if wanted is not self._is_full_sync:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._is_full_sync = wanted

    def _remove_files(self) -> None:
        """The change is made; what can't be removed is a stray that the next start removes."""
        paths, self._unlink = self._unlink, []
        for path in paths:
            try:
                self._disk.remove(path)
            except OSError as error:
                log.error("queue %s can't remove body %s: %s", self.path, path, error)

    # Adding.

    def add(self, batch: Sequence[tuple[Message, Sequence[Stop]]], source: str, offset: int, now: float) -> None:
        self._adopt_bodies([message for message, _ in batch])

        def job(db: sqlite3.Connection) -> None:
            self._insert(db, batch, now)
            db.execute(sql.SET_SOURCE, (source, offset))

        self.change(job)

    def _adopt_bodies(self, messages: Sequence[Message]) -> None:
        """Link body files into our room, and sync the names, before a row refers to them."""
        linked = False
        for message in messages:
            if message.body.path:
                path = self._path_of_body(message.id)
                try:
                    self._disk.link(message.body.path, path)
                except FileExistsError:
                    pass  # a crash came between the link and the row
                linked = True
        if linked:
            self._disk.sync_directory(self.bodies)

    def _insert(self, db: sqlite3.Connection, batch: Sequence[tuple[Message, Sequence[Stop]]], now: float) -> None:
        """Rows for messages that are not known yet; lanes' next_due is lowered to fit."""
        known = {row[0] for row in db.execute(sql.KNOWN_IDS, (json.dumps([one.id for one, _ in batch]),))}
        messages: list[tuple[Any, ...]] = []
        recipients: list[tuple[Any, ...]] = []
        due: dict[int, float] = {}
        resends = []
        for message, stops in batch:
            if message.id in known or not stops:
                continue
            known.add(message.id)
            envelope = message.envelope
            seq, self._seq = self._seq, self._seq + 1
            body = message.body
            messages.append(
                (
                    seq, message.id, _text(envelope.sender), envelope.arrived, body.size, timing.deadline(envelope),
                    len(stops), 1 if body.path else 0, pack(envelope), message.trace, body.content,
                )
            )  # fmt: skip
            rank = timing.rank(envelope)
            when = timing.first_attempt(envelope, now)
            for stop in stops:
                lane = self._lanes.get((stop.destination, rank)) or self._lane(db, stop.destination, rank)
                if when < due.get(lane, timing.NEVER):
                    due[lane] = when
                recipients.append(
                    (seq, stop.number, _text(stop.recipient.address), _dsn(stop, envelope), lane, 0, when, 0, 0, 0)
                )
            if message.resend_key:
                resends.append((bytes.fromhex(message.resend_key), message.id, now))
        _insert_rows(db, sql.insert_messages, messages)
        _insert_rows(db, sql.insert_recipients, recipients)
        db.executemany(sql.LANE_DUE_BY, [(when, lane) for lane, when in due.items()])
        if resends:
            db.executemany(sql.ADD_RESEND, resends)
            db.execute(sql.PRUNE_RESENDS, (now - RESEND_WINDOW,))

    def _lane(self, db: sqlite3.Connection, destination: str, rank: int) -> int:
        row = db.execute(sql.LANE, (destination, rank)).fetchone()
        if row is None:
            row = db.execute(sql.ADD_LANE, (destination, rank)).fetchone()
        if len(self._lanes) > 10_000:
            self._lanes.clear()
        self._lanes[destination, rank] = row[0]
        return int(row[0])

    def offset(self, source: str) -> int:
        with self._reading:
            row = self._reader.execute(sql.SOURCE, (source,)).fetchone()
        return row[0] if row else 0

    def forget_source(self, source: str) -> None:
        self.change(lambda db: db.execute(sql.FORGET_SOURCE, (source,)), is_durable=False)

    # Claiming.

    def due(self, now: float, limit: int = 1000) -> list[tuple[str, int]]:
        with self._reading:
            return [
                (destination, self._reader.execute(sql.DUE_COUNT, (destination, now)).fetchone()[0])
                for destination, _ in self._reader.execute(sql.DUE, (now, limit)).fetchall()
            ]

    def next_due(self) -> float | None:
        with self._reading:
            found: float | None = self._reader.execute(sql.NEXT_DUE).fetchone()[0]
        return found

    def claim(self, destination: str, room: int, now: float, lease: float) -> list[Parcel]:
        def job(db: sqlite3.Connection) -> list[Parcel]:
            parcels: list[Parcel] = []
            for (lane,) in db.execute(sql.LANES_OF, (destination, now)).fetchall():
                if len(parcels) >= room:
                    break
                parcels += self._claim_from(db, lane, destination, room - len(parcels), now, lease)
            return parcels

        return self.change(job, is_durable=False)

    def _claim_from(
        self, db: sqlite3.Connection, lane: int, destination: str, room: int, now: float, lease: float
    ) -> list[Parcel]:
        picked = _pick(db, lane, now, room)
        self._dirty.add(lane)
        if not picked:
            return []
        self._lease += 1
        chosen = json.dumps(picked)
        stops: dict[int, list[tuple[int, str, str, int, int]]] = {}
        for seq, *stop in db.execute(sql.CLAIM, (now + lease, self._lease, chosen, lane, now)).fetchall():
            stops.setdefault(seq, []).append(tuple(stop))
        rows = {row[0]: row for row in db.execute(sql.CLAIMED, (chosen,)).fetchall()}
        parcels = []
        for seq in picked:
            if seq not in stops:
                continue
            try:
                parcels.append(self._parcel(rows[seq], stops[seq], destination))
            except (ValueError, KeyError) as error:
                # One row that can't be read must not stop the others; `queue check` sets it aside.
                log.error("queue: message number %d can't be read and is held: %s", seq, error)
                db.execute(sql.HOLD, (seq,)).fetchall()
        return parcels

    def _parcel(
        self, row: tuple[int, str, int, bytes, bytes], claimed: list[tuple[int, str, str, int, int]], destination: str
    ) -> Parcel:
        seq, id, size, packed, trace = row
        envelope = unpack(packed)
        claimed.sort()
        stops = tuple(
            Stop(number, _recipient(envelope, number, address, dsn), destination, attempts)
            for number, address, dsn, attempts, _ in claimed
        )
        claims = max(one[4] for one in claimed)
        # What an earlier run claimed and could not sync is unknown: look before you write.
        attempt = claims if seq >= self._first_seq else max(claims, 2)
        return Parcel(id, envelope, trace, size, destination, stops, self._lease, attempt)

    # Settling.

    def settle(
        self,
        parcel: Parcel,
        outcomes: Sequence[Outcome],
        new_mail: Sequence[tuple[Message, Sequence[Stop]]],
        now: float,
    ) -> bool:
        new = tuple((message, tuple(stops)) for message, stops in new_mail)
        return self.settle_all([Settlement(parcel, tuple(outcomes), new)], now)[0]

    def settle_all(self, settlements: Sequence[Settlement], now: float) -> list[bool]:
        self._adopt_bodies([message for one in settlements for message, _ in one.new_mail])
        return self.change(lambda db: [self._settle(db, one, now) for one in settlements])

    def _settle(self, db: sqlite3.Connection, settlement: Settlement, now: float) -> bool:
        parcel, outcomes, new_mail = settlement.parcel, settlement.outcomes, settlement.new_mail
        row = db.execute(sql.MESSAGE, (parcel.message_id,)).fetchone()
        if row is None:
            return False
        seq, still_open, _, deadline = row
        leased = {number: lane for number, lane, _ in db.execute(sql.LEASED, (seq, parcel.lease))}
        if not leased or any(one.number not in leased for one in outcomes):
            return False
        if new_mail:
            self._insert(db, new_mail, now)
        self._dirty.update(leased.values())
        finals = sum(one.result.is_final for one in outcomes)
        if finals >= still_open:
            self._drop(db, seq, parcel.message_id, bool(row[2]))
            return True
        for one in outcomes:
            if one.result.is_final:
                db.execute(sql.SETTLE, (_STATE_OF[one.result], one.at, seq, one.number))
            else:
                until = timing.put_off(one.next_attempt, deadline, now)
                db.execute(sql.DEFER, (until, seq, one.number))
        db.executemany(sql.ADD_ATTEMPT, [_attempt_row(seq, one, now) for one in outcomes])
        if finals:
            db.execute(sql.FEWER_OPEN, (finals, seq))
        return True

    def _drop(self, db: sqlite3.Connection, seq: int, id: str, has_file: bool) -> None:
        for statement in sql.DROP:
            db.execute(statement, (seq,))
        if has_file:
            self._unlink.append(self._path_of_body(id))

    def last_tried(self, message_id: str, number: int) -> float:
        with self._reading:
            found: float | None = self._reader.execute(sql.LAST_TRIED, (message_id, number)).fetchone()[0]
        return found or 0.0

    def extend(self, parcel: Parcel, now: float, lease: float) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            row = db.execute(sql.MESSAGE, (parcel.message_id,)).fetchone()
            lanes = db.execute(sql.EXTEND, (now + lease, row[0], parcel.lease)).fetchall() if row else []
            self._dirty.update(lane for (lane,) in lanes)
            return bool(lanes)

        return self.change(job, is_durable=False)

    def release(self, parcel: Parcel, now: float) -> None:
        def job(db: sqlite3.Connection) -> None:
            row = db.execute(sql.MESSAGE, (parcel.message_id,)).fetchone()
            if row is not None:
                self._dirty.update(lane for _, lane, _ in db.execute(sql.LEASED, (row[0], parcel.lease)))
                db.execute(sql.UNTRIED, (now, row[0], parcel.lease))

        self.change(job, is_durable=False)

    # Bodies.

    def open_body(self, message_id: str) -> BinaryIO:
        with self._reading:
            row = self._reader.execute(sql.BODY, (message_id,)).fetchone()
        if row is None:
            raise KeyError(message_id)
        if row[0]:
            return open(self._path_of_body(message_id), "rb")
        return io.BytesIO(row[1])

    def _path_of_body(self, id: str) -> str:
        return os.path.join(self.bodies, id)

    def _set_bodies_aside(self) -> None:
        """A new database beside old bodies: the one that named them is lost, and they may be all that is left."""
        files = os.listdir(self.bodies)
        if not files:
            return
        aside = os.path.join(os.path.dirname(os.path.abspath(self.path)), "aside")
        os.makedirs(aside, mode=0o700, exist_ok=True)
        for file in files:
            self._disk.rename(self._path_of_body(file), os.path.join(aside, f"queue-{file}.body"))
        self._disk.sync_directory(aside)
        log.error("queue %s is new, and no message names %d bodies: they are kept in %s", self.path, len(files), aside)

    def _remove_strays(self) -> None:
        """Body files without a row: linked before a crash took the row, or left when one came after the row went. Where
        the message is still spooled, the spool has a link of its own."""
        files = set(os.listdir(self.bodies))
        if files:
            files.difference_update(row[0] for row in self._db.execute(sql.IDS_OF_FILES))
        for file in files:
            self._disk.remove(self._path_of_body(file))

    # Operators' orders. Each says for how many messages it did something.

    def set_aside(self, ids: Sequence[str]) -> int:
        """Messages that can't be delivered as they are leave the queue for aside/, whatever of them can be read."""
        aside = os.path.join(os.path.dirname(os.path.abspath(self.path)), "aside")
        os.makedirs(aside, mode=0o700, exist_ok=True)

        def job(db: sqlite3.Connection) -> int:
            done = 0
            for id in ids:
                row = db.execute(sql.RAW, (id,)).fetchone()
                if row is None:
                    continue
                for name, part in zip(("envelope", "trace", "content"), row[2:], strict=True):
                    _write(self._disk, os.path.join(aside, f"queue-{id}.{name}"), part)
                if row[1] and os.path.exists(self._path_of_body(id)):
                    self._disk.link(self._path_of_body(id), os.path.join(aside, f"queue-{id}.body"))
                self._dirty.update(lane for (lane,) in db.execute(sql.LANES_OF_MESSAGE, (row[0],)))
                self._drop(db, row[0], id, bool(row[1]))
                done += 1
            self._disk.sync_directory(aside)
            return done

        return self.change(job)

    def hold(self, ids: Sequence[str]) -> int:
        return self._order(ids, sql.HOLD, ())

    def let_go(self, ids: Sequence[str], now: float) -> int:
        return self._order(ids, sql.LET_GO, (now,))

    def retry_now(self, ids: Sequence[str], now: float) -> int:
        return self._order(ids, sql.RETRY, (now,), (now,))

    def delete(self, ids: Sequence[str]) -> int:
        """Gone without a bounce. A courier that has it under way may still deliver it; its report is refused."""

        def job(db: sqlite3.Connection) -> int:
            done = 0
            for id in ids:
                row = db.execute(sql.MESSAGE, (id,)).fetchone()
                if row is not None:
                    self._dirty.update(lane for (lane,) in db.execute(sql.LANES_OF_MESSAGE, (row[0],)))
                    self._drop(db, row[0], id, bool(row[2]))
                    done += 1
            return done

        return self.change(job)

    def _order(
        self, ids: Sequence[str], statement: str, before: tuple[float, ...], after: tuple[float, ...] = ()
    ) -> int:
        def job(db: sqlite3.Connection) -> int:
            done = 0
            for id in ids:
                row = db.execute(sql.MESSAGE, (id,)).fetchone()
                lanes = db.execute(statement, (*before, row[0], *after)).fetchall() if row is not None else []
                self._dirty.update(lane for (lane,) in lanes)
                done += bool(lanes)
            return done

        return self.change(job)

    def abandon(self) -> None:
        """In the child after a fork: the lock is the parent's, and so is the database. SQLite can't be carried through
        a fork, not even to be closed: that could write an old log over what others wrote since. So it stays open."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            for connection in (self._db, self._reader):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def close(self) -> None:
        """Idempotent."""
        with self._writing, self._reading:
            if self._lock >= 0:
                # The writer last: its close is the final checkpoint.
                self._reader.close()
                self._db.close()
                self._disk.close(self._lock)
                self._lock = -1


def _pick(db: sqlite3.Connection, lane: int, now: float, room: int) -> list[int]:
    """Up to `room` messages of a lane with recipients that are due, longest waiting first."""
    limit = room * _RECIPIENTS_PER_MESSAGE
    while True:
        rows = db.execute(sql.PICK, (lane, now, limit)).fetchall()
        messages = list(dict.fromkeys(seq for (seq,) in rows))
        if len(messages) >= room or len(rows) < limit:
            return messages[:room]
        limit *= 8


def _insert_rows(db: sqlite3.Connection, statement: Callable[[int], str], rows: list[tuple[Any, ...]]) -> None:
    """Many rows in few steps: each step gives the interpreter lock away and has to win it back."""
    at = 0
    size = sql.ROWS
    while at < len(rows):
        while size > len(rows) - at:
            size //= 4
        size = max(size, 1)
        db.execute(statement(size), [value for row in rows[at : at + size] for value in row])
        at += size


def _text(text: str) -> str:
    """Text that the database takes: what is no character is replaced; the packed envelope keeps it as it was."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _dsn(stop: Stop, envelope: Envelope) -> str:
    """Empty where the envelope says it; a recipient made by an alias brings its own."""
    if stop.number < len(envelope.recipients) and envelope.recipients[stop.number] == stop.recipient:
        return ""
    return f"{','.join(stop.recipient.notify)}\0{_text(stop.recipient.orcpt)}"


def _recipient(envelope: Envelope, number: int, address: str, dsn: str) -> Recipient:
    if not dsn:
        return envelope.recipients[number]
    notify, _, orcpt = dsn.partition("\0")
    return Recipient(address, tuple(notify.split(",")) if notify else (), orcpt)


def _write(disk: Disk, path: str, data: bytes | None) -> None:
    """A synced file, where there is something to keep and it is not kept already."""
    if not data or os.path.exists(path):
        return
    descriptor = disk.create(path)
    try:
        disk.append(descriptor, [bytes(data)])
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


def _attempt_row(seq: int, one: Outcome, now: float) -> tuple[Any, ...]:
    return (
        seq, one.number, one.at or now, one.result.value, one.code, one.enhanced, _text(one.text), _text(one.remote),
        one.scope, one.next_attempt,
    )  # fmt: skip
