"""What a forked child must let go of: file locks above all, which it would hold for as long as it lives.

Thread: any. The set is module state, because forks belong to the process; os.register_at_fork() can't be undone.
Not here: engines, which have their own ending (net/embedding.py).
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Abandoned(Protocol):
    def abandon(self) -> None:
        """In the child after a fork: only this thread exists, any lock may be held by one that does not, and the
        files belong to the parent, which goes on."""


_held: WeakSet[Abandoned] = WeakSet()


def abandon_in_children(one: Abandoned) -> None:
    """From now on, as long as it exists."""
    _held.add(one)


def _abandon_all() -> None:
    for one in list(_held):
        one.abandon()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
