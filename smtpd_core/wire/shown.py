"""What strangers wrote, as a terminal may show it: it may hold what a terminal would obey."""

from __future__ import annotations

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def shown(text: str) -> str:
    """Text of strangers without control characters; a line stays one line."""
    return text.translate(_CONTROLS)
