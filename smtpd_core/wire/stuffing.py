"""Content as it goes out under DATA: dots doubled, and nothing in it that any server could take for its end.

A bare CR or LF may not go out (RFC 5321 2.3.8), and a peer that reads one as a line end could be made to see the end
of the content where there is none, and a command behind it. Each becomes CRLF. What was received in this
house never holds one, unless a listener was set to let it in.
"""

from __future__ import annotations

import re

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineEnds:
    """Pieces in, pieces without a bare CR or LF out; rest() gives what was held back. Memory: one piece."""

    __slots__ = ("_held_cr",)

    def __init__(self) -> None:
        self._held_cr = False

    def mended(self, piece: bytes) -> bytes:
        if self._held_cr:
            piece, self._held_cr = b"\r" + piece, False
        if piece.endswith(b"\r"):
            # Whether this CR is bare is known with the next byte.
            piece, self._held_cr = piece[:-1], True
        if piece.count(b"\n") == piece.count(b"\r") == piece.count(b"\r\n"):
            return piece
        return _BARE.sub(b"\r\n", piece)

    def rest(self) -> bytes:
        held, self._held_cr = self._held_cr, False
        return b"\r\n" if held else b""


class Stuffer:
    """Pieces of any size in, bytes to send out; finish() gives the end. Thread: one at a time."""

    __slots__ = ("_at_line_start", "_line_ends")

    def __init__(self) -> None:
        self._at_line_start = True
        self._line_ends = LineEnds()

    def stuffed(self, piece: bytes) -> bytes:
        piece = self._line_ends.mended(piece)
        if not piece:
            return b""
        started, self._at_line_start = self._at_line_start, piece.endswith(b"\n")
        if b"\n." in piece:
            # A compiled pattern is a fifth faster here, and takes five times the piece in memory on the way.
            piece = piece.replace(b"\n.", b"\n..")
        if started and piece.startswith(b"."):
            return b"." + piece
        return piece

    def finish(self) -> bytes:
        """The rest and the final dot; a last line without its end gets one."""
        if self._line_ends.rest():
            return b"\r\n.\r\n"
        return b".\r\n" if self._at_line_start else b"\r\n.\r\n"
