"""The patterns of tests: `*` is any text, `?` any character, all else itself, case ignored.

Brackets mean nothing, unlike in file names: subjects begin with "[Shop]", and domains are [192.0.2.1].
Thread: pure.
"""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits(pattern: str, value: str) -> bool:
    """Whether the whole value is as the pattern says."""
    return fnmatchcase(value.lower(), pattern.lower().replace("[", "[[]"))
