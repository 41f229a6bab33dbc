"""A segment's bytes: a header with a random mark, then records, each findable by that mark and proven by a checksum.

    segment = HEADER record*                 HEADER = magic, version, mark (16 random bytes), checksum
    record  = mark, length, checksum, HEAD, id, envelope, trace, content, END

The mark is random for every segment, so no content can contain it by intent. Where a record does not prove good the
scan looks for the next mark with a good record behind it: if there is one, what lies between is damage; if there is
none, it is a tail that was never promised.
Not here: when to sync and what to delete (spool, intake).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zlib import crc32

from smtpd_core.wire.envelope import Envelope

_MAGIC = b"smtpspool\x01"
_HEADER = struct.Struct("<10s16sI")
HEADER_SIZE = _HEADER.size

_PREFIX = struct.Struct("<II")  # length of what follows up to END, its checksum
_HEAD = struct.Struct("<BBIIQ16s")  # id length, kind, envelope length, trace length, body size, resend key
END = b"\nend"

INLINE, IN_FILE = 0, 1  # kinds: the content follows, or is in the body file named by the id

# May be added to a kind, by whoever brings a message from another queue: an operator held it; somebody tried it before.
HELD, TRIED = 2, 4

_BEFORE = 16 + _PREFIX.size
_SMALLEST = _BEFORE + _HEAD.size + len(END)

# A record may be as long as content in memory (256 KiB) plus an envelope of some ten thousand recipients. What would be
# longer is not promised; so a length beyond this is damage, and is not worth reading that far for.
MAX_RECORD = 16 << 20

# How much is read at a time: a few hundred small records.
WINDOW = 1 << 20

NO_KEY = bytes(16)


@dataclass(slots=True)
class Record:
    """One message as it lies in a segment. `end` is the offset behind it. `content` is None for a body in a file.
    `unpacked` is the envelope where it was at hand."""

    id: str
    envelope: bytes
    trace: bytes
    size: int
    content: bytes | None
    resend_key: bytes
    start: int
    end: int
    unpacked: Envelope | None = None
    is_held: bool = False
    was_tried: bool = False


@dataclass(slots=True)
class Damage:
    """Bytes [start, end) of a segment that can't be read. `is_tail`: nothing good lies behind them."""

    start: int
    end: int
    is_tail: bool
    why: str


def new_mark() -> bytes:
    return os.urandom(16)


def header(mark: bytes) -> bytes:
    """The first bytes of a segment."""
    return _HEADER.pack(_MAGIC, mark, crc32(_MAGIC + mark))


def mark_of(first: bytes) -> bytes | None:
    """The mark that a segment's first bytes name, None where they are no good header."""
    if len(first) < HEADER_SIZE:
        return None
    magic, mark, checksum = _HEADER.unpack_from(first)
    return mark if magic == _MAGIC and checksum == crc32(_MAGIC + mark) else None


def lead(
    id: str, envelope: bytes, trace: bytes, size: int, content: bytes | None, key: bytes = NO_KEY, besides: int = 0
) -> bytes:
    """What stands between the mark and the content of a record; the content and END follow it. `besides` is HELD, TRIED
    or both."""
    name = id.encode("ascii")
    kind = (INLINE if content is not None else IN_FILE) | besides
    rest = b"".join((_HEAD.pack(len(name), kind, len(envelope), len(trace), size, key), name, envelope, trace))
    if content is None:
        return _PREFIX.pack(len(rest), crc32(rest)) + rest
    return _PREFIX.pack(len(rest) + len(content), crc32(content, crc32(rest))) + rest


def record_size(lead_bytes: bytes, content: bytes | None) -> int:
    """How long the whole record will be."""
    return 16 + len(lead_bytes) + (len(content) if content is not None else 0) + len(END)


def is_too_long(lead_bytes: bytes, content: bytes | None) -> bool:
    """Whether nobody would read this record back."""
    return record_size(lead_bytes, content) > _BEFORE + MAX_RECORD + len(END)


def parse(data: bytes, at: int, base: int) -> Record | str:
    """The record at data[at:], where data[0] is at offset `base` of the segment; else why it is none.

    The mark itself is not looked at: at the end of a good record the next one is proven by its checksum alone.
    """
    if len(data) - at < _SMALLEST:
        return "short"
    length, checksum = _PREFIX.unpack_from(data, at + 16)
    begin = at + _BEFORE
    end = begin + length
    if length > MAX_RECORD or length < _HEAD.size:
        return "impossible length"
    if end + len(END) > len(data):
        return "short"
    if data[end : end + len(END)] != END:
        return "no end mark"
    view = memoryview(data)
    if crc32(view[begin:end]) != checksum:
        return "wrong checksum"
    name, kind, envelope, trace, size, key = _HEAD.unpack_from(data, begin)
    id_at = begin + _HEAD.size
    envelope_at = id_at + name
    trace_at = envelope_at + envelope
    content_at = trace_at + trace
    is_inline = not kind & IN_FILE
    if content_at > end or kind > IN_FILE | HELD | TRIED or (is_inline and content_at + size != end):
        return "lengths that disagree"
    return Record(
        id=data[id_at:envelope_at].decode("ascii", "replace"),
        envelope=data[envelope_at:trace_at],
        trace=data[trace_at:content_at],
        size=size,
        content=data[content_at:end] if is_inline else None,
        resend_key=key,
        start=base + at,
        end=base + end + len(END),
        is_held=bool(kind & HELD),
        was_tried=bool(kind & TRIED),
    )


Pread = Callable[[int, int], bytes]  # (length, offset) -> bytes, fewer only at the end of the file


def scan(pread: Pread, mark: bytes, start: int, stop: int) -> Iterator[Record | Damage]:
    """Records and damage of [start, stop) in order; together they cover it all. OSError comes out of `pread`."""
    at = start
    while at < stop:
        window = min(WINDOW, stop - at)
        data = pread(window, at)
        used = 0
        why = "short"
        while used < len(data):
            found = parse(data, used, at)
            if isinstance(found, str):
                why = found
                break
            yield found
            used = found.end - at
        at += used
        if at >= stop:
            return
        if why == "short":
            if used:
                continue  # the window cut it; read on from its start
            found = _parse_long(pread, at, stop)
            if isinstance(found, Record):
                yield found
                at = found.end
                continue
            why = found
        end = _next_good(pread, mark, at + 1, stop)
        yield Damage(at, stop if end is None else end, end is None, why)
        at = stop if end is None else end


def _parse_long(pread: Pread, at: int, stop: int) -> Record | str:
    """The record at `at`, however long it says it is."""
    before = pread(_BEFORE, at)
    if len(before) < _BEFORE:
        return "short"
    length = _PREFIX.unpack_from(before, 16)[0]
    if length > MAX_RECORD or at + _BEFORE + length + len(END) > stop:
        return "cut short"
    return parse(pread(_BEFORE + length + len(END), at), 0, at)


def _next_good(pread: Pread, mark: bytes, start: int, stop: int) -> int | None:
    """The offset of the next mark in [start, stop) with a good record behind it."""
    at = start
    while mark and at < stop:
        data = pread(min(WINDOW, stop - at), at)
        if not data:
            return None
        place = data.find(mark)
        while place >= 0:
            if isinstance(_parse_long(pread, at + place, stop), Record):
                return at + place
            place = data.find(mark, place + 1)
        at += max(len(data) - len(mark) + 1, 1)
    return None
