"""Readiness of descriptors, and a bell that wakes the sleeper: epoll where there is, `selectors` elsewhere.

Rule: only the leader of the reactor that owns the poller calls it; ring() is for any thread.
Not here: what a readiness means (reactor.py).
"""

from __future__ import annotations

import os
import select
import selectors
import socket
from typing import Protocol

READ, WRITE = 1, 4  # the values of EPOLLIN and EPOLLOUT

# Events taken at once: with more, the first of them would wait for the last one's turn.
_BATCH = 256


class Poller(Protocol):
    """What a reactor needs to know from the system. A descriptor is registered at most once."""

    def add(self, descriptor: int, mask: int, exclusive: bool = False) -> None:
        """Report this descriptor. `exclusive`: of several processes that wait for it, wake one (where there is)."""

    def change(self, descriptor: int, mask: int) -> None: ...

    def remove(self, descriptor: int) -> None: ...

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """(descriptor, what is ready) after at most `timeout` seconds, None for ever. Errors count as readable.

        The bell is not reported."""

    def ring(self) -> None:
        """End the poll that sleeps, or the next one."""

    def close(self) -> None:
        """Close the poller's own descriptors, without a word to the system about those registered."""


class EpollPoller:
    """Linux. The bell is an event counter in edge-triggered mode, so that it never has to be read."""

    __slots__ = ("_bell", "_epoll")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN | select.EPOLLET)

    def add(self, descriptor: int, mask: int, exclusive: bool = False) -> None:
        self._epoll.register(descriptor, mask | select.EPOLLEXCLUSIVE if exclusive else mask)

    def change(self, descriptor: int, mask: int) -> None:
        self._epoll.modify(descriptor, mask)

    def remove(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        events = self._epoll.poll(timeout, _BATCH)
        for index, event in enumerate(events):
            if event[0] == self._bell:
                del events[index]
                break
        return events

    def ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        os.close(self._bell)
        self._epoll.close()


class SelectorPoller:
    """Wherever CPython runs. The bell is a pair of sockets; one byte in it is enough."""

    __slots__ = ("_bell", "_ear", "_selector")

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector if selector is not None else selectors.DefaultSelector()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)

    def add(self, descriptor: int, mask: int, exclusive: bool = False) -> None:
        self._selector.register(descriptor, _to_selector(mask))

    def change(self, descriptor: int, mask: int) -> None:
        self._selector.modify(descriptor, _to_selector(mask))

    def remove(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        ear = self._ear.fileno()
        events = []
        for key, ready in self._selector.select(timeout):
            if key.fd == ear:
                self._listen()
            else:
                mask = READ if ready & selectors.EVENT_READ else 0
                events.append((key.fd, mask | WRITE if ready & selectors.EVENT_WRITE else mask))
        return events

    def ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it rings already

    def close(self) -> None:
        self._ear.close()
        self._bell.close()
        self._selector.close()

    def _listen(self) -> None:
        try:
            while len(self._ear.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass


def _to_selector(mask: int) -> int:
    return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def is_writable(descriptor: int) -> bool:
    """Whether a write of a few bytes would not wait; also where it would fail. True where the system can't tell."""
    if not hasattr(select, "poll"):
        return True
    asked = select.poll()
    asked.register(descriptor, select.POLLOUT)
    return bool(asked.poll(0))


def best_poller() -> Poller:
    """epoll where there is."""
    if hasattr(select, "epoll") and hasattr(os, "eventfd"):
        return EpollPoller()
    return SelectorPoller()
