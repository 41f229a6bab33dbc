"""Orders of operators to whoever holds the queue, over a socket in the state directory (0600: its owner alone).

One connection is one order: a line of JSON {"order": NAME, "ids": [...]} is answered by {"done": N} or {"error": TEXT}.
Thread: ControlSocket serves in a loop of its own; ask() is for another process.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from relay.queue import Queue
from smtpd_core.threads import Loop, Mailbox, start_loop

log = logging.getLogger(__name__)

NAME = "queue.sock"

# One order, and how many ids ask() puts into one: a transaction that holds up nobody for long.
MAX_ORDER = 4 << 20
IDS = 5000

# The order to look for segments that another program put into the spool. It needs no ids.
LOOK_AROUND = "look around"

# An operator's program that stops half-way holds nobody up for longer.
PATIENCE = 10.0


def orders(queue: Queue, clock: Callable[[], float] = time.time) -> dict[str, Callable[[Sequence[str]], int]]:
    """What may be ordered, by name."""
    return {
        "hold": queue.hold,
        "release": lambda ids: queue.let_go(ids, clock()),
        "retry": lambda ids: queue.retry_now(ids, clock()),
        "delete": queue.delete,
        "set aside": queue.set_aside,
    }


class ControlSocket:
    """Listens in `state`; `changed` is called after every order that did something (the dispatcher's wake-up),
    `look_around` at the order of that name (intake's)."""

    def __init__(
        self,
        state: str | os.PathLike[str],
        queue: Queue,
        changed: Callable[[], None] | None = None,
        look_around: Callable[[], None] | None = None,
    ) -> None:
        self._orders = orders(queue)
        if look_around is not None:
            self._orders[LOOK_AROUND] = lambda ids: look_around() or 0
        self._changed = changed
        self._state = os.fspath(state)
        path = os.path.join(self._state, NAME)
        if os.path.lexists(path):
            os.unlink(path)  # whoever made it is gone: the queue's lock is ours
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.set_inheritable(False)
        with _short_path(self._state) as short:
            self._listener.bind(short)
        os.chmod(path, 0o600)
        self._listener.listen(8)
        self._stopping = False
        self._pause: Mailbox[None] = Mailbox()
        self._loop: Loop = start_loop("control", self._run)

    @classmethod
    def beside(
        cls,
        state: str | os.PathLike[str],
        queue: Queue,
        changed: Callable[[], None] | None = None,
        look_around: Callable[[], None] | None = None,
    ) -> ControlSocket | None:
        """None where the system has no unix sockets: orders then wait until the server is stopped."""
        return cls(state, queue, changed, look_around) if hasattr(socket, "AF_UNIX") else None

    def stop(self, timeout: float | None = None) -> bool:
        """Idempotent."""
        if not self._stopping:
            self._stopping = True
            self._pause.poke()
            try:
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the loop
            except OSError:
                pass  # some systems wake it by the close alone
            self._listener.close()
            try:
                os.unlink(os.path.join(self._state, NAME))
            except FileNotFoundError:
                pass
        return self._loop.join(timeout)

    def abandon(self) -> None:
        """In the child after a fork: who connects must not wait for us once the parent is gone."""
        self._stopping = True
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                # No descriptor left, or a client that went: the next order may come through.
                log.warning("control: no order could be taken", exc_info=True)
                self._pause.wait(1.0)
                continue
            with connection:
                try:
                    connection.settimeout(PATIENCE)
                    connection.sendall(json.dumps(self._answer(_read(connection))).encode() + b"\n")
                except OSError as error:
                    log.warning("control: an order was not answered: %s", error)

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            order = json.loads(line)
            name, ids = order["order"], order["ids"]
            if name not in self._orders or not all(isinstance(one, str) for one in ids):
                return {"error": f"orders are {', '.join(self._orders)} with a list of ids"}
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": 'an order is a line of JSON: {"order": "hold", "ids": ["..."]}'}
        try:
            done = self._orders[name](ids)
        except Exception as error:
            log.exception("control: %s failed", name)
            return {"error": str(error)}
        log.info("control: %s did something for %d of %d messages", name, done, len(ids))
        if done and self._changed is not None:
            self._changed()
        return {"done": done}


def ask(state: str | os.PathLike[str], order: str, ids: Sequence[str]) -> int:
    """Give an order to the process that holds the queue. For how many messages it did something. Very many ids are
    several orders.

    Raises ConnectionRefusedError or FileNotFoundError where nobody listens, ValueError with what the holder said where
    it refused."""
    return sum(_ask(state, order, ids[at : at + IDS]) for at in range(0, len(ids) or 1, IDS))


def _ask(state: str | os.PathLike[str], order: str, ids: Sequence[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection, _short_path(os.fspath(state)) as short:
        connection.settimeout(6 * PATIENCE)  # it may be behind others
        try:
            connection.connect(short)
        except TimeoutError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.path.join(state, NAME)) from None
        connection.sendall(json.dumps({"order": order, "ids": list(ids)}).encode() + b"\n")
        answer = json.loads(_read(connection) or b'{"error": "the server hung up"}')
    if "error" in answer:
        raise ValueError(answer["error"])
    return int(answer["done"])


def _read(connection: socket.socket) -> bytes:
    """One line; what is longer than an order may be is cut, and then is none."""
    data = b""
    while b"\n" not in data and len(data) < MAX_ORDER:
        piece = connection.recv(65_536)
        if not piece:
            break
        data += piece
    return data


@contextmanager
def _short_path(state: str) -> Iterator[str]:
    """The socket's path in few characters: the address of a unix socket holds about a hundred, a path may be longer."""
    path = os.path.join(state, NAME)
    if len(os.fsencode(path)) < 100 or not os.path.exists("/proc/self/fd"):
        yield path
        return
    folder = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)
