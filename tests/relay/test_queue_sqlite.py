"""The SQLite queue across restarts, with several callers at once, and with files that are not its own."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from relay import statements as sql
from relay.disk import Disk
from relay.mail import Body, Message, Outcome, Recipient, Result, Settlement, Stop
from relay.queue import QueueIsHeld, QueueUnreadable
from relay.queue_database import Order
from relay.queue_reader import SqliteReader
from relay.queue_sqlite import SqliteQueue
from smtpd_core.wire.envelope import Envelope

NOW = 1_000_000.0
PLACE = "mx:example.test"


def message(id: str, recipients: int = 1, body: Body | None = None) -> tuple[Message, list[Stop]]:
    to = tuple(Recipient(f"u{n}@example.test") for n in range(recipients))
    envelope = Envelope("bob@here.test", to, arrived=NOW)
    return Message(id, envelope, b"", body or Body(2, b"hi")), [Stop(n, one, PLACE) for n, one in enumerate(to)]


def reopened(queue: SqliteQueue) -> SqliteQueue:
    queue.close()
    return SqliteQueue(queue.path)


def test_what_failed_for_good_is_never_tried_again_after_a_restart(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1", 3)], "s", 7, NOW)
    (parcel,) = queue.claim(PLACE, 1, NOW, 60)
    ends = (
        Outcome(0, Result.FAILED, 550, at=NOW),
        Outcome(1, Result.DEFERRED, 451, at=NOW, next_attempt=NOW + 10),
        Outcome(2, Result.RELAYED, 250, at=NOW),
    )
    assert queue.settle(parcel, ends, [], NOW)
    queue = reopened(queue)
    (parcel,) = queue.claim(PLACE, 9, NOW + 1e6, 60)
    assert [one.number for one in parcel.stops] == [1]
    assert queue.offset("s") == 7
    queue.close()


def test_after_a_restart_nothing_counts_as_never_tried(tmp_path: Path) -> None:
    """A claim is not synced, so an earlier run may have delivered what looks untouched: look before you write."""
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1")], "s", 1, NOW)
    queue = reopened(queue)
    queue.add([message("M2")], "s", 2, NOW)
    assert {one.message_id: one.attempt for one in queue.claim(PLACE, 9, NOW, 60)} == {"M1": 2, "M2": 1}
    queue.close()


def test_a_claim_of_an_earlier_run_cant_settle(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1")], "s", 1, NOW)
    (old,) = queue.claim(PLACE, 1, NOW, 60)
    queue = reopened(queue)
    (new,) = queue.claim(PLACE, 1, NOW + 61, 60)
    assert new.lease != old.lease
    assert not queue.settle(old, [Outcome(0, Result.FAILED, 550, at=NOW)], [], NOW)
    queue.close()


def test_one_process_holds_a_queue(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    with pytest.raises(QueueIsHeld, match="held by another process"):
        SqliteQueue(tmp_path / "queue.db")
    queue.close()
    queue.close()
    SqliteQueue(tmp_path / "queue.db").close()


def test_a_queue_of_a_later_program_is_refused_in_words(tmp_path: Path) -> None:
    SqliteQueue(tmp_path / "queue.db").close()
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute(f"PRAGMA user_version = {sql.VERSION + 1}")
    db.close()
    with pytest.raises(QueueUnreadable, match=f"schema version {sql.VERSION + 1}"):
        SqliteQueue(tmp_path / "queue.db")


def test_a_queue_of_an_earlier_program_is_brought_up_to_date_with_its_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1", 2)], "s", 7, NOW)
    queue.close()
    later = (*sql.MIGRATIONS, "CREATE TABLE more (one); INSERT INTO more VALUES (7)", "ALTER TABLE more ADD two")
    monkeypatch.setattr(sql, "MIGRATIONS", later)
    monkeypatch.setattr(sql, "VERSION", len(later))
    with pytest.raises(sqlite3.DatabaseError, match="a server of this program brings an older one up to date"):
        SqliteReader(tmp_path / "queue.db")
    queue = SqliteQueue(tmp_path / "queue.db")
    assert queue.change(lambda db: db.execute("SELECT one, two FROM more").fetchall()) == [(7, None)]
    (parcel,) = queue.claim(PLACE, 9, NOW, 60)
    assert (parcel.message_id, len(parcel.stops), queue.offset("s")) == ("M1", 2, 7)
    queue.close()


def test_a_migration_that_fails_leaves_the_queue_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one that a kill interrupts: each is one transaction with its version."""
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1")], "s", 7, NOW)
    queue.close()
    with monkeypatch.context() as patched:
        later = (*sql.MIGRATIONS, "DELETE FROM messages; INSERT INTO nowhere VALUES (1)")
        patched.setattr(sql, "MIGRATIONS", later)
        patched.setattr(sql, "VERSION", len(later))
        with pytest.raises(QueueUnreadable, match="nowhere"):
            SqliteQueue(tmp_path / "queue.db")
    queue = SqliteQueue(tmp_path / "queue.db")
    assert [one.message_id for one in queue.claim(PLACE, 9, NOW, 60)] == ["M1"]
    queue.close()


def test_body_files_that_no_message_names_are_removed_at_the_start(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    (tmp_path / "spooled").write_bytes(b"x" * 300_000)
    queue.add([message("M1", body=Body(300_000, None, str(tmp_path / "spooled")))], "s", 1, NOW)
    (tmp_path / "bodies" / "STRAY").write_bytes(b"left by a crash")
    queue = reopened(queue)
    assert [path.name for path in (tmp_path / "bodies").iterdir()] == ["M1"]
    queue.close()


def test_a_change_that_fails_undoes_itself_and_not_its_company(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    errors: list[Exception] = []

    def bad(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO sources VALUES ('bad', 1)")
        raise RuntimeError("no")

    def failing() -> None:
        for _ in range(50):
            try:
                queue.change(bad)
            except RuntimeError as error:
                errors.append(error)

    threads = [Thread(target=failing) for _ in range(3)]
    for one in threads:
        one.start()
    for number in range(100):
        queue.add([message(f"M{number}")], f"good-{number}", number + 1, NOW)
    for one in threads:
        one.join()
    assert len(errors) == 150
    assert queue.offset("bad") == 0
    assert all(queue.offset(f"good-{number}") == number + 1 for number in range(100))
    assert len(queue.claim(PLACE, 1000, NOW, 60)) == 100
    queue.close()


def test_several_threads_settle_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message(f"M{number}", 2) for number in range(200)], "s", 1, NOW)

    def work() -> None:
        while parcels := queue.claim(PLACE, 3, NOW, 600):
            done = [
                Settlement(one, tuple(Outcome(stop.number, Result.RELAYED, 250, at=NOW) for stop in one.stops))
                for one in parcels
            ]
            assert all(queue.settle_all(done, NOW))

    threads = [Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert queue.next_due() is None
    with pytest.raises(KeyError):
        queue.open_body("M0")
    queue.close()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 85, 500])
def test_any_number_of_recipients_is_stored(count: int, tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1", count)], "s", 1, NOW)
    (parcel,) = queue.claim(PLACE, 1, NOW, 60)
    assert [one.number for one in parcel.stops] == list(range(count))
    queue.close()


class _NoRollback:
    """A connection whose commits and rollbacks fail, as a disk that went away makes them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.fails = True

    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        if self.fails and statement in ("COMMIT", "ROLLBACK"):
            raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(statement, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def test_whoever_shared_a_transaction_that_could_not_be_rolled_back_hears_of_it(tmp_path: Path) -> None:
    """Those in company were told that their change was made."""
    queue = SqliteQueue(tmp_path / "queue.db")
    database = queue._database
    broken = _NoRollback(database._db)
    database._db = broken  # type: ignore[assignment]
    orders = [Order(lambda db: 1, True), Order(lambda db: 2, True)]
    database._carry_out(orders)
    assert all(one.error is not None and one.is_done for one in orders)
    broken.fails = False
    queue.add([message("M1")], "seg", 1, NOW)
    assert queue.offset("seg") == 1
    queue.close()


def test_a_message_that_is_settled_while_the_queue_is_checked_is_no_fault(tmp_path: Path) -> None:
    """Its body went between two looks, and the check of a sound queue failed."""
    queue = SqliteQueue(tmp_path / "queue.db")
    for id in ("M1", "M2"):
        (tmp_path / id).write_bytes(b"x" * 9)
        queue.add([message(id, body=Body(9, None, str(tmp_path / id)))], "s", 1, NOW)

    class Late(SqliteReader):
        def _path_of_body(self, id: str) -> str:
            queue.delete(["M1"])
            return super()._path_of_body(id)

    reader = Late(tmp_path / "queue.db")
    assert reader.faults() == []
    (tmp_path / "bodies" / "M2").unlink()
    assert [one.id for one in reader.faults()] == ["M2"]
    reader.close()
    queue.close()


def test_a_body_that_cant_be_removed_undoes_nothing_and_stops_nobody(tmp_path: Path) -> None:
    class Stuck(Disk):
        def remove(self, path: str) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

    body = tmp_path / "body"
    body.write_bytes(b"x" * 10)
    queue = SqliteQueue(tmp_path / "queue.db", disk=Stuck())
    large, stops = message("M1")
    queue.add([(replace(large, body=Body(10, None, str(body))), stops)], "seg", 1, NOW)
    assert queue.delete(["M1"]) == 1
    queue.add([message("M2")], "seg", 2, NOW)
    queue.close()


@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_database_that_is_taken_away_in_use_takes_nothing_more(fate: str, tmp_path: Path) -> None:
    """What was imported went into a file without a name, and was gone at the next start."""
    queue = SqliteQueue(tmp_path / "queue.db")
    queue.add([message("M1")], "seg", 1, NOW)
    if fate == "removed":
        (tmp_path / "queue.db").unlink()
    else:
        (tmp_path / "other").write_bytes(b"")
        (tmp_path / "other").replace(tmp_path / "queue.db")
    with pytest.raises(OSError, match="restart"):
        queue.add([message("M2")], "seg", 2, NOW)
    queue.close()


def test_bodies_beside_a_new_database_are_kept(tmp_path: Path) -> None:
    """A lost database took the bodies with it, which were all that was left."""
    (tmp_path / "bodies").mkdir()
    (tmp_path / "bodies" / "M1").write_bytes(b"content")
    SqliteQueue(tmp_path / "queue.db").close()
    assert (tmp_path / "aside" / "queue-M1.body").read_bytes() == b"content"
    assert list((tmp_path / "bodies").iterdir()) == []
