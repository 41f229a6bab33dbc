"""Accepting: newcomers in batches, the guard's judgement on each, and a pause where descriptors have run out.

Thread: the reactor's leader, between turns.
Not here: binding (listeners.py), who may come in (guard.py).
"""

from __future__ import annotations

import errno
import itertools
import logging
import socket
import sys
import time
from collections.abc import Callable

from smtpd_core.net.connection import Connection
from smtpd_core.net.deadlines import Alarm, Deadlines
from smtpd_core.net.guard import BLOCKED_554
from smtpd_core.net.house import House
from smtpd_core.net.listeners import Listener
from smtpd_core.net.poller import READ, Poller
from smtpd_core.net.settings import Peer
from smtpd_core.net.states import DONT_WAIT

log = logging.getLogger(__name__)

# Newcomers taken from one listener before the others have their turn.
_ACCEPT_BATCH = 64

# Where several processes accept, each leaves something for the others.
_SHARED_BATCH = 2

# Descriptors are exhausted: nobody is accepted for so long. Closing a connection ends the pause at once.
_ACCEPT_PAUSE = 1.0

# Seconds between two lines in the log about that, however often it comes and goes.
_TOLD_AGAIN = 60.0
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_INHERITS_NODELAY = sys.platform == "linux"


class Accepting:
    """The listeners of one reactor, which it arms and disarms. `take` gets each connection that was let in.

    `at` is the reactor's table of descriptors; `flow` begins every session id.
    """

    def __init__(
        self,
        house: House,
        poller: Poller,
        deadlines: Deadlines,
        listeners: list[Listener],
        at: dict[int, Connection | Listener],
        take: Callable[[Connection], None],
        flow: str,
    ) -> None:
        self._house = house
        self._poller = poller
        self._deadlines = deadlines
        self.listeners = listeners
        self._at = at
        self._take = take
        self._flow = flow
        self._numbers = itertools.count(1)
        self._again = Alarm(self.resume)
        self._is_accepting = False
        self._is_paused = False
        self._is_over = False
        self._told_at = -_TOLD_AGAIN

    def accept(self, listener: Listener, now: float) -> None:
        """Take newcomers while there are some; how many are tried grows and shrinks with how many came last time,
        because a try in vain costs as much as accepting."""
        for _ in range(listener.burst):
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                listener.burst = max(1, listener.burst // 2)
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._pause_for_descriptors(error, now)
                    return
                continue  # the newcomer is gone already, or its network failed: accept(2), "Error handling"
            self._welcome(listener, sock, address, now)
        listener.burst = min(_SHARED_BATCH if listener.is_shared else _ACCEPT_BATCH, listener.burst * 2)

    def _welcome(self, listener: Listener, sock: socket.socket, address: object, now: float) -> None:
        if not DONT_WAIT:
            sock.setblocking(False)
        door = listener.door
        host, port = _host_and_port(address)
        if not _INHERITS_NODELAY and host:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if door.settings.proxy_protocol and not listener.trusts(host):
            log.warning("%s is no trusted proxy of listener %s", host, listener.text)
            self._refuse(sock, BLOCKED_554)
            return
        refusal = self._house.guard.admit(host, now, door.settings.proxy_protocol)
        if refusal is not None:
            self._refuse(sock, b"" if door.settings.tls == "implicit" else refusal)
            return
        local = listener.address if isinstance(listener.address, tuple) else ("", 0)
        peer = Peer(host, port, door.settings, local)
        connection = Connection(self._house, sock, door, peer, f"{self._flow}{next(self._numbers):x}")
        if not door.settings.proxy_protocol:
            connection.counted_as = host
        limit = self._house.timeouts.session
        connection.session_due = now + limit if limit else 0.0
        self._take(connection)

    def _refuse(self, sock: socket.socket, reply: bytes) -> None:
        try:
            if reply:
                sock.send(reply, DONT_WAIT)
            sock.close()
        except OSError:
            sock.close()  # it did not wait for the answer

    def _pause_for_descriptors(self, error: OSError, now: float) -> None:
        if self._is_accepting:
            if now - self._told_at >= _TOLD_AGAIN:
                self._told_at = now
                log.error("no descriptor for a new connection (%s): accepting pauses", error.strerror)
            self._disarm()
        self._again.due = now + _ACCEPT_PAUSE
        self._deadlines.arm(self._again, now)

    def _disarm(self) -> None:
        self._is_accepting = False
        for listener in self.listeners:
            if listener.is_armed:
                listener.is_armed = False
                self._poller.remove(listener.socket.fileno())

    def resume(self) -> None:
        """Arm the listeners, unless accepting is paused or over."""
        self._again.due = 0.0
        self._deadlines.forget(self._again)
        if self._is_over or self._is_paused:
            return
        self._is_accepting = True
        for listener in self.listeners:
            if not listener.is_armed:
                listener.is_armed = True
                descriptor = listener.socket.fileno()
                self._at[descriptor] = listener
                self._poller.add(descriptor, READ, listener.is_shared)

    def pause(self, is_paused: bool) -> None:
        """Newcomers wait in the system's backlog, or are let in again."""
        self._is_paused = is_paused
        if is_paused:
            self._take_what_we_were_woken_for()
            self._disarm()
        else:
            self.resume()

    def _take_what_we_were_woken_for(self) -> None:
        """Of several processes the system wakes one for a newcomer. If that one turns away, nobody is woken again, and
        the newcomer waits in silence until another one comes."""
        now = time.monotonic()
        for listener in self.listeners:
            if not (listener.is_shared and listener.is_armed):
                continue
            for _ in range(listener.door.settings.backlog):
                try:
                    sock, address = listener.socket.accept()
                except OSError:
                    break
                self._welcome(listener, sock, address, now)

    def descriptor_is_free(self) -> None:
        """A connection was closed: a pause for want of descriptors ends."""
        if self._again.due:
            self.resume()

    def close(self) -> None:
        """For good."""
        self._take_what_we_were_woken_for()
        self._disarm()
        self._is_over = True
        for listener in self.listeners:
            self._at.pop(listener.socket.fileno(), None)
            listener.close()


def _host_and_port(address: object) -> tuple[str, int]:
    """ "" for a unix socket; an IPv4 client on a dual-stack socket appears as IPv4."""
    if not isinstance(address, tuple):
        return "", 0
    host: str = address[0]
    return (host[7:] if host.startswith("::ffff:") else host), address[1]
