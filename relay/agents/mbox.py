"""Delivery into mbox files (RFC 4155, the mboxrd way): appended under a lock, synced; cut back where that fails.

At least once: a crash between the sync and the settling delivers a second copy, for an mbox can't be searched cheaply.
Thread: any courier; the file is locked (flock) against other writers.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator

from relay.agents.agent import OpenBody, outcome, pieces
from relay.agents.final import headers
from relay.agents.maildir import write_all
from relay.agents.trouble import local_trouble
from relay.mail import Outcome, Parcel, Result, Stop
from relay.route import filled, mailbox

WINDOW = 65_536

_FROM = re.compile(rb"(?m)^(>*From )")
_NOT_PRINTABLE = re.compile(r"[^!-~]")


class MboxAgent:
    """Destinations "mbox:PATH", with {user} and {domain}. Lines end with LF in the file, as readers expect."""

    def __init__(self, mailbox_of: Callable[[str], tuple[str, str]] = mailbox) -> None:
        self._mailbox_of = mailbox_of

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        template = parcel.destination.partition(":")[2]
        outcomes = []
        for stop in parcel.stops:
            path = filled(template, *self._mailbox_of(stop.recipient.address))
            try:
                _append(path, parcel, stop, open_body, now)
            except OSError as error:
                outcomes.append(local_trouble(stop, error, now))
            else:
                outcomes.append(outcome(stop, Result.DELIVERED, now, code=250, enhanced="2.0.0", text="in the mailbox"))
        return outcomes

    def close(self) -> None:
        """Holds nothing."""


def _append(path: str, parcel: Parcel, stop: Stop, open_body: OpenBody, now: float) -> None:
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        start = os.fstat(descriptor).st_size
        try:
            sender = _NOT_PRINTABLE.sub("?", parcel.envelope.sender) or "MAILER-DAEMON"
            write_all(descriptor, f"From {sender} {time.asctime(time.gmtime(now))}\n".encode())
            for line_block in _quoted(parcel, stop, open_body):
                write_all(descriptor, line_block)
            write_all(descriptor, b"\n")
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, start)
            raise
    finally:
        os.close(descriptor)


def _quoted(parcel: Parcel, stop: Stop, open_body: OpenBody) -> Iterator[bytes]:
    """Blocks that begin at a line's start, "From " lines marked; a line longer than a window goes out in parts."""
    held = b""
    at_start = True
    for piece in pieces(parcel, open_body, WINDOW, headers(parcel, stop)):
        held += piece
        end = held.rfind(b"\n") + 1
        if not end and len(held) < WINDOW:
            continue
        end = end or len(held) - 1  # a CR at the end waits for its LF
        block, held = held[:end], held[end:]
        yield _as_lines(block, at_start)
        at_start = block.endswith(b"\n")
    if held:
        block = _as_lines(held, at_start)
        yield block if block.endswith(b"\n") else block + b"\n"
    elif not at_start:
        yield b"\n"


def _as_lines(block: bytes, at_start: bool) -> bytes:
    lines = block.replace(b"\r\n", b"\n")
    if at_start:
        return _FROM.sub(rb">\1", lines)
    first, newline, rest = lines.partition(b"\n")
    return first + newline + _FROM.sub(rb">\1", rest)
