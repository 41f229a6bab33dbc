"""What the disk could not keep is refused, leaves nothing behind, and the spool goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay.disk import Disk
from relay.spool import Spool
from smtpd_core.draft import MEMORY_LIMIT
from smtpd_core.threads import Ticket
from tests.support.spooling import ENVELOPE, FaultyDisk, draft, imported, kept, refused


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def spool(tmp_path: Path, disk: FaultyDisk) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", disk=disk)
    yield made
    assert made.stop(5)


def test_a_failing_sync_is_never_a_promise_and_the_descriptor_is_not_synced_again(
    spool: Spool, disk: FaultyDisk, tmp_path: Path
) -> None:
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    disk.faults["sync"] = [OSError(errno.EIO, "I/O error")]
    assert refused(spool.promise(draft(spool, id="M2"), ENVELOPE)).errno == errno.EIO
    kept(spool.promise(draft(spool, id="M3"), ENVELOPE))
    assert spool.position.number == 2
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M3"]


@pytest.mark.parametrize("also", ["truncate", "rename", "sync_directory"])
def test_a_suspect_segment_is_never_imported_beyond_what_was_synced(
    also: str, spool: Spool, disk: FaultyDisk, tmp_path: Path
) -> None:
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    disk.faults = {"sync": [OSError(errno.EIO, "I/O error")], also: [OSError(errno.EIO, "I/O error")]}
    refused(spool.promise(draft(spool, id="M2"), ENVELOPE))
    kept(spool.promise(draft(spool, id="M3"), ENVELOPE))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M3"]


def test_a_full_disk_refuses_leaves_nothing_behind_and_the_spool_goes_on(
    spool: Spool, disk: FaultyDisk, tmp_path: Path
) -> None:
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    disk.faults["append"] = [OSError(errno.ENOSPC, "No space left")]
    assert refused(spool.promise(draft(spool, id="M2"), ENVELOPE)).errno == errno.ENOSPC
    kept(spool.promise(draft(spool, id="M3"), ENVELOPE))
    assert spool.position.number == 1
    assert sorted(imported(tmp_path / "spool", spool)) == ["M1", "M3"]


def test_a_write_that_stops_half_way_goes_on_or_is_cut_back(spool: Spool, disk: FaultyDisk, tmp_path: Path) -> None:
    class Half(FaultyDisk):
        def append(self, descriptor: int, pieces: Sequence[bytes]) -> int:
            self._fault("append")
            whole = b"".join(pieces)
            return os.write(descriptor, whole[: len(whole) // 2 + 1])

    other = Half()
    halved = Spool(tmp_path / "other", disk=other)
    header = halved.promise(draft(halved, id="M0"), ENVELOPE)  # not even the header fits in one write: refused
    refused(header)
    other.append = Disk.append.__get__(other)  # type: ignore[method-assign]
    kept(halved.promise(draft(halved, id="M1"), ENVELOPE))
    other.append = Half.append.__get__(other)  # type: ignore[method-assign]
    kept(halved.promise(draft(halved, id="M2"), ENVELOPE))
    other.faults["append"] = [None, None, OSError(errno.ENOSPC, "No space left")]
    refused(halved.promise(draft(halved, id="M3"), ENVELOPE))
    kept(halved.promise(draft(halved, id="M4"), ENVELOPE))
    assert halved.stop(5)
    assert sorted(imported(tmp_path / "other")) == ["M1", "M2", "M4"]


@pytest.mark.parametrize("call", ["sync", "sync_directory"])
def test_a_large_body_that_cant_be_kept_is_refused_and_leaves_no_file(
    call: str, spool: Spool, disk: FaultyDisk, tmp_path: Path
) -> None:
    disk.faults[call] = [OSError(errno.EIO, "I/O error")]
    refused(spool.promise(draft(spool, b"x" * 300_000), ENVELOPE))
    assert list((tmp_path / "spool" / "bodies").iterdir()) == []


def test_a_withdrawn_message_is_not_kept(spool: Spool, disk: FaultyDisk, tmp_path: Path) -> None:
    ticket = Ticket()
    ticket.withdraw()
    for content in (b"small", b"x" * 300_000):
        late = draft(spool, content)
        entry = spool.promise(late, ENVELOPE)
        gave_up = entry.withdraw()
        kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
        found = imported(tmp_path / "spool", spool)
        assert (late.id in found) is not gave_up


def test_a_large_body_that_fails_in_an_unforeseen_way_holds_up_no_other(
    spool: Spool, disk: FaultyDisk, tmp_path: Path
) -> None:
    large = b"x" * (MEMORY_LIMIT + 1)
    disk.faults["sync"] = [MemoryError("no room for that")]  # type: ignore[list-item]
    assert refused(spool.promise(draft(spool, large, id="M1"), ENVELOPE)).errno == errno.EIO
    kept(spool.promise(draft(spool, large, id="M2"), ENVELOPE))
    assert sorted(imported(tmp_path / "spool", spool)) == ["M2"]
