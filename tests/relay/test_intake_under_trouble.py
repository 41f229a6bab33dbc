"""Intake where the disk, the queue or the spool beside it is in trouble: nothing is left out, nothing leaks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay.disk import Disk
from relay.intake import Intake
from relay.mail import Message, Stop
from relay.queue_memory import MemoryQueue
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from tests.support.spooling import ENVELOPE, NOW, FaultyDisk, draft, kept, refused, to_one_maildir


class Full(MemoryQueue):
    """Takes nothing while it is full."""

    is_full = False

    def add(self, batch: Sequence[tuple[Message, Sequence[Stop]]], source: str, offset: int, now: float) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left")
        super().add(batch, source, offset, now)


class Scene:
    """A spool with its intake, which other processes might share: it looks at the whole directory each time."""

    def __init__(self, folder: Path) -> None:
        self.disk, self.queue, self.directory = FaultyDisk(), Full(), folder / "spool"
        self.spool = Spool(self.directory, disk=self.disk)
        self.intake = self.new_intake()

    def new_intake(self) -> Intake:
        return Intake(
            self.directory, self.queue, to_one_maildir, spool=self.spool, alone=False, clock=lambda: NOW, pause=0
        )

    def keep(self, *ids: str) -> None:
        for id in ids:
            kept(self.spool.promise(draft(self.spool, id=id), ENVELOPE))

    def fail_a_sync(self) -> None:
        self.disk.faults["sync"] = [OSError(errno.EIO, "I/O error")]
        refused(self.spool.promise(draft(self.spool, id="BAD"), ENVELOPE))

    @property
    def queued(self) -> list[str]:
        return sorted(one.message_id for one in self.queue.claim("maildir:m", 1000, NOW, 60))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    assert made.spool.stop(5)


def _open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


def test_a_segment_that_became_suspect_is_closed_once_and_nobody_elses_file_with_it(scene: Scene) -> None:
    """It was closed at each look, and its number was that of whatever file or connection was opened since."""
    scene.keep("M1")
    assert scene.intake.import_all() == 1
    scene.fail_a_sync()
    assert scene.intake.import_all() == 0
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
    try:
        assert scene.intake.import_all() == 0
        for one in others:
            os.fstat(one)
    finally:
        for one in others:
            os.close(one)
    scene.keep("M2")
    assert scene.intake.import_all() == 1
    assert scene.queued == ["M1", "M2"]


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="the system does not list open descriptors")
def test_a_queue_that_takes_nothing_for_long_costs_no_descriptors(scene: Scene) -> None:
    """Each try left the segment open once more, until nobody could connect any longer."""
    scene.keep("M1")
    scene.queue.is_full = True
    with pytest.raises(OSError):
        scene.intake.import_all()
    before = _open_descriptors()
    for _ in range(20):
        with pytest.raises(OSError):
            scene.intake.import_all()
    scene.fail_a_sync()  # and the same where the segment is suspect, and for an intake that never had it open
    other = scene.new_intake()
    for _ in range(20):
        with pytest.raises(OSError):
            other.import_all()
    assert len(_open_descriptors() - before) <= 1
    scene.queue.is_full = False
    assert scene.intake.import_all() == 1
    assert scene.queued == ["M1"]


class TwoDisks(Disk):
    """A link or a name reaches only within `here`, the spool's directory, and without it."""

    def __init__(self, here: Path) -> None:
        self._here = here

    def _check(self, source: int | str, path: str) -> None:
        if isinstance(source, str) and Path(source).is_relative_to(self._here) != Path(path).is_relative_to(self._here):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

    def link(self, source: int | str, path: str) -> None:
        self._check(source, path)
        super().link(source, path)

    def rename(self, source: str, path: str) -> None:
        self._check(source, path)
        super().rename(source, path)


def test_a_spool_on_another_disk_is_imported_all_the_same(tmp_path: Path) -> None:
    """One large message held up all that came after it for ever."""
    place = tmp_path / "spool"
    disk = TwoDisks(place)
    spool = Spool(place)
    kept(spool.promise(draft(spool, b"x" * 300_000, "LARGE"), ENVELOPE))
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    assert spool.stop(5)
    queue = SqliteQueue(tmp_path / "queue.db", disk=disk)
    assert Intake(place, queue, to_one_maildir, disk=disk, clock=lambda: NOW).import_all() == 2
    with queue.open_body("LARGE") as body:
        assert body.read() == b"x" * 300_000
    assert sorted(os.listdir(tmp_path / "bodies")) == ["LARGE"]
    assert os.listdir(place / "bodies") == []
    queue.close()


def test_a_copy_to_another_disk_that_is_full_leaves_nothing_half(tmp_path: Path) -> None:
    class Small(TwoDisks):
        room = 100_000

        def append(self, descriptor: int, pieces: Sequence[bytes]) -> int:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, "No space left")
            written = super().append(descriptor, [b"".join(pieces)[: self.room]])
            self.room -= written
            return written

    place = tmp_path / "spool"
    disk = Small(place)
    spool = Spool(place)
    kept(spool.promise(draft(spool, b"x" * 300_000, "LARGE"), ENVELOPE))
    assert spool.stop(5)
    queue = SqliteQueue(tmp_path / "queue.db", disk=disk)
    intake = Intake(place, queue, to_one_maildir, disk=disk, clock=lambda: NOW)
    with pytest.raises(OSError):
        intake.import_all()
    assert os.listdir(tmp_path / "bodies") == []
    disk.room = 1 << 20
    assert intake.import_all() == 1
    with queue.open_body("LARGE") as body:
        assert len(body.read()) == 300_000
    queue.close()


def test_a_damaged_segment_on_another_disk_is_kept_aside_all_the_same(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    spool = Spool(place)
    for id in ("M1", "M2", "M3"):
        kept(spool.promise(draft(spool, b"content of " + id.encode(), id), ENVELOPE))
    assert spool.stop(5)
    (file,) = place.glob("*.seg")
    damaged = file.read_bytes().replace(b"content of M2", b"CONTENT OF M2")
    file.write_bytes(damaged)
    queue = MemoryQueue()
    assert Intake(place, queue, to_one_maildir, disk=TwoDisks(place), clock=lambda: NOW).import_all() == 2
    assert (tmp_path / "aside" / file.name).read_bytes() == damaged
    assert not file.exists()


def _damage(place: Path, id: str) -> bytes:
    (file,) = place.glob("*.seg")
    with file.open("r+b") as open_file:
        data = open_file.read().replace(f"content of {id}".encode(), f"CONTENT OF {id}".encode())
        open_file.seek(0)
        open_file.write(data)
    return data


@pytest.mark.parametrize("id", ["M2", "M3"])
def test_a_damaged_segment_is_kept_whoever_imported_its_beginning(id: str, scene: Scene) -> None:
    """An intake that began behind the damage removed the segment, and with it what could not be read."""
    for one in ("M1", "M2", "M3"):
        kept(scene.spool.promise(draft(scene.spool, b"content of " + one.encode(), one), ENVELOPE))
    data = _damage(scene.directory, id)
    scene.spool.fresh = None
    assert scene.intake.import_all() == 2
    assert scene.spool.stop(5)
    assert scene.new_intake().import_all() == 0
    (aside,) = (scene.directory.parent / "aside").iterdir()
    assert aside.read_bytes() == data


def test_the_end_of_what_was_promised_is_not_said_to_be_a_tail(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.keep("M1")
    kept(scene.spool.promise(draft(scene.spool, b"content of M2", "M2"), ENVELOPE))
    _damage(scene.directory, "M2")
    scene.spool.fresh = None
    assert scene.intake.import_all() == 1
    assert "are damaged (wrong checksum)" in caplog.text
    assert "never promised" not in caplog.text
