"""The SQLite file of a queue: one writing connection in WAL mode, one transaction and one sync for all who wait.

Rule 1: whoever holds the writing lock carries out the changes of all who wait, in one transaction; so concurrent
settles share a sync without a thread of their own.
Rule 2: a change that ends something is synced, another need not be.
Thread: any. Another process may only read (queue_reader); the lock file beside the database sees to that.
Not here: SQL (statements), what the changes are (queue_sqlite).
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from relay import statements as sql
from relay.disk import Disk
from relay.queue import QueueIsHeld, QueueUnreadable
from relay.queue_bodies import QueueBodies
from relay.queue_lanes import Lanes
from smtpd_core.threads import Lock

log = logging.getLogger(__name__)

T = TypeVar("T")

TROUBLE = (OSError, sqlite3.Error)
"""What a change raises where the file or its disk is the trouble, and no mistake of the program's."""


class Order(Generic[T]):
    """One change on its way into a transaction."""

    __slots__ = ("error", "is_done", "is_durable", "job", "value")

    def __init__(self, job: Callable[[sqlite3.Connection], T], is_durable: bool) -> None:
        self.job = job
        self.is_durable = is_durable
        self.is_done = False
        self.value: T | None = None
        self.error: Exception | None = None


class Database:
    """Opened, brought up to date and locked. `lanes` and `bodies` go along with its transactions.

    Raises QueueIsHeld where another process has it, QueueUnreadable where the file is damaged or none of ours.
    """

    def __init__(self, path: str, lanes: Lanes, bodies: QueueBodies, disk: Disk) -> None:
        self.path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self._lanes, self._bodies, self._disk = lanes, bodies, disk
        self._gate = Lock()
        self._writing = Lock()
        self._waiting: list[Order[Any]] = []
        self._is_full_sync = True
        lock = disk.lock(os.path.join(self._folder, "queue.lock"))
        if lock is None:
            raise QueueIsHeld(f"the queue {path} is held by another process")
        self._lock = lock
        try:
            self._db = self._open()
            facts = os.stat(path)
            self._file = (facts.st_dev, facts.st_ino) if os.name == "posix" else ()
            # Couriers open bodies and the dispatcher looks around while a commit syncs; WAL lets them.
            self._reading = Lock()
            self._reader = self._open_reader()
            # Tokens of an earlier run never fit one of this run.
            self.run: int = self._db.execute(sql.NEW_RUN).fetchone()[0]
            lanes.recover(self._db)
            bodies.remove_strays(row[0] for row in self._db.execute(sql.IDS_OF_FILES).fetchall())
        except sqlite3.Error as error:
            disk.close(lock)
            raise QueueUnreadable(f"the queue {path} can't be opened: {error}") from error
        except BaseException:
            disk.close(lock)
            raise

    def _open(self) -> sqlite3.Connection:
        fresh = not os.path.exists(self.path)
        if fresh:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            for pragma in sql.PRAGMAS:
                db.execute(pragma)
            self._bring_up_to_date(db)
        except BaseException:
            db.close()
            raise
        if fresh:
            self._disk.sync_directory(self._folder)
        return db

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        """Each migration is one transaction, its version with it."""
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > sql.VERSION:
            raise sqlite3.DatabaseError(
                f"{self.path} has schema version {version}; this program knows versions up to {sql.VERSION}"
            )
        if version == 0:
            self._bodies.set_all_aside()
        for number in range(version, sql.VERSION):
            db.executescript(f"BEGIN IMMEDIATE; {sql.MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT;")

    def _open_reader(self) -> sqlite3.Connection:
        reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        reader.execute("PRAGMA query_only = ON")
        # Only the writer checkpoints.
        reader.execute("PRAGMA wal_autocheckpoint = 0")
        return reader

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows, as they are after the last commit."""
        with self._reading:
            return self._reader.execute(statement, values).fetchall()

    # Transactions.

    def change(self, job: Callable[[sqlite3.Connection], T], *, is_durable: bool = True) -> T:
        """Carry out `job` in a transaction, perhaps together with others'. Raises what it raised, or the commit's
        sqlite3.Error; then nothing of it happened."""
        order: Order[T] = Order(job, is_durable)
        with self._gate:
            self._waiting.append(order)
        with self._writing:
            if not order.is_done:
                with self._gate:
                    orders, self._waiting = self._waiting, []
                self._carry_out(orders)
                self._bodies.remove_dropped()
        if order.error is not None:
            raise order.error
        return order.value  # type: ignore[return-value]

    def _carry_out(self, orders: list[Order[Any]]) -> None:
        db = self._db
        try:
            self._sync_fully(any(one.is_durable for one in orders))
            if db.in_transaction:  # a rollback that failed: nothing of it may be committed with this
                db.execute("ROLLBACK")
            self._look_for_the_file()
            db.execute("BEGIN IMMEDIATE")
            for one in orders:
                self._carry_out_one(db, one, len(orders) > 1)
            self._lanes.note_due(db)
            db.execute("COMMIT")
        except Exception as error:
            # First of all everybody's error: whoever finds none takes the change for made.
            for one in orders:
                one.error = one.error or error
            self._lanes.undo()
            self._lanes.forget_touched()
            self._bodies.undo()
            self._roll_back(db)
        finally:
            for one in orders:
                one.is_done = True

    def _carry_out_one(self, db: sqlite3.Connection, order: Order[Any], has_company: bool) -> None:
        """Alone, an error ends the transaction; in company only this order's part is undone."""
        if not has_company:
            order.value = order.job(db)
            return
        db.execute("SAVEPOINT one")
        mark = self._bodies.mark()
        try:
            order.value = order.job(db)
        except Exception as error:
            db.execute("ROLLBACK TO one")
            self._lanes.undo()
            self._bodies.undo(mark)
            order.error = error
        db.execute("RELEASE one")

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

    def _sync_fully(self, wanted: bool) -> None:
        if wanted is not self._is_full_sync:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._is_full_sync = wanted

    # Its end.

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
