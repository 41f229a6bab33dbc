"""A mailbox: letters from any thread for one reader, with a wake-up that is sent only to a reader that sleeps."""

from __future__ import annotations

import threading
from collections.abc import Iterable
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
