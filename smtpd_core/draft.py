"""A draft: the content of one message under way, in memory while it is small, in a nameless file when it grows.

The content is byte-exact; the trace headers that the server adds (Received, and what a submission lacked) are kept
apart in `trace` and precede it wherever the message goes. A nameless file vanishes with its last descriptor, so a
draft that nobody kept leaves nothing behind, whatever dies.
Thread: one at a time, the one that owns the connection, then the one that keeps it.
"""

from __future__ import annotations

import errno
import io
import os
import random
import stat
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

# Content up to this size stays in memory and is appended to the spool's segment; larger content becomes a file of its
# own that is linked instead of being copied. design: 256 KiB, the size above which a copy costs more than a link.
MEMORY_LIMIT = 262_144

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [one + other for one in _ALPHABET for other in _ALPHABET]  # two digits at a time: an id is made per message

# A generator of our own: programs and test suites seed the shared one. It is no secret, and costs no system call.
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id(now: float | None = None) -> str:
    """A message id: 15 characters, sortable by time (milliseconds), the last 7 random. Unique without coordination."""
    at = int((time.time() if now is None else now) * 1000)
    chance = _random.getrandbits(35)
    digits = _PAIRS
    return (
        f"{digits[at >> 30 & 1023]}{digits[at >> 20 & 1023]}{digits[at >> 10 & 1023]}{digits[at & 1023]}"
        f"{digits[chance >> 25]}{digits[chance >> 15 & 1023]}{digits[chance >> 5 & 1023]}{_ALPHABET[chance & 31]}"
    )


class Draft:
    """Append, then read from the start as often as wanted.

    `directory` is where a large draft's nameless file is made; give the spool's, so that it can be linked there.
    None means the system's temporary directory. OSError (disk full) comes out of append().
    """

    __slots__ = ("_file", "_memory", "directory", "id", "size", "trace")

    def __init__(self, directory: str | None = None, *, id: str = "") -> None:
        self.id = id or new_id()
        self.directory = directory
        self.trace = b""
        self.size = 0
        self._memory: list[bytes] = []
        self._file: BinaryIO | None = None

    def append(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
            return
        self._memory.append(data)
        if self.size > MEMORY_LIMIT:
            self._file = _nameless(self.directory)
            for piece in self._memory:
                self._file.write(piece)
            self._memory.clear()

    @property
    def content(self) -> bytes | None:
        """The whole content where it is in memory, None where it is in a file."""
        if self._file is not None:
            return None
        if len(self._memory) != 1:
            self._memory = [b"".join(self._memory)]
        return self._memory[0]

    def fileno(self) -> int:
        """The descriptor of the nameless file. Raises io.UnsupportedOperation where the draft is in memory."""
        if self._file is None:
            raise io.UnsupportedOperation("this draft is in memory")
        return self._file.fileno()

    def open(self) -> BinaryIO:
        """The content as a seekable binary file of its own, at the start; closing it leaves the draft alone."""
        content = self.content
        if content is not None:
            return io.BytesIO(content)
        return _Window(self.fileno(), self.size)  # type: ignore[return-value]

    def chunks(self, size: int = 65_536) -> Iterator[bytes]:
        """The content in pieces of at most `size` bytes, in memory bounded by that."""
        with self.open() as file:
            while piece := file.read(size):
                yield piece

    def close(self) -> None:
        """Forget the content. Idempotent."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _nameless(directory: str | None) -> BinaryIO:
    """A file without a name that may be given one later by linking its descriptor, where the system can do that."""
    if hasattr(os, "O_TMPFILE"):
        try:
            # tempfile adds O_EXCL, which forbids the later link.
            descriptor = os.open(
                directory or tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR
            )
            return open(descriptor, "w+b", buffering=0)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def _seek_and_read(descriptor: int, size: int, at: int) -> bytes:
    """Where pread is missing (Windows). Readers of one draft are never in two threads at once."""
    os.lseek(descriptor, at, os.SEEK_SET)
    return os.read(descriptor, size)


_read_at = getattr(os, "pread", _seek_and_read)


class _Window(io.RawIOBase):
    """A reader with a position of its own on a shared descriptor (pread), so that two readers never move each other."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces = []
        while wanted > 0:
            piece = _read_at(self._descriptor, wanted, self._at)
            if not piece:
                break
            self._at += len(piece)
            wanted -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        piece = self.read(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
