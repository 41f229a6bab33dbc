"""A second copy after a lost reply is answered with the id of the first."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from relay.disk import Disk
from relay.intake import Intake
from relay.queue_sqlite import SqliteQueue
from relay.resends import Resends
from relay.spool import Spool
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
    resends.remember(queue.recent_resends(NOW - 300))
    again = spool.promise(draft(spool, LETTER, "M2"), ENVELOPE)
    kept(again)
    assert again.value == "M1"
    assert spool.stop(5)
    queue.close()
