"""Whatever happens to the bytes of a segment, the good records are imported and nothing unread is deleted."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from relay import segment
from relay.spool import Spool
from tests.support.spooling import ENVELOPE, draft, imported, kept

COUNT = 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, list[tuple[int, int]]]:
    """A segment with five small messages: its file name, its bytes, and where each record begins and ends."""
    folder = tmp_path_factory.mktemp("whole")
    spool = Spool(folder / "spool")
    for number in range(COUNT):
        kept(spool.promise(draft(spool, b"content %d\r\n" % number, f"M{number}"), ENVELOPE))
    assert spool.stop(5)
    (path,) = (folder / "spool").glob("*.seg")
    data = path.read_bytes()
    records = [
        (one.start, one.end)
        for one in segment.scan(lambda size, at: data[at : at + size], b"", segment.HEADER_SIZE, len(data))
        if isinstance(one, segment.Record)
    ]
    assert len(records) == COUNT and records[-1][1] == len(data)
    return path.name, data, records


def recovered(folder: Path, name: str, data: bytes) -> set[str]:
    (folder / "spool").mkdir(parents=True)
    (folder / "spool" / name).write_bytes(data)
    (folder / "spool" / f"{name.partition('-')[0]}.lock").touch()
    return set(imported(folder / "spool"))


def aside(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "aside").glob("*")))


def test_cut_at_every_byte_all_whole_records_are_imported_and_the_rest_is_kept(
    whole: tuple[str, bytes, list[tuple[int, int]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, data, records = whole
    for length in range(len(data) + 1):
        folder = tmp_path / str(length)
        caplog.clear()
        found = recovered(folder, name, data[:length])
        good = [n for n, (_, end) in enumerate(records) if end <= length]
        assert found == {f"M{n}" for n in good}, f"cut at {length}"
        begin = records[good[-1]][1] if good else segment.HEADER_SIZE
        if length > begin:
            assert aside(folder).endswith(data[begin:length]), f"cut at {length}"
            assert "never promised" in caplog.text or "no readable header" in caplog.text
        else:
            assert not (folder / "aside").exists()
        assert [path.name for path in (folder / "spool").iterdir()] == []


@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x80])
def test_damaged_at_every_byte_only_the_damaged_record_is_lost_and_the_segment_is_kept(
    flip: int, whole: tuple[str, bytes, list[tuple[int, int]]], tmp_path: Path
) -> None:
    name, data, records = whole
    logging.disable(logging.CRITICAL)
    try:
        for at in range(len(data)):
            bad = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            folder = tmp_path / str(at)
            found = recovered(folder, name, bad)
            hit = {f"M{n}" for n, (start, end) in enumerate(records) if start <= at < end}
            missing = {f"M{n}" for n in range(COUNT)} - found
            assert missing <= hit, f"damage at {at}"
            if missing:
                start, end = records[int(missing.pop()[1:])]
                assert bad[start:end] in aside(folder), f"damage at {at}: unread bytes are gone"
    finally:
        logging.disable(logging.NOTSET)


def test_a_hole_over_several_records_costs_those_alone(
    whole: tuple[str, bytes, list[tuple[int, int]]], tmp_path: Path
) -> None:
    name, data, records = whole
    start, end = records[1][0] + 3, records[2][1] - 3
    found = recovered(tmp_path, name, data[:start] + bytes(end - start) + data[end:])
    assert found == {"M0", "M3", "M4"}
    assert (tmp_path / "aside" / name).exists()


def test_content_that_looks_like_a_record_is_content(tmp_path: Path) -> None:
    inner = (
        segment.header(bytes(16)) + bytes(16) + segment.lead("FORGED", b"E", b"", 4, b"mail") + b"mail" + segment.END
    )
    spool = Spool(tmp_path / "spool")
    kept(spool.promise(draft(spool, inner, "M1"), ENVELOPE))
    kept(spool.promise(draft(spool, inner, "M2"), ENVELOPE))
    assert spool.stop(5)
    (path,) = (tmp_path / "spool").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[segment.HEADER_SIZE + 30] ^= 1
    path.write_bytes(data)
    assert set(imported(tmp_path / "spool")) == {"M2"}


def test_a_record_longer_than_what_is_read_at_a_time_is_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    large = draft(spool, b"x", "LARGE")
    large.trace = b"X-Long: " + os.urandom(3 << 20)
    for one in (draft(spool, b"a", "M1"), large, draft(spool, b"b", "M2")):
        kept(spool.promise(one, ENVELOPE))
    assert spool.stop(5)
    assert set(imported(tmp_path / "spool")) == {"M1", "LARGE", "M2"}


def test_a_body_without_its_record_is_removed_and_a_record_without_its_body_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool")
    for id in ("M1", "M2"):
        kept(spool.promise(draft(spool, b"x" * 300_000, id), ENVELOPE))
    bodies = tmp_path / "spool" / "bodies"
    (bodies / f"{spool.name}-STRAY").write_bytes(b"never promised")
    (bodies / f"{spool.name}-M1").unlink()
    assert spool.stop(5)
    assert set(imported(tmp_path / "spool")) == {"M2"}
    assert list(bodies.iterdir()) == []
    assert "message M1 can't be imported" in caplog.text and b"bob@example.test" in aside(tmp_path)
