"""The words of the bench's options, as argparse's `type=` takes them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable


def split(words: str) -> list[str]:
    """What stands between commas or spaces."""
    return [one for one in re.split(r"[,\s]+", words) if one]


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """A number above nothing: no run, or a load without an end, is measured by nobody."""

    def number(words: str) -> float:
        try:
            found = kind(words)
        except ValueError:
            found = 0
        if not 0 < found < float("inf"):
            raise argparse.ArgumentTypeError(f"{words!r} is not a {'whole ' * (kind is int)}number above 0")
        return found

    return number
