"""Durations and sizes as people write them: a value out, or a ValueError that says what would be right."""

from __future__ import annotations

import re

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


def duration(value: object) -> float:
    """Seconds of 30, "30s", "5m", "2h" or "5d"."""
    expected = 'expected seconds or a duration like "30s", "5m", "2h" or "5d"'
    seconds = _measure(value, _DURATIONS, "s", expected)
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
