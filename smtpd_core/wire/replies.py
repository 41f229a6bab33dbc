"""SMTP replies as values, and the catalogue of all that the server says by itself.

A reply is one value: code, enhanced code (RFC 3463) and text; it will not be built if they disagree.
A constant's name ends in its code, so that a search finds both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# One reply line with its CRLF. RFC 5321 4.5.3.1.5.
MAX_REPLY_LINE = 512

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` may hold several lines, separated by LF; each becomes a line of a multi-line reply.

    Raises ValueError where the code is no SMTP code (200 to 559) or the enhanced code's class differs from it.
    `wire` is the reply as sent, CRLF included, encoded once.
    """

    code: int
    enhanced: str = ""
    text: str = ""
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 559:
            raise ValueError(f"reply code {self.code} is not an SMTP reply code (200 to 559)")
        if self.enhanced and (not _ENHANCED.match(self.enhanced) or self.enhanced[0] != str(self.code)[0]):
            raise ValueError(f"enhanced code {self.enhanced!r} does not agree with {self.code}")
        object.__setattr__(self, "wire", _encode(self.code, self.enhanced, self.text))

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def _encode(code: int, enhanced: str, text: str) -> bytes:
    prefix = f"{enhanced} " if enhanced else ""
    room = MAX_REPLY_LINE - 2 - 4 - len(prefix)
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        clean = "".join(c if " " <= c <= "~" else "?" for c in line)
        lines.extend(clean[at : at + room] for at in range(0, max(len(clean), 1), room))
    last = len(lines) - 1
    return "".join(
        f"{code}{' ' if n == last else '-'}{prefix}{line}".rstrip(" ") + "\r\n" for n, line in enumerate(lines)
    ).encode("ascii")
