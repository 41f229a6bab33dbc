"""A ticket: a verdict that comes later, so that no thread has to wait for it.

Its life: open -> taken (the commit loop has it in a batch, it can't be withdrawn any more) -> resolved.
Or: open -> withdrawn, where the one who waits gave up first. A ticket is resolved once; later calls are ignored.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from smtpd_core.threads.mailbox import PollMailbox

log = logging.getLogger(__name__)

_OPEN, _TAKEN, _WITHDRAWN, _RESOLVED = range(4)

# One lock for the state changes of all tickets: they are a few instructions long, and a lock for every message
# would be one more allocation on the hot path.
_lock = threading.Lock()


def _renew_lock() -> None:
    """In the child after a fork: a thread that does not exist there may hold it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Ticket:
    """Thread: resolve() and take() from the one who keeps; watch(), withdraw() and wait() from the one who waits.

    `outcome` is None where all went well, else the exception that tells why not.
    """

    __slots__ = ("_letter", "_mailbox", "_state", "_watchers", "outcome", "value")

    def __init__(self) -> None:
        self._state = _OPEN
        self._mailbox: PollMailbox[Any] | None = None
        self._letter: Any = None
        self._watchers: list[Callable[[Ticket], None]] | None = None
        self.outcome: BaseException | None = None
        self.value: Any = None

    @property
    def is_resolved(self) -> bool:
        return self._state == _RESOLVED

    def take(self) -> bool:
        """The commit loop claims the ticket; False where it was withdrawn."""
        with _lock:
            if self._state != _OPEN:
                return False
            self._state = _TAKEN
            return True

    def withdraw(self) -> bool:
        """Give up; True where nothing will be kept, False where the commit is under way: await its outcome."""
        with _lock:
            if self._state != _OPEN:
                return self._state == _WITHDRAWN
            self._state = _WITHDRAWN
            return True

    def resolve(self, outcome: BaseException | None = None, value: Any = None) -> None:
        """Say the verdict and call the watcher, in the calling thread, outside any lock."""
        with _lock:
            if self._state in (_RESOLVED, _WITHDRAWN):
                return
            self.outcome = outcome
            self.value = value
            self._state = _RESOLVED
        self._tell()

    def watch(self, watcher: Callable[[Ticket], None]) -> None:
        """Call `watcher` once, when the verdict is there; at once and in this thread where it is already.

        Any number may watch."""
        with _lock:
            if self._state != _RESOLVED:
                if self._watchers is None:
                    self._watchers = [watcher]
                else:
                    self._watchers.append(watcher)
                return
        watcher(self)

    def post_to(self, mailbox: PollMailbox[Any], letter: Any) -> None:
        """Put `letter` into `mailbox` once the verdict is there; resolve_all() sends all letters of a batch at once."""
        with _lock:
            if self._state != _RESOLVED:
                self._mailbox = mailbox
                self._letter = letter
                return
        mailbox.put(letter)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the verdict is there; False on time-out. For callers outside the engine (Outbox.send)."""
        arrived = threading.Event()

        def watcher(_: Ticket) -> None:
            arrived.set()

        self.watch(watcher)
        if arrived.wait(timeout):
            return True
        with _lock:
            if self._state == _RESOLVED:
                return True
            if self._watchers is not None:
                self._watchers.remove(watcher)  # who asks again and again leaves nothing behind
        return False

    def _tell(self) -> None:
        """Watchers and mailbox never change once the state is RESOLVED, so they are read without the lock."""
        if self._watchers is not None:
            self._call_watchers()
        if self._mailbox is not None:
            self._mailbox.put(self._letter)

    def _call_watchers(self) -> None:
        """Others wait in the same batch, and a verdict that is told can't be taken back: what one raises is logged."""
        for watcher in self._watchers or ():
            try:
                watcher(self)
            except Exception:
                log.exception("whoever waited for a ticket raised when it was told")


def resolve_all(tickets: Iterable[Ticket], outcome: BaseException | None = None) -> None:
    """Resolve every ticket with one outcome; a reactor that waits for many of them is woken once."""
    resolved = []
    with _lock:
        for ticket in tickets:
            if ticket._state not in (_RESOLVED, _WITHDRAWN):
                ticket.outcome = outcome
                ticket._state = _RESOLVED
                resolved.append(ticket)
    letters: dict[PollMailbox[Any], list[Any]] = {}
    for ticket in resolved:
        if ticket._watchers is not None:
            ticket._call_watchers()
        if ticket._mailbox is not None:
            letters.setdefault(ticket._mailbox, []).append(ticket._letter)
    for mailbox, post in letters.items():
        mailbox.put_all(post)
