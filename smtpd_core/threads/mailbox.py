"""A mailbox: letters from any thread for one reader, with a wake-up that is sent only to a reader that sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Letters in order of arrival, unbounded: senders bound themselves (a connection or a courier has one letter).

    Thread: put() and put_all() from any; take_all() and wait() from the reader only.
    """

    def __init__(self) -> None:
        self._letters: list[T] = []
        self._arrived = threading.Condition(threading.Lock())
        self._poked = False

    def put(self, letter: T) -> None:
        with self._arrived:
            self._letters.append(letter)
            self._arrived.notify()

    def put_all(self, letters: Iterable[T]) -> None:
        with self._arrived:
            self._letters.extend(letters)
            self._arrived.notify()

    def poke(self) -> None:
        """Wake the reader without a letter."""
        with self._arrived:
            self._poked = True
            self._arrived.notify()

    def take_all(self) -> list[T]:
        """All letters that are here, oldest first; never blocks."""
        with self._arrived:
            letters, self._letters = self._letters, []
            self._poked = False
            return letters

    def wait(self, timeout: float | None = None) -> list[T]:
        """Sleep until a letter or a poke is here or `timeout` seconds passed, then take all."""
        with self._arrived:
            if not self._letters and not self._poked:
                self._arrived.wait(timeout)
            letters, self._letters = self._letters, []
            self._poked = False
            return letters


class PollMailbox(Generic[T]):
    """A mailbox whose reader sleeps in a poll: `wake` is called only where the reader said that it goes to sleep.

    Thread: put(), put_all() and poke() from any; the rest from the reader only. After close() letters are refused.
    """

    __slots__ = ("_is_closed", "_letters", "_lock", "_sleeps", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._letters: list[T] = []
        self._lock = threading.Lock()
        self._sleeps = False
        self._is_closed = False
        self._wake = wake

    def put(self, letter: T) -> bool:
        """False where the mailbox is closed: the letter stays with the sender."""
        with self._lock:
            if self._is_closed:
                return False
            self._letters.append(letter)
            self._rouse()
            return True

    def put_all(self, letters: Iterable[T]) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._letters.extend(letters)
            self._rouse()
            return True

    def poke(self) -> None:
        """Wake the reader without a letter."""
        with self._lock:
            if not self._is_closed:
                self._rouse()

    def take_all(self) -> list[T]:
        """All letters that are here, oldest first. The reader is awake from now on."""
        with self._lock:
            self._sleeps = False
            if not self._letters:
                return []
            letters, self._letters = self._letters, []
            return letters

    def go_to_sleep(self) -> list[T]:
        """Letters, or none: then whoever posts from now on wakes the poll."""
        with self._lock:
            if self._letters:
                letters, self._letters = self._letters, []
                return letters
            self._sleeps = True
            return []

    def close(self) -> list[T]:
        """The last letters; none is taken any more."""
        with self._lock:
            self._is_closed = True
            letters, self._letters = self._letters, []
            return letters

    def abandon(self) -> None:
        """In the child after a fork: closed, and the lock may be held for ever."""
        self._lock = threading.Lock()
        self._is_closed = True
        self._letters = []

    def _rouse(self) -> None:
        """Within the lock, so that close() is never followed by a ring to a bell that is gone."""
        if self._sleeps:
            self._sleeps = False
            self._wake()
