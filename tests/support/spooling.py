"""A spool to try: a disk that fails on order, drafts, and everything that intake finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relay.disk import Disk
from relay.intake import Intake
from relay.mail import Parcel, Stop
from relay.queue_memory import MemoryQueue
from relay.spool import Spool
from smtpd_core.draft import Draft
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
