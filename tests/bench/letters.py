"""The messages of the bench: numbered, so that each that was accepted can be found in a store, byte for byte.

Only the number in the subject differs. Date and Message-ID are there, so that no server has a reason to add them.
"""

from __future__ import annotations

from functools import lru_cache

_NUMBERED = b"Subject: bench %010d"
STAMP = len(_NUMBERED % 0)
_HEAD = (
    b"\r\nFrom: <probe@bench.test>\r\nTo: <user0@bench.test>\r\nDate: Fri, 27 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <load@bench.test>\r\n\r\n"
)


def stamp(number: int) -> bytes:
    """What the message begins with."""
    return _NUMBERED % number


@lru_cache(maxsize=4)
def rest(size: int, dots: bool = False) -> bytes:
    """What follows the stamp: lines of 76 columns (78 octets) up to `size` octets in all."""
    line = (b"." * 6 + b"a" * 70 if dots else b"abcdefghijklmnopqrstuvwxyz0123456789+/" * 2) + b"\r\n"
    whole, left = divmod(max(0, size - STAMP - len(_HEAD)), len(line))
    return _HEAD + line * whole + (b"z" * (left - 2) + b"\r\n" if left >= 2 else b"")


def content(size: int, dots: bool = False, number: int = 0) -> bytes:
    return stamp(number) + rest(size, dots)


def on_the_wire(text: bytes) -> bytes:
    """Content with dots stuffed and the end mark."""
    return text.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def number_of(text: bytes) -> int:
    """The number of a stored message, behind whatever trace its server wrote before it. Raises ValueError."""
    start = text.index(b"Subject: bench ") + len(b"Subject: bench ")
    return int(text[start : start + 10])
