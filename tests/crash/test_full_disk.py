"""A real file system that is full, read-only, or too small for a message: it is refused, and life goes on."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.intake import Intake
from relay.mail import Body, Message, Outcome, Result, Stop
from relay.queue_reader import Unreadable
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from relay.spool_files import segment_path
from tests.support.spooling import ENVELOPE, NOW, draft, imported, kept, refused, to_one_maildir


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_file_system_refuses_and_takes_again_once_there_is_room(small: Path) -> None:
    spool = Spool(small / "spool", free_floor=0)
    promised = 0
    ticket = spool.promise(draft(spool, b"x" * 50_000, "M0"), ENVELOPE)
    while ticket.wait(10) and ticket.outcome is None:
        promised += 1
        ticket = spool.promise(draft(spool, b"x" * 50_000, f"M{promised}"), ENVELOPE)
    assert isinstance(ticket.outcome, OSError) and ticket.outcome.errno == errno.ENOSPC
    assert 10 <= promised <= 20
    assert spool.has_room() is not None
    segment = Path(segment_path(spool.directory, spool.name, 1))
    assert segment.stat().st_size == spool.position.offset
    subprocess.run(["mount", "-o", "remount,size=4m", small], check=True)
    kept(spool.promise(draft(spool, b"x" * 50_000, "LAST"), ENVELOPE))
    assert spool.stop(5)
    assert set(imported(small / "spool")) == {"LAST", *(f"M{n}" for n in range(promised))}


def test_a_file_system_without_room_for_a_segment_refuses(small: Path) -> None:
    spool = Spool(small / "spool", free_floor=0)
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    assert refused(spool.promise(draft(spool), ENVELOPE)).errno == errno.ENOSPC
    with pytest.raises(OSError):
        draft(spool, b"x" * 400_000)
    filler.unlink()
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    assert spool.stop(5)
    assert set(imported(small / "spool")) == {"M1"}


class Ailing:
    """An ext4 file system in a file, whose kernel remounts it read-only at the first error, and can be made to see one.
    Read-only with open files is nothing that an operator can ask for: mount(8) refuses it."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "image", folder / "ailing"
        self.place.mkdir()
        self.image.write_bytes(bytes(8 << 20))
        self._run("mkfs.ext4", "-q", self.image)
        self.mount()

    def mount(self) -> None:
        self._run("mount", "-o", "loop,errors=remount-ro", self.image, self.place)

    def fail(self) -> None:
        device = subprocess.run(["findmnt", "-no", "SOURCE", self.place], capture_output=True, text=True, check=True)
        Path("/sys/fs/ext4", Path(device.stdout.strip()).name, "trigger_fs_error").write_text("1")

    def repair(self) -> None:
        self._run("umount", self.place)
        assert subprocess.run(["e2fsck", "-fy", self.image], capture_output=True).returncode in (0, 1)
        self.mount()

    @staticmethod
    def _run(*words: str | Path) -> None:
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{words[0]} does not work here: {done.stderr.strip()}")


@pytest.fixture
def ailing(tmp_path: Path) -> Iterator[Ailing]:
    made = Ailing(tmp_path)
    yield made
    subprocess.run(["umount", "-l", made.place], check=True)


@pytest.mark.debian("mkfs.ext4")
@pytest.mark.parametrize("size", [500, 300_000])
def test_a_file_system_that_turns_read_only_refuses_and_what_was_promised_is_there_after_its_repair(
    size: int, ailing: Ailing
) -> None:
    spool = Spool(ailing.place / "spool", free_floor=0)
    kept(spool.promise(draft(spool, b"x" * size, "M1"), ENVELOPE))
    under_way = draft(spool, b"y" * size, "M2")
    ailing.fail()
    assert refused(spool.promise(under_way, ENVELOPE)).errno in (errno.EROFS, errno.EIO)
    assert refused(spool.promise(draft(spool, id="M3"), ENVELOPE)).errno in (errno.EROFS, errno.EIO)
    with pytest.raises(OSError):
        draft(spool, b"x" * 300_000)
    assert spool.stop(5)
    ailing.repair()
    assert set(imported(ailing.place / "spool")) == {"M1"}
    spool = Spool(ailing.place / "spool", free_floor=0)
    kept(spool.promise(draft(spool, b"z" * size, "M4"), ENVELOPE))
    assert spool.stop(5)
    assert set(imported(ailing.place / "spool")) == {"M4"}


@pytest.mark.debian("mkfs.ext4")
def test_a_queue_on_a_file_system_that_turns_read_only_keeps_what_it_has_and_takes_no_more(ailing: Ailing) -> None:
    queue = SqliteQueue(ailing.place / "queue.db")
    queue.add([stored("M1")], "s", 1, NOW)
    (parcel,) = queue.claim("maildir:m", 1, NOW, 60)
    ailing.fail()
    with pytest.raises((OSError, Unreadable)):
        queue.add([stored("M2")], "s", 2, NOW)
    with pytest.raises((OSError, Unreadable)):
        queue.settle(parcel, [Outcome(0, Result.DELIVERED, at=NOW)], [], NOW)
    queue.close()
    ailing.repair()
    queue = SqliteQueue(ailing.place / "queue.db")
    assert queue.offset("s") == 1
    assert [one.message_id for one in queue.claim("maildir:m", 9, NOW + 61, 60)] == ["M1"]
    queue.close()


def stored(id: str) -> tuple[Message, list[Stop]]:
    return Message(id, ENVELOPE, b"", Body(5, b"hello")), to_one_maildir(ENVELOPE)


def test_a_limit_on_file_size_is_an_error_like_any_other(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes writes stop half-way and then fail, without a file system of its own."""
    script = f"""
import resource, signal
from pathlib import Path
from relay.mail import Body, Message, Outcome, Result, Stop
from relay.queue_reader import Unreadable
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from tests.support.spooling import ENVELOPE, draft
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
spool = Spool({os.fspath(tmp_path / "spool")!r})
for number in range(30):
    ticket = spool.promise(draft(spool, b"x" * 9_000, f"M{{number}}"), ENVELOPE)
    assert ticket.wait(10)
    print(f"M{{number}}", "kept" if ticket.outcome is None else "refused", flush=True)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    promised = {line.split()[0] for line in told.stdout.splitlines() if line.endswith("kept")}
    assert 0 < len(promised) < 30
    assert set(imported(tmp_path / "spool")) == promised


def test_an_intake_onto_a_full_disk_says_so_once_and_goes_on_by_itself(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every two seconds it wrote a traceback."""
    caplog.set_level(logging.INFO, logger="relay")
    queue = SqliteQueue(small / "queue.db")
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    spool = Spool(tmp_path / "spool")
    intake = Intake(tmp_path / "spool", queue, to_one_maildir, spool=spool, clock=lambda: NOW)
    for number in range(3):
        kept(spool.promise(draft(spool, b"x" * 200_000, f"M{number}"), ENVELOPE))
    assert not any(intake._try(intake.import_all) for _ in range(3))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", small], check=True)
    assert intake._try(intake.import_all)
    assert len(queue.claim("maildir:m", 10, NOW, 60)) == 3
    said = [(one.levelname, one.getMessage(), one.exc_info) for one in caplog.records if one.name == "relay.intake"]
    where = tmp_path / "spool"
    assert [(level, words) for level, words, _ in said] == [
        ("ERROR", f"intake to {where} failed, nothing is lost: database or disk is full"),
        ("INFO", f"intake to {where} goes on"),
    ]
    assert not said[0][2], "a full disk is no mistake of the program's"
    intake.stop(5)
    assert spool.stop(5)
    queue.close()
