"""A real file system that is full, read-only, or too small for a message: it is refused, and life goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.spool import Spool
from relay.spool_files import segment_path
from tests.support.spooling import ENVELOPE, draft, imported, kept, refused


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


def test_a_remount_to_read_only_refuses_what_can_no_longer_be_kept(small: Path) -> None:
    spool = Spool(small / "spool", free_floor=0, segment_size=100)
    kept(spool.promise(draft(spool, b"x" * 500, "M1"), ENVELOPE))
    if subprocess.run(["mount", "-o", "remount,ro", small], capture_output=True).returncode:
        pytest.skip("this system does not remount a file system with open files")
    assert refused(spool.promise(draft(spool), ENVELOPE)).errno in (errno.EROFS, errno.EIO)
    subprocess.run(["mount", "-o", "remount,rw", small], check=True)
    kept(spool.promise(draft(spool, id="M2"), ENVELOPE))
    assert spool.stop(5)
    assert set(imported(small / "spool")) == {"M1", "M2"}


def test_a_limit_on_file_size_is_an_error_like_any_other(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes writes stop half-way and then fail, without a file system of its own."""
    script = f"""
import resource, signal
from pathlib import Path
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
