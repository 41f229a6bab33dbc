"""A process and its surroundings: signals, pid file, umask, user and group.

Thread: main.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smtpd_core.app.settings import Settings

END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Waits for TERM, INT and HUP without a handler that does anything: they arrive as bytes in a pipe.

    After end_at_once() the next TERM or INT ends the process where it stands.
    """

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in (*END, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, _note)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait(self, seconds: float | None = None) -> int | None:
        """The next signal; None where none came within `seconds`."""
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        number = os.read(self._reader, 1)[0]
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm while the interpreter ends would kill the process
        return None if number == signal.SIGALRM else number

    @staticmethod
    def end_at_once() -> None:
        for number in END:
            signal.signal(number, signal.SIG_DFL)
        # Nothing is reloaded any more; the interpreter gives what it handles its default back before it ends.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _note(number: int, frame: object) -> None:
    """The interpreter has written the number to the pipe already."""


@contextmanager
def pid_file(path: str) -> Iterator[None]:
    """The process's number in `path` while the block runs; nothing where `path` is empty. Raises OSError, also where
    another process that runs has its number there."""
    if not path:
        yield
        return
    descriptor = _locked(path)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())
    try:
        yield
    finally:
        # Another user's directory can't be written once the privileges are gone; the number is stale then, and says so.
        try:
            os.unlink(path)
        except OSError:
            pass
        os.close(descriptor)


def _locked(path: str) -> int:
    """The file, for this process alone as long as it runs: children don't have the lock, and a stale file has none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        whose = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise OSError(f"pid_file: {path} is held by a server that runs, process {whose}") from None
    return descriptor


def prepare_state(settings: Settings) -> Path:
    """The state directory, made where it is missing, and given to the user that the process will run as."""
    state = Path(settings.state).absolute()
    fresh = not os.path.exists(state)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"state: {state} can't be made: {error.strerror}") from None
    if fresh and settings.user and os.geteuid() == 0:
        uid, gid = ids_of(settings)
        os.chown(state, uid, gid)
    return state


# What is wrong with a disk, whatever file on it was to be written.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@contextmanager
def naming(state: str) -> Iterator[None]:
    """A disk's trouble that comes without a file's name gets the state directory's."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _OF_THE_DISK:
            raise OSError(error.errno, f"state: {Path(state).absolute()}: {error.strerror}") from None
        raise


def ids_of(settings: Settings) -> tuple[int, int]:
    """User and group number. ValueError names what does not exist."""
    try:
        user = pwd.getpwnam(settings.user)
    except KeyError:
        raise ValueError(f"user: there is no user {settings.user!r}") from None
    if not settings.group:
        return user.pw_uid, user.pw_gid
    try:
        return user.pw_uid, grp.getgrnam(settings.group).gr_gid
    except KeyError:
        raise ValueError(f"group: there is no group {settings.group!r}") from None


def hand_over(paths: Iterable[str], settings: Settings) -> None:
    """Sockets that root made become the user's and the group's, who may connect as far as the umask lets them."""
    if settings.user and os.geteuid() == 0:
        for path in paths:
            os.chown(path, *ids_of(settings), follow_symlinks=False)


def drop_privileges(settings: Settings) -> None:
    """Become the user of the settings, for good. ValueError where that is impossible."""
    if not settings.user:
        return
    uid, gid = ids_of(settings)
    if (os.geteuid(), os.getegid()) == (uid, gid):
        return
    if os.geteuid() != 0:
        raise ValueError(f"user: only root may become {settings.user}; start as root, or leave the setting out")
    os.setgroups(os.getgrouplist(settings.user, gid))
    os.setgid(gid)
    os.setuid(uid)
    if os.geteuid() == 0 or os.getuid() == 0:
        raise ValueError("user: the privileges of root could not be given up")


def room_for_connections(connections: int) -> int:
    """Raise the soft limit of descriptors as far as needed; how many connections then fit, at most `connections`."""
    try:
        import resource
    except ImportError:
        return connections
    other = 512  # listeners, spool, queue, outgoing connections, open bodies
    wanted = connections + other
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, soft), hard))
    return max(0, min(connections, max(limit, soft) - other))
