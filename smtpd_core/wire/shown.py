"""What strangers wrote, as a terminal may show it: it may hold what a terminal would obey, and marks that turn the
order of what follows, or end a line (Unicode TR 36 3.4)."""

from __future__ import annotations

_TURNING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS |= {code: f"\\u{code:04x}" for code in _TURNING}


def shown(text: str) -> str:
    """Text of strangers without control characters; a line stays one line."""
    return text.translate(_CONTROLS)


def shown_with_tabs(text: str) -> str:
    """The same, but a tab, which is no harm, stays what it is: for lines that are read again, and columns."""
    return "\t".join(map(shown, text.split("\t")))
