"""Engines inside other programs: leaving the interpreter, and forking.

At exit every running engine stops with a short deadline and starts no thread. After a fork the child's engines are
inactive: their threads do not exist there, their descriptors are closed without a word to the poller, which is the
parent's. The child may make and start engines of its own.
Thread: any. The set of running engines is the one piece of module state in the project, because exit and fork belong
to the process; os.register_at_fork() can't be undone, so it is called once.
"""

from __future__ import annotations

import atexit
import os
from typing import Protocol
from weakref import WeakSet


class Embedded(Protocol):
    def leave(self) -> None:
        """The interpreter is shutting down: stop soon."""

    def abandon(self) -> None:
        """This is the child after a fork. Only this thread exists, and any lock may be held by one that does not."""


_running: WeakSet[Embedded] = WeakSet()


def embed(engine: Embedded) -> None:
    """From start() on."""
    _running.add(engine)


def release(engine: Embedded) -> None:
    """When it has stopped."""
    _running.discard(engine)


def _leave_all() -> None:
    for engine in list(_running):
        engine.leave()


def _abandon_all() -> None:
    for engine in list(_running):
        engine.abandon()
    _running.clear()


atexit.register(_leave_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
