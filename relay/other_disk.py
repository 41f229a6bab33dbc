"""Files that may have to go where neither a link nor a new name reaches: spool/ or aside/ may be another disk.

Rule: a copy has another name until it is whole and synced, so whoever finds the name finds the whole file.
Thread: any; two never make the same name.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from relay.disk import Disk

# Another disk, another's file, more names than there may be, a file system without links.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)


class Unreadable(OSError):
    """What is to be copied can't be read. There is no copy, and other files may fare better."""


def link(disk: Disk, source: str, path: str) -> None:
    """Give the file another name, or a copy where that can't be. FileExistsError where the name is taken, Unreadable
    where the file can't be copied."""
    try:
        disk.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(disk, source, path)


def move(disk: Disk, source: str, path: str) -> None:
    """The file has this name from now on. The caller syncs the directory."""
    try:
        disk.rename(source, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(disk, source, path)
        disk.remove(source)


def _copy(disk: Disk, source: str, path: str) -> None:
    part = f"{path}.part"
    disk.remove(part)
    descriptor = disk.create(part)
    try:
        for piece in _pieces(source):
            write_whole(disk, descriptor, piece)
        disk.sync(descriptor)
        disk.rename(part, path)
    except OSError:
        disk.remove(part)
        raise
    finally:
        disk.close(descriptor)


def _pieces(source: str) -> Iterator[bytes]:
    try:
        with open(source, "rb") as file:
            while piece := file.read(1 << 20):
                yield piece
    except OSError as error:
        raise Unreadable(error.errno, error.strerror, source) from error


def write_whole(disk: Disk, descriptor: int, data: bytes) -> None:
    """All of it, however little the disk takes at a time."""
    while data:
        data = data[disk.append(descriptor, [data]) :]
