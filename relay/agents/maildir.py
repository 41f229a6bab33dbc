"""Delivery into Maildirs: tmp, fsync, rename to new, fsync of the directory.

A file's name holds the queue id and the recipient's number, and is the same at every attempt: a claim that is not the
first looks for it in new/ and cur/ before it writes, so that a crash between delivery and settling makes no copy.
Content is kept byte for byte, line ends included, behind Return-Path, Delivered-To and the trace.
Thread: any courier; one mailbox may be written by several at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from relay.agents.agent import OpenBody, outcome, pieces
from relay.agents.final import headers
from relay.agents.trouble import local_trouble
from relay.mail import Outcome, Parcel, Result, Stop
from relay.route import filled, mailbox

WINDOW = 262_144


class MaildirAgent:
    """Destinations "maildir:PATH", with {user} and {domain}; a missing Maildir is made, readable by its owner only.

    `mailbox_of(address)` gives the two names.
    """

    def __init__(self, hostname: str = "localhost", mailbox_of: Callable[[str], tuple[str, str]] = mailbox) -> None:
        self._mailbox_of = mailbox_of
        # The name's last part by Maildir's own rules: no slash, no colon.
        self._hostname = hostname.replace("/", "\\057").replace(":", "\\072") or "localhost"

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        template = parcel.destination.partition(":")[2]
        outcomes: dict[int, Outcome] = {}
        written: dict[str, list[Stop]] = {}
        for stop in parcel.stops:
            path = filled(template, *self._mailbox_of(stop.recipient.address))
            try:
                make_maildir(path)
                if self._put(path, parcel, stop, open_body):
                    written.setdefault(path, []).append(stop)
            except OSError as error:
                outcomes[stop.number] = local_trouble(stop, error, now)
            else:
                outcomes[stop.number] = outcome(
                    stop, Result.DELIVERED, now, code=250, enhanced="2.0.0", text="in the mailbox"
                )
        for path, stops in written.items():
            # One sync for the directory entries of all stops there; only behind it are they delivered.
            try:
                sync_directory(os.path.join(path, "new"))
            except OSError as error:
                outcomes |= {stop.number: local_trouble(stop, error, now) for stop in stops}
        return [outcomes[stop.number] for stop in parcel.stops]

    def withdraw(self, parcel: Parcel) -> None:
        """Take back what deliver() put into new/, where no reader has it yet."""
        template = parcel.destination.partition(":")[2]
        for stop in parcel.stops:
            path = filled(template, *self._mailbox_of(stop.recipient.address))
            remove_if_there(os.path.join(path, "new", file_name(parcel, stop, self._hostname)))

    def close(self) -> None:
        """Holds nothing."""

    def _put(self, path: str, parcel: Parcel, stop: Stop, open_body: OpenBody) -> bool:
        """False where an earlier claim had delivered it already."""
        name = file_name(parcel, stop, self._hostname)
        if parcel.attempt > 1 and is_there(path, name):
            return False
        draft = os.path.join(path, "tmp", name)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                for piece in pieces(parcel, open_body, WINDOW, headers(parcel, stop)):
                    write_all(file.fileno(), piece)
                os.fsync(file.fileno())
            os.rename(draft, os.path.join(path, "new", name))
        except BaseException:
            remove_if_there(draft)
            raise
        return True


def file_name(parcel: Parcel, stop: Stop, hostname: str) -> str:
    return f"{int(parcel.envelope.arrived)}.{parcel.message_id}R{stop.number}.{hostname}"


def is_there(path: str, name: str) -> bool:
    """In new/ under its name, in cur/ with the flags a reader added."""
    if os.path.exists(os.path.join(path, "new", name)):
        return True
    with os.scandir(os.path.join(path, "cur")) as entries:
        return any(entry.name.partition(":")[0] == name for entry in entries)


def make_maildir(path: str) -> None:
    new = os.path.join(path, "new")
    if os.path.isdir(new):
        return
    missing = path
    above = []
    while not os.path.isdir(missing):
        above.append(missing)
        missing = os.path.dirname(os.path.abspath(missing))
    for one in reversed(above):
        make_directory(one)
    for part in ("tmp", "cur", "new"):
        make_directory(os.path.join(path, part))
    for one in [path, *(os.path.dirname(os.path.abspath(folder)) for folder in above)]:
        sync_directory(one)


def make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another courier made it a moment ago


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def remove_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
