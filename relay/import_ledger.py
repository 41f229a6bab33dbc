"""Which messages were ever brought in from elsewhere: kept as long as somebody might bring the same ones again.

    imported/NAME.ids    the ids that the segment NAME brought, one a line

A file is whole and synced when it has its name, and from then on the segment is promised: whatever dies afterwards, it
goes into the spool and its messages are never taken again, delivered or not. Who has set the place aside that they came
from may remove the folder.
Thread: one at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from relay.disk import Disk
from relay.other_disk import write_whole


class ImportLedger:
    """Under the state directory `state`."""

    def __init__(self, state: str, disk: Disk) -> None:
        self._folder = os.path.join(state, "imported")
        self._disk = disk
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._known: set[str] = set()
        for file in os.listdir(self._folder):
            if file.endswith(".ids"):
                self._known.update(self.ids_of(file.removesuffix(".ids")))

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def ids_of(self, name: str) -> list[str]:
        """What the segment brought; nothing for one that was not promised."""
        try:
            with open(self._path(name), encoding="ascii") as file:
                return file.read().split()
        except FileNotFoundError:
            return []
        except ValueError:
            raise ValueError(
                f"{self._path(name)} is damaged, so it can't be told what was imported before; put it back from a copy,"
                " or remove it where no place that was imported from will be again"
            ) from None

    def promise(self, name: str, ids: Iterable[str]) -> None:
        """The segment and its bodies are synced where they lie; on return they count as brought in."""
        path, ids = self._path(name), list(ids)
        part = f"{path}.part"
        self._disk.remove(part)
        descriptor = self._disk.create(part)
        try:
            write_whole(self._disk, descriptor, "".join(f"{id}\n" for id in ids).encode("ascii"))
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        self._disk.rename(part, path)
        self._disk.sync_directory(self._folder)
        self._known.update(ids)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}.ids")
