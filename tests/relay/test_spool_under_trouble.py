"""Trouble beside the disk's own: what a promise said stays so, and whoever waits hears something."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from relay import segment
from relay.envelope_form import pack
from relay.intake import Intake
from relay.queue_memory import MemoryQueue
from relay.resends import Resends
from relay.spool import Durability, Spool
from smtpd_core.threads import Mailbox, Ticket
from smtpd_core.wire.envelope import Envelope, Recipient
from tests.support.spooling import ENVELOPE, NOW, FaultyDisk, draft, imported, kept, refused, to_one_maildir

LETTER = b"Message-ID: <1@example.test>\r\n\r\nhello\r\n"


class NoRemoving(FaultyDisk):
    """Read-only from the first fault on, as after a remount."""

    def remove(self, path: str) -> None:
        self._fault("remove")
        super().remove(path)


@pytest.mark.parametrize("call", ["sync", "append"])
def test_a_body_that_cant_be_removed_either_is_refused_and_the_spool_goes_on(call: str, tmp_path: Path) -> None:
    """The second failure ended the loop, and every client behind it waited for ever."""
    disk = NoRemoving()
    spool = Spool(tmp_path / "spool", disk=disk)
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    error = OSError(errno.EROFS, "Read-only file system")
    disk.faults = {call: [error, error], "remove": [error, error, error]}
    assert refused(spool.promise(draft(spool, b"x" * 300_000, "M2"), ENVELOPE)).errno == errno.EROFS
    disk.faults = {}
    kept(spool.promise(draft(spool, b"x" * 300_000, "M3"), ENVELOPE))
    kept(spool.promise(draft(spool, id="M4"), ENVELOPE))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M3", "M4"]


def test_a_watcher_that_raises_takes_nothing_back_and_holds_nobody_up(tmp_path: Path) -> None:
    """After the sync the message is promised, whatever becomes of those who are told: its body was removed."""
    spool = Spool(tmp_path / "spool", disk=FaultyDisk())
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))

    def raises(ticket: Ticket) -> None:
        raise RuntimeError("a mistake of whoever waits")

    tickets = []
    for number in range(2, 6):
        ticket = spool.promise(draft(spool, b"x" * 300_000, f"M{number}"), ENVELOPE)
        if number == 2 and not ticket.is_resolved:
            ticket.watch(raises)
        tickets.append(ticket)
    for ticket in tickets[1:]:
        kept(ticket)
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2", "M3", "M4", "M5"]


def test_an_announcement_that_fails_takes_nothing_back(tmp_path: Path) -> None:
    def fails() -> None:
        raise RuntimeError("no intake")

    spool = Spool(tmp_path / "spool", disk=FaultyDisk(), announce=fails)
    kept(spool.promise(draft(spool, b"x" * 300_000, "M1"), ENVELOPE))
    kept(spool.promise(draft(spool, id="M2"), ENVELOPE))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2"]


@pytest.mark.parametrize("durability", [Durability.WRITTEN, Durability.MEMORY])
@pytest.mark.parametrize("size", [5, 300_000])
def test_what_was_answered_before_the_sync_goes_to_a_fresh_segment_where_the_sync_fails(
    durability: Durability, size: int, tmp_path: Path
) -> None:
    """Its 250 is out: the process lives, so the message may not be dropped with the suspect segment."""
    disk = FaultyDisk()
    synced: Mailbox[None] = Mailbox()
    spool = Spool(
        tmp_path / "spool", disk=disk, durability_of=lambda envelope: durability, announce=lambda: synced.put(None)
    )
    for id in ("M1", "M2"):
        kept(spool.promise(draft(spool, id=id), ENVELOPE))
        assert synced.wait(5)
    disk.faults["sync"] = [None, OSError(errno.EIO, "I/O error")] if size > 1000 else [OSError(errno.EIO, "I/O error")]
    kept(spool.promise(draft(spool, b"x" * size, "M3"), ENVELOPE))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == ["M1", "M2", "M3"]


def test_a_segment_that_cant_be_opened_holds_up_no_other_spool(tmp_path: Path) -> None:
    """All that came after it by name, the living spool included, waited for ever."""
    spool = Spool(tmp_path / "spool")
    kept(spool.promise(draft(spool, id="M1"), ENVELOPE))
    (tmp_path / "spool" / "000000000000000-00000001.seg").symlink_to(tmp_path / "nowhere")
    queue = MemoryQueue()
    intake = Intake(tmp_path / "spool", queue, to_one_maildir, spool=spool, clock=lambda: NOW)
    with pytest.raises(FileNotFoundError):
        intake.import_all()
    assert [one.message_id for one in queue.claim("maildir:m", 9, NOW, 60)] == ["M1"]
    assert spool.stop(5)


def resending(folder: Path) -> tuple[Spool, Resends]:
    resends = Resends(lambda: NOW, applies=lambda envelope: True)
    return Spool(folder / "spool", disk=FaultyDisk(), resends=resends), resends


def test_a_copy_of_a_large_message_that_was_withdrawn_does_not_wait_for_it(tmp_path: Path) -> None:
    spool, _resends = resending(tmp_path)
    content = LETTER + b"x" * 300_000
    for number in range(1, 40):
        if spool.promise(draft(spool, content, f"M{number}"), ENVELOPE).withdraw():
            break
        content += b"y"
    kept(spool.promise(draft(spool, id="NEXT"), ENVELOPE))
    again = spool.promise(draft(spool, content, "AGAIN"), ENVELOPE)
    assert again.wait(5)
    assert spool.stop(5)


def test_a_copy_of_a_message_that_could_not_be_packed_does_not_wait_for_it(tmp_path: Path) -> None:
    spool, _ = resending(tmp_path)
    broken = Envelope(ENVELOPE.sender, ENVELOPE.recipients, origin=ENVELOPE.origin, arrived=None)  # type: ignore[arg-type]
    bad = draft(spool, LETTER, "no-ascii-\xe9")
    with pytest.raises(ValueError):
        spool.promise(bad, broken)
    kept(spool.promise(draft(spool, LETTER, "M2"), ENVELOPE))
    assert spool.stop(5)


def of_length(envelope: Envelope, length: int) -> Envelope:
    """One more recipient, so that the packed envelope is so long."""
    return replace(envelope, recipients=(*envelope.recipients, Recipient("a" * (length - len(pack(envelope)) - 3))))


@pytest.mark.parametrize("too_much", [0, 1])
def test_what_recovery_could_not_read_is_not_promised(too_much: int, tmp_path: Path) -> None:
    """A record of 20 MB, of 40 000 recipients, got its 250; the next start cut it off as damage."""
    spool = Spool(tmp_path / "spool", disk=FaultyDisk())
    content = draft(spool, b"hello", "LONG")
    frame = segment.record_size(segment.lead("LONG", b"", content.trace, content.size, b"hello"), b"hello")
    longest = segment.MAX_RECORD + 28 - frame  # what is counted lies between 24 bytes and 4
    ticket = spool.promise(content, of_length(ENVELOPE, longest + too_much))
    if too_much:
        assert refused(ticket).errno == errno.EMSGSIZE
    else:
        kept(ticket)
    kept(spool.promise(draft(spool, id="M2"), ENVELOPE))
    assert spool.stop(5)
    assert sorted(imported(tmp_path / "spool")) == (["M2"] if too_much else ["LONG", "M2"])
