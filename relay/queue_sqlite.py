"""The durable queue of one node, in a SQLite file.

Rule 1: a change that ends something (add, settle, an operator's order) is synced; a claim is not: what it could lose is
only that it happened, and Parcel.attempt is above 1 for all that was in the queue before this run.
Rule 2: rows refer to body files; the link is synced before the row, the row goes before the file.
Thread: any.
Not here: transactions (queue_database), SQL (statements), rows (queue_rows), looking and listing (queue_reader).
"""

from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

from relay import queue_rows as rows
from relay import statements as sql
from relay import timing
from relay.disk import Disk
from relay.envelope_form import unpack
from relay.mail import Message, Outcome, Parcel, Settlement, Stop
from relay.queue_bodies import QueueBodies
from relay.queue_database import Database
from relay.queue_lanes import Lanes

log = logging.getLogger(__name__)

T = TypeVar("T")

# A message claimed in one go has this many recipients at most on average; else PICK is asked again for more.
_RECIPIENTS_PER_MESSAGE = 4

# Second copies of a message are recognised for this long after the first, across restarts.
RESEND_WINDOW = 600.0


class SqliteQueue:
    """The queue in the file `path`; bodies over 256 KiB are files in `bodies` beside it.

    Raises QueueIsHeld where another process has it, QueueUnreadable where the file is damaged or none of ours.
    """

    def __init__(self, path: str | os.PathLike[str], *, disk: Disk | None = None) -> None:
        self.path = os.fspath(path)
        disk = disk or Disk()
        self._lanes = Lanes()
        self._bodies = QueueBodies(os.path.dirname(os.path.abspath(self.path)), disk)
        self._database = database = Database(self.path, self._lanes, self._bodies, disk)
        self._seq = self._first_seq = (database.read(sql.LAST_SEQ)[0][0] or 0) + 1
        self._lease = database.run << 32

    def change(self, job: Callable[[sqlite3.Connection], T], *, is_durable: bool = True) -> T:
        """Carry out `job` in a transaction, perhaps together with others'."""
        return self._database.change(job, is_durable=is_durable)

    # Adding.

    def add(self, batch: Sequence[tuple[Message, Sequence[Stop]]], source: str, offset: int, now: float) -> None:
        self._bodies.adopt(message for message, _ in batch)

        def job(db: sqlite3.Connection) -> None:
            self._insert(db, batch, now)
            db.execute(sql.SET_SOURCE, (source, offset))

        self.change(job)

    def _insert(self, db: sqlite3.Connection, batch: Sequence[tuple[Message, Sequence[Stop]]], now: float) -> None:
        """Rows for messages that are not known yet; lanes' next_due is lowered to fit."""
        known = {row[0] for row in db.execute(sql.KNOWN_IDS, (json.dumps([one.id for one, _ in batch]),))}
        messages: list[rows.Row] = []
        recipients: list[rows.Row] = []
        due: dict[int, float] = {}
        resends = []
        for message, stops in batch:
            if message.id in known or not stops:
                continue
            known.add(message.id)
            seq, self._seq = self._seq, self._seq + 1
            messages.append(rows.message_row(seq, message, len(stops)))
            envelope = message.envelope
            rank = timing.rank(envelope)
            when = timing.first_attempt(envelope, now)
            for stop in stops:
                lane = self._lanes.number(db, stop.destination, rank)
                if when < due.get(lane, timing.NEVER) and not message.is_held:
                    due[lane] = when
                recipients.append(rows.recipient_row(seq, stop, message, lane, when))
            if message.resend_key:
                resends.append((bytes.fromhex(message.resend_key), message.id, now))
        rows.insert(db, sql.insert_messages, messages)
        rows.insert(db, sql.insert_recipients, recipients)
        db.executemany(sql.LANE_DUE_BY, [(when, lane) for lane, when in due.items()])
        if resends:
            db.executemany(sql.ADD_RESEND, resends)
            db.execute(sql.PRUNE_RESENDS, (now - RESEND_WINDOW,))

    def offset(self, source: str) -> int:
        found = self._database.read(sql.SOURCE, (source,))
        return found[0][0] if found else 0

    def forget_source(self, source: str) -> None:
        self.change(lambda db: db.execute(sql.FORGET_SOURCE, (source,)), is_durable=False)

    # Claiming.

    def due(self, now: float, limit: int = 1000) -> list[tuple[str, int]]:
        read = self._database.read
        return [
            (destination, read(sql.DUE_COUNT, (destination, now))[0][0])
            for destination, _ in read(sql.DUE, (now, limit))
        ]

    def next_due(self) -> float | None:
        found: float | None = self._database.read(sql.NEXT_DUE)[0][0]
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
        self._lanes.touch((lane,))
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
            Stop(number, rows.recipient(envelope, number, address, dsn), destination, attempts)
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
        self._bodies.adopt(message for one in settlements for message, _ in one.new_mail)
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
        self._lanes.touch(leased.values())
        finals = sum(one.result.is_final for one in outcomes)
        if finals >= still_open:
            self._drop(db, seq, parcel.message_id, bool(row[2]))
            return True
        for one in outcomes:
            if one.result.is_final:
                db.execute(sql.SETTLE, (rows.STATE_OF[one.result], one.at, seq, one.number))
            else:
                until = timing.put_off(one.next_attempt, deadline, now)
                db.execute(sql.DEFER, (until, seq, one.number))
        db.executemany(sql.ADD_ATTEMPT, [rows.attempt_row(seq, one, now) for one in outcomes])
        if finals:
            db.execute(sql.FEWER_OPEN, (finals, seq))
        return True

    def _drop(self, db: sqlite3.Connection, seq: int, id: str, has_file: bool) -> None:
        for statement in sql.DROP:
            db.execute(statement, (seq,))
        if has_file:
            self._bodies.drop(id)

    def last_tried(self, message_id: str, number: int) -> float:
        found: float | None = self._database.read(sql.LAST_TRIED, (message_id, number))[0][0]
        return found or 0.0

    def extend(self, parcel: Parcel, now: float, lease: float) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            row = db.execute(sql.MESSAGE, (parcel.message_id,)).fetchone()
            lanes = db.execute(sql.EXTEND, (now + lease, row[0], parcel.lease)).fetchall() if row else []
            self._lanes.touch(lane for (lane,) in lanes)
            return bool(lanes)

        return self.change(job, is_durable=False)

    def release(self, parcel: Parcel, now: float) -> None:
        def job(db: sqlite3.Connection) -> None:
            row = db.execute(sql.MESSAGE, (parcel.message_id,)).fetchone()
            if row is not None:
                self._lanes.touch(lane for _, lane, _ in db.execute(sql.LEASED, (row[0], parcel.lease)))
                db.execute(sql.UNTRIED, (now, row[0], parcel.lease))

        self.change(job, is_durable=False)

    def open_body(self, message_id: str) -> BinaryIO:
        for has_file, content in self._database.read(sql.BODY, (message_id,)):
            return self._bodies.open(message_id) if has_file else io.BytesIO(content)
        raise KeyError(message_id)

    # Operators' orders. Each says for how many messages it did something.

    def set_aside(self, ids: Sequence[str]) -> int:
        """Messages that can't be delivered as they are leave the queue for aside/, whatever of them can be read."""

        def job(db: sqlite3.Connection) -> int:
            done = 0
            for id in ids:
                row = db.execute(sql.RAW, (id,)).fetchone()
                if row is None:
                    continue
                seq, has_file, envelope, trace, content = row
                parts = (("envelope", envelope), ("trace", trace), ("content", content))
                self._bodies.set_aside(id, parts, bool(has_file))
                self._leave(db, seq, id, bool(has_file))
                done += 1
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
                    self._leave(db, row[0], id, bool(row[2]))
                    done += 1
            return done

        return self.change(job)

    def _leave(self, db: sqlite3.Connection, seq: int, id: str, has_file: bool) -> None:
        self._lanes.touch(lane for (lane,) in db.execute(sql.LANES_OF_MESSAGE, (seq,)))
        self._drop(db, seq, id, has_file)

    def _order(
        self, ids: Sequence[str], statement: str, before: tuple[float, ...], after: tuple[float, ...] = ()
    ) -> int:
        def job(db: sqlite3.Connection) -> int:
            done = 0
            for id in ids:
                row = db.execute(sql.MESSAGE, (id,)).fetchone()
                lanes = db.execute(statement, (*before, row[0], *after)).fetchall() if row is not None else []
                self._lanes.touch(lane for (lane,) in lanes)
                done += bool(lanes)
            return done

        return self.change(job)

    # Its end.

    def abandon(self) -> None:
        """In the child after a fork: it is the parent's."""
        self._database.abandon()

    def close(self) -> None:
        """Idempotent."""
        self._database.close()


def _pick(db: sqlite3.Connection, lane: int, now: float, room: int) -> list[int]:
    """Up to `room` messages of a lane with recipients that are due, longest waiting first."""
    limit = room * _RECIPIENTS_PER_MESSAGE
    while True:
        rows = db.execute(sql.PICK, (lane, now, limit)).fetchall()
        messages = list(dict.fromkeys(seq for (seq,) in rows))
        if len(messages) >= room or len(rows) < limit:
            return messages[:room]
        limit *= 8
