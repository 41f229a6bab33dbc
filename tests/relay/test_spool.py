"""The spool promises after the sync, within its limits, at the level asked for; intake imports once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.bell import Bell
from relay.disk import Disk
from relay.intake import LOOK_AROUND, Intake
from relay.queue_memory import MemoryQueue
from relay.queue_sqlite import SqliteQueue
from relay.spool import Durability, Spool
from relay.spool_files import position_bytes, position_of, segment_path
from smtpd_core.draft import MEMORY_LIMIT
from smtpd_core.threads import Mailbox
from tests.support.spooling import ENVELOPE, NOW, FaultyDisk, draft, imported, kept, refused, to_one_maildir


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def spool(tmp_path: Path, disk: FaultyDisk) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", disk=disk)
    yield made
    assert made.stop(5)


def test_what_is_promised_is_imported_as_it_was_given(spool: Spool, tmp_path: Path) -> None:
    contents = {f"M{n}": os.urandom(size) for n, size in enumerate([0, 1, 4096, MEMORY_LIMIT, MEMORY_LIMIT + 1])}
    for ticket in [spool.promise(draft(spool, content, id), ENVELOPE) for id, content in contents.items()]:
        kept(ticket)
    found = imported(tmp_path / "spool", spool)
    assert {id: content for id, (_, content) in found.items()} == contents
    assert all(parcel.envelope == ENVELOPE for parcel, _ in found.values())
    assert all(parcel.trace == b"Received: by mx\r\n" for parcel, _ in found.values())


def test_a_stopped_spool_leaves_orphans_that_are_imported_and_removed(spool: Spool, tmp_path: Path) -> None:
    kept(spool.promise(draft(spool, b"a", "M1"), ENVELOPE))
    kept(spool.promise(draft(spool, b"b" * 300_000, "M2"), ENVELOPE))
    assert spool.stop(5)
    queue = SqliteQueue(tmp_path / "queue.db")
    Intake(tmp_path / "spool", queue, to_one_maildir).import_all()
    assert sorted(one.message_id for one in queue.claim("maildir:m", 9, 9e9, 60)) == ["M1", "M2"]
    queue.close()
    assert sorted(p.name for p in (tmp_path / "spool").rglob("*")) == ["bodies"]
    assert [p.name for p in (tmp_path / "bodies").iterdir()] == ["M2"]


def test_nothing_is_taken_after_the_end(spool: Spool) -> None:
    assert spool.stop(5)
    refused(spool.promise(draft(spool), ENVELOPE))


# Limits.


def test_a_spool_over_its_limit_says_452_until_intake_made_room(tmp_path: Path, disk: FaultyDisk) -> None:
    clock = [0.0]
    spool = Spool(tmp_path / "spool", disk=disk, limit=1 << 20, segment_size=1 << 18, clock=lambda: clock[0])
    assert spool.has_room() is None
    for _ in range(40):
        kept(spool.promise(draft(spool, b"x" * 200_000), ENVELOPE))
    reply = spool.has_room()
    assert reply is not None and str(reply).startswith("452 4.3.1")
    imported(tmp_path / "spool", spool)
    clock[0] += 1
    assert spool.has_room() is None
    assert spool.stop(5)


def test_a_disk_below_its_floor_says_452(tmp_path: Path) -> None:
    class Small(Disk):
        left = 1 << 30

        def free(self, path: str) -> int:
            return self.left

    disk, clock = Small(), [0.0]
    disk.left = 1000
    spool = Spool(tmp_path / "spool", disk=disk, free_floor=2000, clock=lambda: clock[0])
    assert spool.has_room() is not None
    disk.left = 3000
    clock[0] += 1
    assert spool.has_room() is None
    assert spool.stop(5)


def test_a_long_segment_is_closed_and_removed_once_imported(tmp_path: Path, disk: FaultyDisk) -> None:
    spool = Spool(tmp_path / "spool", disk=disk, segment_size=10_000)
    ids = {f"M{n}" for n in range(20)}
    for id in sorted(ids):
        kept(spool.promise(draft(spool, b"x" * 4000, id), ENVELOPE))
    assert len(list((tmp_path / "spool").glob("*.seg"))) > 3
    assert set(imported(tmp_path / "spool", spool)) == ids
    assert len(list((tmp_path / "spool").glob("*.seg"))) == 1
    assert spool.stop(5)


# Levels.


@pytest.mark.parametrize("level", list(Durability))
def test_each_level_keeps_the_message(level: Durability, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", durability_of=lambda envelope: level)
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    large = spool.promise(draft(spool, b"x" * 300_000, id="M2"), ENVELOPE)
    kept(large)
    assert large.value == (None if level is Durability.SYNCED else f"M2 ({level.value})")
    assert spool.stop(5)
    assert dict(spool.figures.promised) == {level.value: 2}
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2"]


def test_a_written_message_is_answered_though_its_sync_fails_later(tmp_path: Path, disk: FaultyDisk) -> None:
    spool = Spool(tmp_path / "spool", disk=disk, durability_of=lambda envelope: Durability.WRITTEN)
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    disk.faults["sync"] = [OSError(errno.EIO, "I/O error")]
    kept(spool.promise(draft(spool, id="M2"), ENVELOPE))
    assert spool.stop(5)


# Several processes.


def test_a_live_spool_of_another_is_read_up_to_its_published_position(spool: Spool, tmp_path: Path) -> None:
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    path = segment_path(spool.directory, spool.name, 1)
    with open(path, "ab") as file:
        file.write(b"not synced yet")
    assert sorted(imported(tmp_path / "spool")) == ["M1"]
    assert os.path.exists(path)


def test_a_torn_position_is_no_position() -> None:
    good = position_bytes((3, 4711))  # type: ignore[arg-type]
    assert position_of(good) == (3, 4711)
    assert position_of(b"") is None
    for at in range(len(good)):
        assert position_of(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]) is None


def test_a_receiver_rings_and_the_intake_of_another_process_hears_it(tmp_path: Path) -> None:
    queue = MemoryQueue()
    arrived: Mailbox[None] = Mailbox()
    intake = Intake(tmp_path / "spool", queue, to_one_maildir, alone=False, imported=arrived.poke, clock=lambda: NOW)
    intake.start()
    receiver = Spool(tmp_path / "spool")
    receiver.announce = Bell(receiver.directory).ring
    for number in range(3):
        kept(receiver.promise(draft(receiver, id=f"M{number}"), ENVELOPE))
        arrived.wait(LOOK_AROUND / 2)
        assert [one.message_id for one in queue.claim("maildir:m", 9, NOW, 60)] == [f"M{number}"]
    assert intake.stop(5)
    kept(receiver.promise(draft(receiver), ENVELOPE))
    assert receiver.stop(5)


def test_a_name_that_intake_took_for_an_orphans_is_left_to_it(tmp_path: Path) -> None:
    class Raced(Disk):
        taken: list[str]

        def lock(self, path: str) -> int | None:
            self.taken.append(path)
            if len(self.taken) == 1:
                return None  # intake has the lock
            lock = super().lock(path)
            if len(self.taken) == 2:
                os.unlink(path)  # intake had it a moment ago, and is through with it
            return lock

    disk = Raced()
    disk.taken = []
    spool = Spool(tmp_path / "spool", disk=disk)
    assert len(disk.taken) == 3 and os.path.exists(disk.taken[2])
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    assert spool.stop(5)
    assert set(imported(tmp_path / "spool")) == {"M1"}


def test_a_spool_smaller_than_a_segment_gets_its_room_back(tmp_path: Path, disk: FaultyDisk) -> None:
    clock = [0.0]
    spool = Spool(tmp_path / "spool", disk=disk, limit=400_000, clock=lambda: clock[0])
    while spool.has_room() is None:
        kept(spool.promise(draft(spool, b"x" * 20_000), ENVELOPE))
    imported(tmp_path / "spool", spool)
    clock[0] += 1
    assert spool.has_room() is None
    assert spool.stop(5)
