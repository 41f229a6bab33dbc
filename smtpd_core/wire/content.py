"""Content readers: the end of data found, dots undone, bad octets named; a piece at a time, whole pieces at once.

Only CRLF.CRLF ends content under DATA (RFC 5321 4.1.1.4), and the reader starts at the beginning of a line. A tail that
may belong to the end or to a CRLF is held back until more is known, so that every split gives the same content and the
same verdict: the first violation in the order of octets wins, and what follows it is swallowed.
Scanning is by compiled patterns only; counting line ends and looking for NUL cost less than one pass of `re.sub`.
Not here: when a reader is in charge (server.py); BDAT's counting of octets (chunks.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtpd_core.wire import replies
from smtpd_core.wire.replies import Reply

_DOT = re.compile(rb"\r\n\.").search
_END = re.compile(rb"\r\n\.\r\n").search
_UNDOT = re.compile(rb"\r\n\.").sub
_BARE_LF = re.compile(rb"\n(?<!\r\n)").search
_BARE_CR = re.compile(rb"\r(?!\n)").search
_BARE = re.compile(rb"\r\n|\r|\n")

# RFC 5321 4.5.3.1.6: 1000 octets with CRLF. Kept only where strict_lines is set.
MAX_TEXT_LINE = 998


@dataclass(frozen=True, slots=True)
class ContentRules:
    """What content may hold. `limit` is in octets of content, 0 for none."""

    limit: int = 0
    normalise: bool = False  # bare CR or LF becomes CRLF instead of being refused
    keep_nul: bool = False
    strict_lines: bool = False
    binary: bool = False  # BODY=BINARYMIME: any octets (RFC 3030 3)


class Octets:
    """Judges and counts content whose dots are undone already. Hand it whole CRLFs: no piece ends inside one."""

    __slots__ = ("_column", "refusal", "rules", "size")

    def __init__(self, rules: ContentRules) -> None:
        self.rules = rules
        self.size = 0
        self.refusal: Reply | None = None
        self._column = 0

    def take(self, piece: bytes) -> bytes:
        """What of `piece` is content; b"" once something was refused."""
        if self.refusal is not None:
            return b""
        rules = self.rules
        if (rules.limit and self.size + len(piece) > rules.limit) or (
            not rules.binary and (_BARE_CR(piece) or _BARE_LF(piece) or b"\0" in piece or rules.strict_lines)
        ):
            piece = self._judge(piece)
        self.size += len(piece)
        return piece

    def _judge(self, piece: bytes) -> bytes:
        """The slow path: which violation comes first?"""
        rules = self.rules
        at, refusal = len(piece), None
        if not rules.binary:
            found = []
            if not rules.normalise:
                found += [(m.start(), replies.bare_line_end_550) for m in (_BARE_CR(piece), _BARE_LF(piece)) if m]
            if not rules.keep_nul and b"\0" in piece:
                found.append((piece.index(b"\0"), replies.nul_in_content_550))
            if rules.strict_lines and (long := self._long_line(piece)) >= 0:
                found.append((long, replies.line_too_long_550))
            if found:
                at, refusal = min(found, key=lambda one: one[0])
        if rules.normalise and not rules.binary:
            piece = _BARE.sub(b"\r\n", piece[:at])
            at = len(piece)
        if rules.limit and self.size + at > rules.limit:
            refusal = replies.too_large_552
        self.refusal = refusal
        return b"" if refusal else piece

    def _long_line(self, piece: bytes) -> int:
        """Where the first line that is too long becomes so, or -1."""
        at = 0
        for line in piece.split(b"\n"):
            whole = self._column + len(line)
            if whole - line.endswith(b"\r") > MAX_TEXT_LINE:
                return at + MAX_TEXT_LINE - self._column
            at += len(line) + 1
            self._column = 0
        last = piece.rpartition(b"\n")[2]
        self._column = len(last) if len(last) < len(piece) else whole
        return -1


class DataReader:
    """Content under DATA.

    read() gives content and, once CRLF.CRLF is here, how many octets of the input belong to it; `size` and `refusal`
    are final then.
    """

    __slots__ = ("_held", "_octets", "_virtual")

    def __init__(self, rules: ContentRules) -> None:
        self._octets = Octets(rules)
        self._held = b"\r\n"  # content starts at the beginning of a line
        self._virtual = 2

    @property
    def size(self) -> int:
        return self._octets.size

    @property
    def refusal(self) -> Reply | None:
        return self._octets.refusal

    def spoil(self, reply: Reply) -> None:
        self._octets.refusal = reply

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The content in `data`, and the octets of `data` used up to and with the end, or -1 while there is no end."""
        held = self._held
        text = held + data
        dotted = _DOT(text)
        end = _END(text, dotted.start()) if dotted else None
        if end is not None:
            piece = text[: end.start() + 2]
            used = end.end() - len(held)
        else:
            keep = _tail(text)
            used = -1
            if keep == 0:
                piece, self._held = text, b""
            else:
                piece, self._held = text[:-keep], text[-keep:]
        if dotted and (end is None or dotted.start() < end.start()):
            piece = _UNDOT(b"\r\n", piece)
        if self._virtual and piece:
            piece = piece[2:]
            self._virtual = 0
        if piece:
            piece = self._octets.take(piece)
        return piece, used


def _tail(text: bytes) -> int:
    """How many octets at the end may yet turn out to be the start of CRLF.CRLF."""
    last = text[-1] if text else 0
    if last == 13:
        return 4 if text.endswith(b"\r\n.\r") else 1
    if last == 10:
        return 2 if text.endswith(b"\r\n") else 0
    if last == 46:
        return 3 if text.endswith(b"\r\n.") else 0
    return 0


class ChunkReader:
    """Content under BDAT, over all chunks of one transaction. A CR at the end of a chunk waits for the next one."""

    __slots__ = ("_held", "_octets")

    def __init__(self, rules: ContentRules) -> None:
        self._octets = Octets(rules)
        self._held = b""

    @property
    def size(self) -> int:
        return self._octets.size

    @property
    def refusal(self) -> Reply | None:
        return self._octets.refusal

    def spoil(self, reply: Reply) -> None:
        self._octets.refusal = reply

    def read(self, data: bytes) -> bytes:
        if self._octets.rules.binary:
            return self._octets.take(data)
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return self._octets.take(data) if data else b""

    def finish(self) -> bytes:
        """After the last chunk: what was still held back."""
        held, self._held = self._held, b""
        return self._octets.take(held) if held else b""

    def exceeds(self, octets: int) -> bool:
        """Whether a chunk of this many octets would go over the limit (it is then refused before it is read)."""
        limit = self._octets.rules.limit
        return bool(limit) and self.size + len(self._held) + octets > limit
