"""What a server says, read from bytes: one Answer at a time, whatever the pieces were.

An Answer is a peer's word and so is taken as it comes, unlike replies.Reply, which is our own and must agree with
itself. What is no SMTP reply at all raises BrokenAnswer, and the connection is of no use afterwards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# One line of a reply: RFC 5321 4.5.3.1.5 says 512; senders of long texts are let in up to this.
MAX_LINE = 4096
# All lines of one reply: an EHLO answer has about twenty, a HELP text some dozens.
MAX_LINES = 256

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\n]*))?\r?\n")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)")


class BrokenAnswer(Exception):
    """The peer does not speak SMTP (any more)."""


@dataclass(slots=True)
class Answer:
    """One reply of a peer. `text` has no codes, its lines are separated by LF; `enhanced` may be ""."""

    code: int
    enhanced: str = ""
    text: str = ""

    @property
    def is_positive(self) -> bool:
        """2xx: done. 354 is no success but to DATA, which asks for it by number."""
        return self.code < 300

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text.replace("\n", " / ")) if part)


class AnswerReader:
    """Bytes in, answers out. Thread: one at a time."""

    __slots__ = ("_buffer", "_code", "_lines")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = b""
        self._lines: list[bytes] = []

    @property
    def is_inside(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._buffer or self._lines)

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    def forget(self) -> bool:
        """Drop all that was received; True where there was something (the plaintext behind a STARTTLS reply)."""
        had = self.is_inside
        self._buffer, self._lines, self._code = b"", [], b""
        return had

    def next(self) -> Answer | None:
        """The next whole reply, None where bytes are missing. Raises BrokenAnswer."""
        buffer = self._buffer
        at = 0
        while at < len(buffer):
            line = _LINE.match(buffer, at)
            if line is None:
                self._check_unfinished(buffer, at)
                break
            at = line.end()
            if self._lines and line[1] != self._code:
                raise BrokenAnswer(f"a reply changed its code from {self._code.decode()} to {line[1].decode()}")
            self._lines.append((line[3] or b"").rstrip(b"\r"))
            self._code = line[1]
            if line[2] != b"-":
                lines, self._lines = self._lines, []
                self._buffer = buffer[at:]
                return _answer(int(line[1]), lines)
            if len(self._lines) > MAX_LINES:
                raise BrokenAnswer(f"a reply of more than {MAX_LINES} lines")
        self._buffer = buffer[at:]
        return None

    def _check_unfinished(self, buffer: bytes, at: int) -> None:
        end = buffer.find(b"\n", at)
        if end >= 0:
            raise BrokenAnswer(f"no SMTP reply: {_shown(buffer[at : min(end, at + 80)])}")
        if len(buffer) - at > MAX_LINE:
            raise BrokenAnswer(f"a reply line of more than {MAX_LINE} bytes")


def _answer(code: int, lines: list[bytes]) -> Answer:
    texts = [line.decode("utf-8", "replace") for line in lines]
    enhanced = ""
    for n, text in enumerate(texts):
        found = _ENHANCED.match(text)
        if found and found[1][0] == str(code)[0]:
            enhanced = enhanced or found[1]
            texts[n] = text[found.end() :]
    return Answer(code, enhanced, "\n".join(texts))


def _shown(data: bytes) -> str:
    return repr(data.decode("ascii", "backslashreplace"))
