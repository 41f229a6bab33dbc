"""BDAT (RFC 3030): the octets of every chunk are consumed, whatever the verdict, and never read as commands.

    legal, accepted      the octets are content; 250 after each chunk, the message's verdict after LAST
    legal, refused       the octets are swallowed, and so are those of all chunks up to LAST, each with the same reply
    a word but LAST      501, and then as a refused chunk: a message without one of its chunks is never taken
    out of order         the octets are swallowed, then 503 or 530; nothing else changes. 502 where there is no BDAT
    a count that is none 501 and the end of the dialogue: where commands go on can't be known any more. So for a line
                         that can't be read at all and may be a BDAT (lines.py)

A chunk costs no memory but what was received: the count is a number, never a reservation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smtpd_core.wire import events, replies
from smtpd_core.wire.content import ChunkReader
from smtpd_core.wire.events import NEED_BYTES, Event, Waiting
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import RULES, Phase, out_of_order
from smtpd_core.wire.transaction import content_ends
from smtpd_core.wire.verdict import Verdict

if TYPE_CHECKING:
    from smtpd_core.wire.server import ServerProtocol

_COUNT = re.compile(r"([0-9]{1,20})(?: +(.*))?\Z", re.DOTALL)
_BDAT = next(rule for rule in RULES if rule.verb == "BDAT")


class Chunk:
    """The chunk under way: how many octets are still to come, and why they are not wanted, if so."""

    __slots__ = ("back", "is_clear", "is_last", "left", "octets", "refusal")

    def __init__(self, octets: int, is_last: bool, back: Phase, refusal: Reply | None, is_clear: bool) -> None:
        self.octets = octets
        self.left = octets
        self.is_last = is_last
        self.back = back  # the phase after a chunk that was out of order
        self.refusal = refusal
        self.is_clear = is_clear  # nothing but LAST behind the count


def bdat(p: ServerProtocol, argument: str) -> Event | None:
    return _bdat(p, argument, None)


def bdat_not_served(p: ServerProtocol, argument: str) -> Event | None:
    """The step where CHUNKING is not offered: who sends BDAT all the same sends its octets too."""
    return _bdat(p, argument, replies.not_implemented_502)


def _bdat(p: ServerProtocol, argument: str, refusal: Reply | None) -> Event | None:
    match = _COUNT.match(argument)
    if match is None:
        p.say_and_end(replies.bdat_syntax_501)
        return None
    word = (match[2] or "").upper()
    refusal = refusal or _gate(p) or out_of_order(_BDAT, p.phase)
    p.chunk = Chunk(int(match[1]), word == "LAST", p.phase, refusal, word in ("", "LAST"))
    p.reading = read_chunk
    if refusal is not None:
        return None
    if p.phase is Phase.RECIPIENTS:
        p.verdict = _FIRST
        return events.ContentBegins("BDAT")
    _open(p)
    return None


def _gate(p: ServerProtocol) -> Reply | None:
    settings = p.settings
    if settings.tls_required and not p.tls_is_on:
        return replies.tls_required_530
    if settings.login_required and not p.identity:
        return replies.login_required_530
    return None


def _begin(p: ServerProtocol) -> ChunkReader:
    settings = p.settings
    p.content = reader = ChunkReader(settings.binary if p.parameters.body == "BINARYMIME" else settings.under_bdat)
    p.drop_is_told = False
    return reader


def _open(p: ServerProtocol) -> None:
    p.phase = Phase.CONTENT
    reader, chunk = p.content, p.chunk
    assert isinstance(reader, ChunkReader) and chunk is not None
    if not chunk.is_clear:
        p.errors += 1
    if reader.refusal is None:
        if not chunk.is_clear:
            reader.spoil(replies.bdat_syntax_501)
        elif reader.exceeds(chunk.octets):
            reader.spoil(replies.too_large_552)


def _first_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    _begin(p)
    _open(p)


def _first_refused(p: ServerProtocol, reply: Reply | None) -> None:
    if reply is not None and reply.code == 421:  # the dialogue ends here; nobody waits for the chunk's end
        p.say(reply)
        return
    _begin(p).spoil(reply or replies.refused_550)
    p.drop_is_told = True
    p.phase = Phase.CONTENT


_FIRST = Verdict(_first_accepted, _first_refused)


def read_chunk(p: ServerProtocol) -> Event | Waiting | None:
    """The octets of the chunk under way. Content in bounded pieces: what was received at once."""
    chunk, reader = p.chunk, p.content
    assert chunk is not None
    if chunk.refusal is None:
        assert isinstance(reader, ChunkReader)
        if reader.refusal is not None and not p.drop_is_told:
            p.drop_is_told = True
            return events.ContentDropped(reader.refusal)
    if chunk.left:
        data = p.take_input(chunk.left)
        if not data:
            return NEED_BYTES
        chunk.left -= len(data)
        if chunk.refusal is None:
            assert isinstance(reader, ChunkReader)
            piece = reader.read(data)
            return events.BodyChunk(piece) if piece else None
        return None
    return _finish(p, chunk)


def _finish(p: ServerProtocol, chunk: Chunk) -> Event | None:
    p.chunk = None
    if chunk.refusal is not None:
        p.phase = chunk.back
        p.read_commands()
        return p.complain(chunk.refusal)
    reader = p.content
    assert isinstance(reader, ChunkReader)
    if chunk.is_last:
        piece = reader.finish()
        p.reading = content_ends
        return events.BodyChunk(piece) if piece else None
    p.phase = Phase.CHUNKS
    p.read_commands()
    p.say(reader.refusal or Reply(250, "2.0.0", f"{chunk.octets} octets received"))
    return None
