"""Values as people write them: durations, sizes, names, numbers; out comes a value, or a ValueError that says what
would be right.

Thread: any.
Not here: tables and lists of them (tables.py, validation.py).
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field
from functools import partial
from typing import Any

from smtpd_core.app.settings import BYTES, BYTES_PER_SECOND, SECONDS

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SIZES = {
    "": 1,
    "B": 1,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
}
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\Z", re.ASCII)

# The longest wait that means anything; timers and time stamps stay within what they can hold. Ten years.
LONGEST = 315_360_000.0
# The largest size: SQLite's and the file system's numbers stay far below 63 bits.
LARGEST = 1 << 50


def reading(one: Field[Any], kind: type) -> Callable[[object], Any]:
    """What makes a value of a setting of text or of a file's table: the one description of what is understood."""
    if one.metadata["secret"]:
        return secret
    if one.metadata["one_of"]:
        return partial(choice, one_of=one.metadata["one_of"])
    return _BY_UNIT.get(one.metadata["unit"]) or _PLAIN[kind]


def path(text: str) -> str:
    """A file's or a directory's name; "" is what a shell makes of a variable that is not set."""
    if not text:
        raise ValueError("a path is due")
    return text


def duration(value: object) -> float:
    """Seconds of 30, "30s", "5m", "2h" or "5d"."""
    expected = 'expected seconds or a duration like "30s", "5m", "2h" or "5d"'
    seconds = float(_measure(value, _DURATIONS, "s", expected))
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{value!r} is out of range, {expected}")
    return seconds


def size(value: object) -> int:
    """Bytes of 1024, "50MiB" or "1GB"."""
    expected = 'expected bytes or a size like "64KiB", "50MiB" or "1GiB"'
    number = _measure(value, _SIZES, "", expected, upper=True)
    if number != int(number) or not 0 <= number <= LARGEST:
        raise ValueError(f"{value!r} is out of range, {expected}")
    return int(number)


def _measure(
    value: object, units: dict[str, float] | dict[str, int], unit: str, expected: str, upper: bool = False
) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value or abs(value) > LARGEST:
            raise ValueError(f"{value!r} is out of range, {expected}")
        return value
    match = _NUMBER.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is none, {expected}")
    name = match[2].upper() if upper else match[2]
    if (name or unit) not in units:
        raise ValueError(f"unknown unit {match[2]!r}, {expected}")
    number = float(match[1]) if "." in match[1] else int(match[1])
    return number * units[name or unit]


def choice(value: object, one_of: tuple[str, ...]) -> str:
    """One of the names, '-' and '_' alike."""
    text = value.replace("_", "-").lower() if isinstance(value, str) else ""
    if text in one_of:
        return text
    raise ValueError(f"{say(value)} is none of {', '.join(one_of)}{nearest(text, one_of)}")


def boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, not {say(value)}")


def number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 31:
        return value
    raise ValueError(f"expected a whole number, 0 or more, not {say(value)}")


def text(value: object) -> str:
    if isinstance(value, str) and not any(c < " " or c == "\x7f" for c in value):
        return value
    raise ValueError(f"expected one line of text in quotes, not {say(value)}")


def secret(value: object) -> str:
    """Text that is never shown, whatever is wrong with it."""
    try:
        return text(value)
    except ValueError:
        raise ValueError("expected one line of text in quotes") from None


def patience(text: str) -> float:
    """The seconds of an option, as --timeout."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds above 0 are due")
    return seconds


_PLAIN: dict[type, Callable[[object], Any]] = {bool: boolean, int: number, str: text}
_BY_UNIT: dict[str, Callable[[object], Any]] = {SECONDS: duration, BYTES: size, BYTES_PER_SECOND: size}


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?", or nothing where nothing is near."""
    near = difflib.get_close_matches(name.replace("-", "_"), list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def say(value: object) -> str:
    """What was given, short enough for a line."""
    if isinstance(value, Mapping):
        return "a table"
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def say_duration(seconds: float) -> str:
    """300.0 as "5m"."""
    for name, length in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)}{name}"
    return f"{seconds:g}s"


def say_size(size: int) -> str:
    """52428800 as "50MiB"."""
    for name, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % length == 0:
            return f"{size // length}{name}"
    return str(size)
