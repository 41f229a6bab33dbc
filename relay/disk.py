"""The file system as spool and queue bodies use it: one small object, so that every effect on disk can be listed,
recorded and made to fail from outside. It adds no policy and keeps no state.

Thread: any.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

try:
    import fcntl
except ImportError:  # Windows has no flock; there one process owns the state directory anyway
    fcntl = None  # type: ignore[assignment]

# Without fdatasync (macOS, Windows) fsync does the same and a little more.
_datasync = getattr(os, "fdatasync", os.fsync)

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Disk:
    """The real one. All methods raise OSError as the system does."""

    def create(self, path: str) -> int:
        """A new file, open for reading and writing, 0600; FileExistsError where the name is taken."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)

    def append(self, descriptor: int, pieces: Sequence[bytes]) -> int:
        """Write at the descriptor's position; how many bytes went in, which may be fewer than given."""
        if hasattr(os, "writev"):
            return os.writev(descriptor, pieces)
        return os.write(descriptor, b"".join(pieces))

    def write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        """Replace bytes in place (the published position, which no promise rests on)."""
        if hasattr(os, "pwrite"):
            os.pwrite(descriptor, data, offset)
            return
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """The file's content, and what is needed to read it back, is on disk when this returns."""
        _datasync(descriptor)

    def sync_directory(self, path: str) -> None:
        """Names made, changed and removed in the directory are on disk when this returns."""
        if os.name != "posix":
            return
        descriptor = os.open(path, os.O_RDONLY | _BINARY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: int | str, path: str) -> None:
        """Give a nameless file (its descriptor), or a named one, another name."""
        if isinstance(source, str):
            os.link(source, path)
            return
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | _BINARY)
        try:
            # With a directory descriptor Python calls linkat with AT_SYMLINK_FOLLOW; plain link() fails with EXDEV.
            os.link(f"/proc/self/fd/{source}", path, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def rename(self, source: str, path: str) -> None:
        os.replace(source, path)

    def remove(self, path: str) -> None:
        """Remove the name; a name that is gone already is fine."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def free(self, path: str) -> int:
        """Bytes that an ordinary user may still write on the file system of `path`."""
        if not hasattr(os, "statvfs"):
            return 1 << 62
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def lock(self, path: str) -> int | None:
        """Take the file lock `path`, made where missing: the descriptor that holds it, None where another does."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
        if fcntl is None:
            return descriptor
        try:
            # flock, not lockf: a POSIX record lock is lost as soon as any descriptor of the file is closed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
