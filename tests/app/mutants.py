"""Starter files with accidents in them."""

from __future__ import annotations

import random
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def mutate(text: bytes, dice: random.Random) -> bytes:
    """Cut, doubled, swapped and strange pieces."""
    for _ in range(dice.randrange(1, 4)):
        at, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
        end = min(end, at + dice.choice((1, 3, 20, 200)))
        piece = dice.choice(
            (
                b"",
                text[at:end] * 2,
                b"-1",
                b'""',
                b"[]",
                b"{}",
                b"true",
                b"1e400",
                b"\x00",
                b"\xff",
                b"99999999999999999999",
            )
            + (b"nan", b"[[a]]\n", b"'", b'"', b"=", b"\n", b"../../etc", b"2030-01-01", b"[" * 50, b"{user}{x}", b":")
        )
        text = text[:at] + piece + text[end:]
    return text
