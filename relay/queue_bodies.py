"""The large bodies of a queue: files in a folder beside its database, each by the id of its message.

Rule: the link is synced before a row refers to it, and the row goes before the file. What a crash leaves between is a
stray, which the next start removes; where its message is still spooled, the spool has a link of its own.
Thread: adopt() and open() any; the rest inside the queue's transactions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from relay.disk import Disk
from relay.mail import Message
from relay.other_disk import link, move, write_whole

log = logging.getLogger(__name__)


class QueueBodies:
    """`folder` is the queue's; the bodies are in `bodies` there, what is set aside in `aside`."""

    def __init__(self, folder: str, disk: Disk) -> None:
        self._folder, self._aside = os.path.join(folder, "bodies"), os.path.join(folder, "aside")
        self._disk = disk
        self._dropped: list[str] = []
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    def path_of(self, id: str) -> str:
        return os.path.join(self._folder, id)

    def open(self, id: str) -> BinaryIO:
        return open(self.path_of(id), "rb")

    def adopt(self, messages: Iterable[Message]) -> None:
        """Link body files into our room, and sync the names, before a row refers to them."""
        linked = False
        for message in messages:
            if message.body.path:
                try:
                    link(self._disk, message.body.path, self.path_of(message.id))
                except FileExistsError:
                    pass  # a crash came between the link and the row
                linked = True
        if linked:
            self._disk.sync_directory(self._folder)

    # What goes with a transaction.

    def drop(self, id: str) -> None:
        """The row goes with this transaction, and the file behind it."""
        self._dropped.append(id)

    def mark(self) -> int:
        return len(self._dropped)

    def undo(self, mark: int = 0) -> None:
        """What was dropped since the mark stays."""
        del self._dropped[mark:]

    def remove_dropped(self) -> None:
        """The change is made; what can't be removed is a stray."""
        dropped, self._dropped = self._dropped, []
        for id in dropped:
            try:
                self._disk.remove(self.path_of(id))
            except OSError as error:
                log.error("queue: body %s can't be removed: %s", self.path_of(id), error)

    # Files that no row names, and rows that nobody can read.

    def remove_strays(self, known: Iterable[str]) -> None:
        for file in set(os.listdir(self._folder)).difference(known):
            self._disk.remove(self.path_of(file))

    def set_all_aside(self) -> None:
        """Beside a new database: the one that named them is lost, and they may be all that is left."""
        files = os.listdir(self._folder)
        if not files:
            return
        for file in files:
            move(self._disk, self.path_of(file), self._aside_path(file, "body"))
        self._disk.sync_directory(self._aside)
        log.error("queue: it is new, and no message names %d bodies: they are kept in %s", len(files), self._aside)

    def set_aside(self, id: str, parts: Sequence[tuple[str, bytes | None]], has_file: bool) -> None:
        """Keep all that there is of a message, by the names of its parts; before its rows go."""
        for name, part in parts:
            path = self._aside_path(id, name)
            if part and not os.path.exists(path):
                self._write(path, bytes(part))
        if has_file and os.path.exists(self.path_of(id)):
            try:
                link(self._disk, self.path_of(id), self._aside_path(id, "body"))
            except FileExistsError:
                pass  # a crash came between the link and the end of the transaction
        self._disk.sync_directory(self._aside)

    def _write(self, path: str, data: bytes) -> None:
        descriptor = self._disk.create(path)
        try:
            write_whole(self._disk, descriptor, data)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def _aside_path(self, id: str, part: str) -> str:
        os.makedirs(self._aside, mode=0o700, exist_ok=True)
        return os.path.join(self._aside, f"queue-{id}.{part}")
