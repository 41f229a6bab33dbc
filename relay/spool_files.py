"""The files of a spool's directory: their names, and the position that a living spool publishes.

NAME.lock                          held while the spool NAME lives; in it, how far it is synced
NAME-NUMBER.seg                    its segments, in order
NAME-NUMBER.upto-OFFSET.seg        a suspect one, good up to OFFSET
bodies/NAME-ID                     the large body of message ID
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

from relay.disk import Disk

_SEGMENT = re.compile(r"(?P<name>[0-9A-Z]+)-(?P<number>\d{8})(\.upto-(?P<upto>\d+))?\.seg\Z")


class Position(NamedTuple):
    """How far this process's spool is synced: `offset` bytes of segment `number`; earlier segments are complete."""

    number: int
    offset: int


@dataclass(slots=True)
class Found:
    """One segment file in the spool's directory. `upto` is set for a suspect one."""

    name: str
    number: int
    path: str
    upto: int | None

    @property
    def key(self) -> str:
        """Its name in the queue; the same before and after it became suspect."""
        return f"{self.name}-{self.number:08d}"


def lock_path(directory: str, name: str) -> str:
    """The file whose lock the spool `name` holds as long as it lives."""
    return os.path.join(directory, f"{name}.lock")


def segment_path(directory: str, name: str, number: int) -> str:
    return os.path.join(directory, f"{name}-{number:08d}.seg")


def body_path(directory: str, name: str, id: str) -> str:
    """Where the body of message `id`, promised by the spool `name`, lies."""
    return os.path.join(directory, "bodies", f"{name}-{id}")


def suspect_path(path: str, offset: int) -> str:
    """The name of a segment that is good up to `offset` only."""
    return f"{path.removesuffix('.seg')}.upto-{offset}.seg"


_POSITION = struct.Struct("<QQQQ")
_ALL_ONES = (1 << 64) - 1


def position_bytes(position: Position) -> bytes:
    """A position as it lies in the lock file: its numbers and their complements, so that a torn one is seen."""
    number, offset = position
    return _POSITION.pack(number, offset, number ^ _ALL_ONES, offset ^ _ALL_ONES)


def position_of(data: bytes) -> Position | None:
    """The inverse of position_bytes; None where it is torn or not written yet."""
    if len(data) != _POSITION.size:
        return None
    number, offset, not_number, not_offset = _POSITION.unpack(data)
    return Position(number, offset) if (not_number, not_offset) == (number ^ _ALL_ONES, offset ^ _ALL_ONES) else None


def position_of_living(directory: str, name: str, disk: Disk) -> Position | None:
    """How far the spool `name` is synced while it lives, Position(0, 0) where it has not said so yet; None where it is
    dead, and its segments are whatever they are."""
    path = lock_path(directory, name)
    if not os.path.exists(path):
        return None
    lock = disk.lock(path)
    if lock is not None:
        disk.close(lock)
        return None
    try:
        with open(path, "rb") as file:
            return position_of(file.read(64)) or Position(0, 0)
    except FileNotFoundError:
        return None  # an intake had the lock, and is through with what was an orphan


def bytes_in(directory: str) -> int:
    total = 0
    with os.scandir(directory) as entries:
        for one in entries:
            try:
                if one.is_file(follow_symlinks=False):
                    total += one.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                pass  # intake removed it meanwhile
    return total


def found_in(directory: str) -> dict[str, list[Found]]:
    """All segments in a spool's directory by the name of their spool, oldest first."""
    found: dict[str, list[Found]] = {}
    for file in sorted(os.listdir(directory)):
        match = _SEGMENT.match(file)
        if match is not None:
            upto = int(match["upto"]) if match["upto"] else None
            one = Found(match["name"], int(match["number"]), os.path.join(directory, file), upto)
            found.setdefault(one.name, []).append(one)
        elif file.endswith(".lock"):
            found.setdefault(file.removesuffix(".lock"), [])
    return found
