"""The spool promises after the sync, intake imports once, and what can't be kept is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay.disk import Disk
from relay.intake import Intake
from relay.mail import Parcel, Stop
from relay.queue_memory import MemoryQueue
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from smtpd_core.draft import MEMORY_LIMIT, Draft
from smtpd_core.threads import Ticket
from smtpd_core.wire.envelope import Envelope, Origin, Recipient

NOW = 1_000_000.0
ENVELOPE = Envelope("bob@example.test", (Recipient("ann@example.test"),), origin=Origin("192.0.2.1"), arrived=NOW)


def to_one_maildir(envelope: Envelope) -> list[Stop]:
    return [Stop(number, one, "maildir:m") for number, one in enumerate(envelope.recipients)]


class FaultyDisk(Disk):
    """A disk whose next calls of one kind fail: faults["sync"] = [OSError(...)]; None among them lets one pass."""

    def __init__(self) -> None:
        self.faults: dict[str, list[OSError | None]] = {}
        self.synced: list[int] = []

    def _fault(self, name: str) -> None:
        waiting = self.faults.get(name)
        if waiting and (error := waiting.pop(0)) is not None:
            raise error

    def append(self, descriptor: int, pieces: Sequence[bytes]) -> int:
        self._fault("append")
        return super().append(descriptor, pieces)

    def sync(self, descriptor: int) -> None:
        self._fault("sync")
        super().sync(descriptor)

    def sync_directory(self, path: str) -> None:
        self._fault("sync_directory")
        super().sync_directory(path)

    def truncate(self, descriptor: int, size: int) -> None:
        self._fault("truncate")
        super().truncate(descriptor, size)

    def rename(self, source: str, path: str) -> None:
        self._fault("rename")
        super().rename(source, path)

    def free(self, path: str) -> int:
        return 1 << 40


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def spool(tmp_path: Path, disk: FaultyDisk) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", disk=disk)
    yield made
    made.stop(5)


def draft(spool: Spool, content: bytes = b"hello\r\n", id: str = "") -> Draft:
    made = Draft(spool.drafts, id=id)
    made.trace = b"Received: by mx\r\n"
    made.append(content)
    return made


def kept(ticket: Ticket) -> None:
    assert ticket.wait(10)
    assert ticket.outcome is None, ticket.outcome


def refused(ticket: Ticket) -> OSError:
    assert ticket.wait(10)
    assert isinstance(ticket.outcome, OSError)
    return ticket.outcome


def imported(folder: Path, spool: Spool | None = None) -> dict[str, tuple[Parcel, bytes]]:
    """Everything that intake finds, by id."""
    queue = MemoryQueue()
    intake = Intake(folder, queue, to_one_maildir, spool=spool, clock=lambda: NOW)
    intake.import_all()
    found = {}
    for parcel in queue.claim("maildir:m", 1_000_000, NOW, 60):
        with queue.open_body(parcel.message_id) as body:
            found[parcel.message_id] = (parcel, body.read())
    return found


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
    spool.stop(5)
    refused(spool.promise(draft(spool), ENVELOPE))
