"""A second copy after a lost reply is answered with the id of the first."""

from __future__ import annotations

import errno
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from relay import segment
from relay.disk import Disk
from relay.intake import Intake
from relay.kept_before import promised_keys, remember_all
from relay.mail import Outcome, Parcel, Result
from relay.outbox import Outbox
from relay.queue_resends import QueueResends
from relay.queue_sqlite import SqliteQueue
from relay.resends import Resends
from relay.spool import Spool
from smtpd_core.draft import Draft
from smtpd_core.threads import Mailbox, Ticket
from smtpd_core.wire.envelope import Envelope, Origin, Recipient
from tests.support.spooling import ENVELOPE, NOW, FaultyDisk, draft, imported, kept, to_one_maildir


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


def resending_spool(folder: Path, disk: Disk | None = None) -> tuple[Spool, Resends, list[float]]:
    clock = [NOW]
    resends = Resends(lambda: clock[0], window=300, applies=lambda envelope: True)
    return Spool(folder / "spool", disk=disk, resends=resends), resends, clock


LETTER = b"From: bob@example.test\r\nMessage-ID: <1@example.test>\r\n\r\nhello\r\n"


def test_a_second_copy_is_answered_with_the_first_ones_id(tmp_path: Path) -> None:
    spool, _, clock = resending_spool(tmp_path)
    kept(spool.promise(draft(spool, LETTER, "M1"), ENVELOPE))
    second = spool.promise(draft(spool, LETTER, "M2"), ENVELOPE)
    kept(second)
    assert second.value == "M1"
    clock[0] += 301
    third = spool.promise(draft(spool, LETTER, "M3"), ENVELOPE)
    kept(third)
    assert third.value is None
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M3"]


@pytest.mark.parametrize(
    ("content", "envelope"),
    [
        (LETTER + b"more\r\n", ENVELOPE),
        (LETTER, Envelope("carl@example.test", ENVELOPE.recipients, origin=ENVELOPE.origin)),
        (LETTER, Envelope(ENVELOPE.sender, (Recipient("eve@example.test"),), origin=ENVELOPE.origin)),
        (LETTER, Envelope(ENVELOPE.sender, ENVELOPE.recipients, origin=Origin("192.0.2.2"))),
    ],
)
def test_a_message_that_differs_is_no_copy(content: bytes, envelope: Envelope, tmp_path: Path) -> None:
    spool, _, _ = resending_spool(tmp_path)
    kept(spool.promise(draft(spool, LETTER, "M1"), ENVELOPE))
    kept(spool.promise(draft(spool, content, "M2"), envelope))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2"]


def outbox(folder: Path, **words: Any) -> Outbox:
    made = Outbox(
        folder, stops=to_one_maildir, agents={"maildir": Nowhere()}, recognises_resend=lambda one: True, **words
    )
    assert made.start()
    return made


class Nowhere:
    """Delivers nothing, so that all stays in the queue."""

    def deliver(self, parcel: Parcel, open_body: object, now: float) -> list[Outcome]:
        return [Outcome(one.number, Result.DEFERRED, at=now, next_attempt=now + 999) for one in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""


def kept_by(one: Outbox, id: str) -> Ticket:
    copy = Draft(one.drafts, id=id)
    copy.append(LETTER)
    ticket = one.keep(Envelope("bob@here.test", (Recipient("ann@here.test"),), arrived=time.time()), copy)
    kept(ticket)
    return ticket


def test_a_process_that_only_spools_knows_what_the_queue_has_of_others(tmp_path: Path) -> None:
    relay, receiver = outbox(tmp_path), outbox(tmp_path)
    assert relay.delivers and not receiver.delivers
    kept_by(relay, "M1")
    assert relay.queue is not None
    deadline, nothing = time.monotonic() + 10, Mailbox[None]()
    while relay.queue.next_due() is None and time.monotonic() < deadline:
        nothing.wait(0.01)
    assert kept_by(receiver, "M2").value == "M1"
    assert receiver.stop(5) and relay.stop(5)


def test_a_copy_at_another_receiver_before_the_first_is_imported_is_kept_twice(tmp_path: Path) -> None:
    """The blind spot: receivers do not talk to each other. One that starts later has read what the first promised."""
    first, second = outbox(tmp_path, spools_only=True), outbox(tmp_path, spools_only=True)
    kept_by(first, "M1")
    assert kept_by(second, "M2").value is None
    third = outbox(tmp_path, spools_only=True)
    assert kept_by(third, "M3").value in ("M1", "M2")
    assert first.stop(5) and second.stop(5) and third.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2"]


@pytest.mark.parametrize("damage", ["no database at all", "a later schema"])
def test_a_queue_that_cant_be_read_knows_no_copies_and_stops_nobody(damage: str, tmp_path: Path) -> None:
    if damage == "a later schema":
        SqliteQueue(tmp_path / "queue.db").close()
        with sqlite3.connect(tmp_path / "queue.db") as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        (tmp_path / "queue.db").write_bytes(b"x" * 9000)
    receiver = outbox(tmp_path, spools_only=True)
    assert kept_by(receiver, "M1").value is None
    assert kept_by(receiver, "M2").value == "M1"
    assert receiver.stop(5)


def test_a_queue_that_is_only_being_made_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At a first start with several processes receivers looked while the relay made it, and warned of its schema."""
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("PRAGMA journal_mode = WAL")
        receiver = outbox(tmp_path, spools_only=True)
        assert kept_by(receiver, "M1").value is None
    db.close()
    assert receiver.stop(5)
    assert "not recognised" not in caplog.text


def test_keys_of_what_a_living_spool_has_not_synced_are_not_believed(tmp_path: Path) -> None:
    """Its sync may fail: then nothing is kept, and the second copy must be."""
    spool, _, _ = resending_spool(tmp_path)
    kept(spool.promise(draft(spool, LETTER, "M1"), ENVELOPE))
    kept(spool.promise(draft(spool, LETTER + b"2", "M2"), ENVELOPE))
    (path,) = (tmp_path / "spool").glob("*.seg")
    records = path.read_bytes()[segment.HEADER_SIZE :]
    with path.open("ab") as file:
        file.write(records.replace(b"M1", b"M3"))
    found = list(promised_keys(spool.directory, 0, Disk()))
    assert [id for _, id, _ in found] == ["M1", "M2"]
    assert spool.stop(5)


def test_keys_of_a_dead_spool_that_cant_be_synced_are_not_believed(tmp_path: Path, disk: FaultyDisk) -> None:
    """Whoever is answered with the first copy's id was promised that it is on disk."""
    spool, _, _ = resending_spool(tmp_path)
    kept(spool.promise(draft(spool, LETTER, "M1"), ENVELOPE))
    assert spool.stop(5)
    disk.faults["sync"] = [OSError(errno.EIO, "I/O error")]
    assert list(promised_keys(spool.directory, 0, disk)) == []
    assert [id for _, id, _ in promised_keys(spool.directory, 0, disk)] == ["M1"]
    assert list(promised_keys(spool.directory, NOW + 1, disk)) == []


def test_without_a_message_id_equal_messages_are_two(tmp_path: Path) -> None:
    spool, _, _ = resending_spool(tmp_path)
    content = b"Subject: x\r\n\r\nMessage-ID: <1@body>\r\n"
    kept(spool.promise(draft(spool, content, "M1"), ENVELOPE))
    kept(spool.promise(draft(spool, content, "M2"), ENVELOPE))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2"]


def test_two_copies_at_once_are_kept_once_and_share_their_fate(tmp_path: Path, disk: FaultyDisk) -> None:
    spool, _, _ = resending_spool(tmp_path, disk)
    first = spool.promise(draft(spool, LETTER * 5000, "M1"), ENVELOPE)
    second = spool.promise(draft(spool, LETTER * 5000, "M2"), ENVELOPE)
    kept(first)
    kept(second)
    assert second.value == "M1"
    disk.faults["sync"] = [OSError(errno.EIO, "I/O error")]
    first = spool.promise(draft(spool, LETTER + b"2", "M3"), ENVELOPE)
    second = spool.promise(draft(spool, LETTER + b"2", "M4"), ENVELOPE)
    assert first.wait(5) and second.wait(5)
    if isinstance(second.outcome, OSError):
        assert isinstance(first.outcome, OSError)
    assert spool.stop(5)


def test_a_copy_after_a_kill_between_sync_and_reply_finds_the_first_in_the_queue(tmp_path: Path) -> None:
    spool, _, _ = resending_spool(tmp_path)
    kept(spool.promise(draft(spool, LETTER, "M1"), ENVELOPE))
    assert spool.stop(5)
    queue = SqliteQueue(tmp_path / "queue.db")
    Intake(tmp_path / "spool", queue, to_one_maildir, clock=lambda: NOW).import_all()
    (parcel,) = queue.claim("maildir:m", 1, NOW, 60)
    assert queue.delete([parcel.message_id]) == 1
    spool, resends, _ = resending_spool(tmp_path)
    remember_all(resends, spool.directory, QueueResends(queue.path), NOW - 300)
    again = spool.promise(draft(spool, LETTER, "M2"), ENVELOPE)
    kept(again)
    assert again.value == "M1"
    assert spool.stop(5)
    queue.close()
