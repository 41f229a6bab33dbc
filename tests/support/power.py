"""A disk that remembers what is synced, so that a power cut can be played at any moment.

What was written, named or removed and not synced may be there afterwards or not, block by block and name by name; a
rename happens as a whole or not at all, as journalling file systems have it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from relay.disk import Disk

BLOCK = 512


@dataclass
class Content:
    """One file: what it holds, and what of it is surely on disk."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


# A change of names in one directory: what each name means afterwards, None for nothing.
Step = dict[str, Content | None]


@dataclass
class Image:
    """Files by path: the names there are now, those surely on disk, and changes of names that are not."""

    names: dict[str, Content] = field(default_factory=dict)
    synced: dict[str, Content] = field(default_factory=dict)
    pending: list[Step] = field(default_factory=list)

    def copy(self) -> Image:
        contents = {
            id(one): Content(bytearray(one.now), one.synced) for one in self._all()
        }  # the same content under two names stays one
        return Image(
            {path: contents[id(one)] for path, one in self.names.items()},
            {path: contents[id(one)] for path, one in self.synced.items()},
            [{path: contents[id(one)] if one else None for path, one in step.items()} for step in self.pending],
        )

    def _all(self) -> list[Content]:
        pending = (one for step in self.pending for one in step.values() if one is not None)
        return [*self.names.values(), *self.synced.values(), *pending]

    def after_power_cut(self, chance: random.Random, folder: Path) -> None:
        """Write what is left under `folder`, made of the paths below the recorded directory."""
        names = dict(self.synced)
        for step in self.pending:
            if chance.random() < 0.5:
                _apply(step, names)
        for path, content in names.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_left(content, chance))


def _apply(step: Step, names: dict[str, Content]) -> None:
    for path, content in step.items():
        if content is None:
            names.pop(path, None)
        else:
            names[path] = content


def _left(content: Content, chance: random.Random) -> bytes:
    """Synced bytes stay; unsynced blocks came through, are zeros, or are missing at the end."""
    if bytes(content.now) == content.synced:
        return content.synced
    size = chance.randint(min(len(content.synced), len(content.now)), max(len(content.synced), len(content.now)))
    left = bytearray(size)
    for at in range(0, size, BLOCK):
        source = content.now if chance.random() < 0.5 else content.synced
        block = bytes(source[at : at + BLOCK])[: size - at]
        left[at : at + len(block)] = block
    keep = min(len(content.synced), len(content.now), size)
    left[:keep] = content.synced[:keep]
    return bytes(left)


class RecordingDisk(Disk):
    """Does what it is told, and keeps an image of what a power cut would leave. Thread: any."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._lock = Lock()
        self._open: dict[int, Content] = {}
        self.image = Image()
        self.images: list[Image] = []

    def _note(self) -> None:
        self.images.append(self.image.copy())

    def moment(self) -> int:
        """The number of the last thing that happened."""
        with self._lock:
            return len(self.images)

    def _below(self, path: str) -> str:
        return os.path.relpath(path, self._folder)

    def create(self, path: str) -> int:
        descriptor = super().create(path)
        with self._lock:
            content = self._open[descriptor] = Content()
            self.image.names[self._below(path)] = content
            self.image.pending.append({self._below(path): content})
            self._note()
        return descriptor

    def append(self, descriptor: int, pieces: Sequence[bytes]) -> int:
        done = super().append(descriptor, pieces)
        with self._lock:
            self._open[descriptor].now += b"".join(pieces)[:done]
            self._note()
        return done

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        with self._lock:
            content = self._open.get(descriptor)
            if content is None:  # a draft's nameless file
                content = self._open[descriptor] = Content()
                content.now[:] = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            content.synced = bytes(content.now)
            self._note()

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        with self._lock:
            below = self._below(path)
            left = []
            for step in self.image.pending:
                if os.path.dirname(next(iter(step))) != ("" if below == "." else below):
                    left.append(step)
                else:
                    _apply(step, self.image.synced)
            self.image.pending = left
            self._note()

    def link(self, source: int | str, path: str) -> None:
        super().link(source, path)
        with self._lock:
            content = self._open.pop(source) if isinstance(source, int) else self.image.names[self._below(source)]
            self.image.names[self._below(path)] = content
            self.image.pending.append({self._below(path): content})
            self._note()

    def rename(self, source: str, path: str) -> None:
        super().rename(source, path)
        with self._lock:
            content = self.image.names.pop(self._below(source))
            self.image.names[self._below(path)] = content
            self.image.pending.append({self._below(source): None, self._below(path): content})
            self._note()

    def remove(self, path: str) -> None:
        super().remove(path)
        with self._lock:
            if self.image.names.pop(self._below(path), None) is not None:
                self.image.pending.append({self._below(path): None})
            self._note()

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        with self._lock:
            del self._open[descriptor].now[size:]
            self._note()

    def close(self, descriptor: int) -> None:
        with self._lock:
            self._open.pop(descriptor, None)
        super().close(descriptor)
