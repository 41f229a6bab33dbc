"""Intake takes from memory what its own spool synced last, and from the segment all that is not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from relay import segment
from relay.fresh import Fresh
from relay.intake import Intake
from relay.mail import Message, Stop
from relay.queue_memory import MemoryQueue
from relay.spool import Spool
from relay.spool_files import Position
from tests.support.spooling import ENVELOPE, NOW, draft, kept, to_one_maildir


class Scene:
    """A living spool with its intake, stepped by hand."""

    def __init__(self, folder: Path, queue: MemoryQueue | None = None, **words: int) -> None:
        self.queue = queue or MemoryQueue()
        self.spool = Spool(folder / "spool", **words)
        self.intake = Intake(folder / "spool", self.queue, to_one_maildir, spool=self.spool, clock=lambda: NOW)

    def keep(self, *ids: str, size: int = 50) -> None:
        for id in ids:
            kept(self.spool.promise(draft(self.spool, os.urandom(size), id), ENVELOPE))

    @property
    def segments(self) -> list[Path]:
        return sorted(Path(self.spool.directory).glob("*.seg"))

    def imported(self) -> list[str]:
        self.intake.import_new()
        return sorted(one.message_id for one in self.queue.claim("maildir:m", 1000, NOW, 60))


def test_what_was_synced_last_is_not_read_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.keep("M1", "M2")
    scene.keep("LARGE", size=300_000)
    with scene.segments[0].open("r+b") as file:  # from now on the file holds nothing that can be read
        file.seek(segment.HEADER_SIZE)
        file.write(bytes(scene.spool.position.offset - segment.HEADER_SIZE))
    assert scene.imported() == ["LARGE", "M1", "M2"]
    scene.keep("M3")
    assert scene.imported() == ["M3"]
    assert scene.imported() == []
    assert scene.spool.stop(5)


def test_it_is_the_same_as_what_lies_in_the_segment(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.keep("M1", "M2", size=5000)
    scene.keep("LARGE", size=300_000)
    assert scene.spool.fresh is not None
    fresh = scene.spool.fresh.take(1)
    data = scene.segments[0].read_bytes()
    for one, read in zip(
        fresh,
        segment.scan(lambda n, at: data[at : at + n], data[10:26], segment.HEADER_SIZE, len(data)),
        strict=True,
    ):
        assert one.unpacked == ENVELOPE
        one.unpacked = None
        assert one == read
    assert scene.imported() == ["LARGE", "M1", "M2"]
    assert scene.spool.stop(5)


def test_what_became_too_much_is_read_from_the_segment(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.spool.fresh = Fresh(3000)
    ids = [f"M{n}" for n in range(10)]
    scene.keep(*ids, size=1000)
    assert scene.imported() == ids
    assert scene.spool.stop(5)


def test_a_segment_that_was_closed_meanwhile_is_imported_whole(tmp_path: Path) -> None:
    scene = Scene(tmp_path, segment_size=5000)
    ids = [f"M{n}" for n in range(9)]
    scene.keep(*ids, size=2000)
    assert len(scene.segments) > 2
    assert scene.imported() == ids
    assert len(scene.segments) == 1
    assert scene.spool.stop(5)


def test_what_the_queue_did_not_take_is_read_again(tmp_path: Path) -> None:
    class Failing(MemoryQueue):
        fails = True

        def add(self, batch: Sequence[tuple[Message, Sequence[Stop]]], source: str, offset: int, now: float) -> None:
            if self.fails:
                raise OSError("the disk is full")
            super().add(batch, source, offset, now)

    queue = Failing()
    scene = Scene(tmp_path, queue)
    scene.keep("M1", "M2")
    with pytest.raises(OSError):
        scene.intake.import_new()
    scene.keep("M3")
    queue.fails = False
    assert scene.imported() == ["M1", "M2", "M3"]
    assert scene.spool.stop(5)


def test_a_segment_that_ends_while_intake_looks_is_not_cut_at_the_next_ones_offset(tmp_path: Path) -> None:
    """The number was of one segment and the offset of the next: a record in two was taken for a tail and lost."""

    class Ending(Spool):
        """Its segment ends, and the next one is synced up to some place, between two looks."""

        ends, looks = False, 0

        @property
        def position(self) -> Position:
            real = super().position
            self.looks += 1
            return Position(real.number + 1, 700) if self.ends and self.looks > 1 else real

    spool = Ending(tmp_path / "spool")
    queue = MemoryQueue()
    intake = Intake(tmp_path / "spool", queue, to_one_maildir, spool=spool, clock=lambda: NOW)
    kept(spool.promise(draft(spool, id="M0"), ENVELOPE))
    assert intake.import_new() == 1
    spool.fresh = None  # it became too much, so that the segment is read
    for id in ("M1", "M2", "M3"):
        kept(spool.promise(draft(spool, os.urandom(400), id), ENVELOPE))
    spool.looks, spool.ends = 0, True
    intake.import_new()
    spool.ends = False
    intake.import_new()
    assert sorted(one.message_id for one in queue.claim("maildir:m", 9, NOW, 60)) == ["M0", "M1", "M2", "M3"]
    assert not (tmp_path / "aside").exists()
    assert spool.stop(5)
