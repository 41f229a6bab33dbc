"""What lies in a state directory that comes from elsewhere, from a stranger's archive perhaps: nothing in it chooses a
path, holds anybody up by being no file, or gets into a queue that could not store it.

Pure but for looking at files. Thread: any.
Not here: what is still to be delivered there (remains).
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator

from smtpd_core.wire.envelope import DeliverBy, Envelope

# An id becomes the name of a file.
_ID = re.compile(r"[0-9A-Za-z]{1,64}\Z")

_FOLDERS = ("spool", "bodies", "spool/bodies", "spool/importing")
_FILES = ("queue.db", "queue.db-wal", "queue.db-shm", "queue.db-journal", "queue.lock")
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# What a moment and a number of seconds may be: a database and the arithmetic of time take them.
_LARGEST = 1 << 52


class Unfit(ValueError):
    """A directory that can't be taken from as it is."""


def look_over(directory: str) -> None:
    """Raises Unfit where a file or folder that is read there leads elsewhere, or is none."""
    for folder in _FOLDERS:
        _must_be(os.path.join(directory, folder), stat.S_ISDIR, "folder")
    for path in (*(os.path.join(directory, file) for file in _FILES), *_spooled(os.path.join(directory, "spool"))):
        _must_be(path, stat.S_ISREG, "file")


def _spooled(spool: str) -> Iterator[str]:
    for file in os.listdir(spool) if os.path.isdir(spool) else ():
        if file.endswith((".seg", ".lock")):
            yield os.path.join(spool, file)


def _must_be(path: str, is_right: Callable[[int], bool], what: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        found = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
        raise Unfit(f"{path} is {found} where a {what} is due; put the {what} itself there")


def is_id(text: object) -> bool:
    """Whether a message may be called so."""
    return isinstance(text, str) and _ID.match(text) is not None


def body_fault(path: str, size: int) -> str:
    """What is wrong with the file of a message's content, or ""."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return "is a symbolic link" if os.path.islink(path) else f"can't be read: {error.strerror}"
    try:
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        return "is no file"
    return "" if facts.st_size == size else f"has {facts.st_size} bytes instead of {size}"


def envelope_fault(envelope: Envelope) -> str:
    """Why no queue could store what was unpacked, or ""."""
    p, o, by = envelope.parameters, envelope.origin, envelope.parameters.by
    if by is not None and not isinstance(by, DeliverBy):
        return f"{by!r} is no time to deliver by"
    texts: list[object] = [envelope.sender, o.address, o.hello, o.protocol, o.tls, o.user, o.listener, o.session]
    texts += [p.body, p.ret, p.envid, p.hold_until, *_given(p.auth, by and by.mode)]
    for one in envelope.recipients:
        texts += [one.address, one.orcpt, *one.notify]
    numbers = [o.port, *_given(p.size, p.hold_for, p.priority, by and by.seconds)]
    if not envelope.recipients:
        return "it has no recipients"
    try:
        for text in texts:
            if not isinstance(text, str):
                return f"{text!r} is no text"
            text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "it has a text that is none"
    if not all(isinstance(number, int) and abs(number) <= _LARGEST for number in numbers):
        return "it has a number that is none"
    arrived: object = envelope.arrived
    if not isinstance(arrived, int | float) or not math.isfinite(arrived) or abs(arrived) > _LARGEST:
        return "its time of arrival is none"
    return ""


def _given(*values: object) -> list[object]:
    return [value for value in values if value is not None]
