"""A link to a next hop: one socket, with TLS once that was started, every wait within its time. The only place of the
relay's deliveries that holds a socket.

Sockets block, with time-outs. What goes wrong is an OSError: TimeoutError where time ran out, ConnectionError where TLS
broke.
Thread: one courier at a time.
Not here: what is said (conversation.py).
"""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections.abc import Callable

from certs.side import TlsSide
from certs.trouble import TlsError
from relay.hop import Hop, OpenTls

# Bytes of replies read at a time; the buffer is allocated whole for every read.
REPLIES = 8_192
# How long one send may block before a reply is looked for; a hop that says 552 and stops reading is heard then.
SEND_SLICE = 2.0


def addresses_of(host: str, port: int) -> list[str]:
    """IP addresses of a host by the system's resolver, in its order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Link:
    """connect(), perhaps start_tls(), then send() and receive() until close(). Deadlines are monotonic."""

    def __init__(self, hop: Hop) -> None:
        self.hop = hop
        self.tls: TlsSide | None = None
        self._socket: socket.socket | None = None
        self._seconds = -1.0
        self._until = math.inf

    # Time

    def limit(self, seconds: float) -> None:
        """From here on there are so many seconds in all, whatever each step may take."""
        self._until = time.monotonic() + seconds

    def lift_limit(self) -> None:
        self._until = math.inf

    @property
    def is_out_of_time(self) -> bool:
        return time.monotonic() >= self._until

    def _left(self, deadline: float) -> float:
        left = min(deadline, self._until) - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _wait_for(self, seconds: float) -> None:
        # A system call that is saved for nearly every message: the limit changes with the step, hardly ever by more
        # than a part of a second within one.
        if abs(seconds - self._seconds) > 0.5 or seconds == 0.0 or self._seconds == 0.0:
            assert self._socket is not None
            self._socket.settimeout(seconds)
            self._seconds = seconds

    # Opening and closing

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def connect(self, seconds: float, source_address: str = "") -> None:
        hop = self.hop
        if hop.port == 0:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(seconds)
            self._socket.connect(hop.address)
            return
        source = (source_address, 0) if source_address else None
        self._socket = socket.create_connection((hop.address, hop.port), seconds, source_address=source)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start_tls(self, open_tls: OpenTls, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            tls = open_tls(self.hop.host)
            while not tls.handshake():
                self._send(tls.take_output(), deadline)
                data = self._receive(deadline)
                if not data:
                    raise ConnectionError(f"{self.hop} closed the connection in the TLS handshake")
                tls.feed(data)
            self._send(tls.take_output(), deadline)
        except TlsError as error:
            raise ConnectionError(f"TLS with {self.hop}: {error}") from error
        self.tls = tls

    def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # Bytes

    def send(self, data: bytes, seconds: float, meanwhile: Callable[[], None] | None = None) -> None:
        """All of it; `meanwhile` is called whenever the hop takes nothing for some time."""
        if self.tls is not None:
            try:
                self.tls.write(data)
                data = self.tls.take_output()
            except TlsError as error:
                raise ConnectionError(f"TLS: {error}") from error
        self._send(data, time.monotonic() + seconds, meanwhile)

    def receive(self, deadline: float) -> bytes:
        """What the hop said, b"" where it closed."""
        while True:
            data = self._receive(deadline)
            if not data or self.tls is None:
                return data
            data = self._decrypted(data)
            if data or self.tls.ended:
                return data

    def look(self) -> bytes | None:
        """What has arrived, None where that is nothing, without waiting; b"" where the hop closed."""
        assert self._socket is not None
        try:
            self._wait_for(0.0)
            data = self._socket.recv(REPLIES)
        except (BlockingIOError, TimeoutError):
            return None
        if not data or self.tls is None:
            return data
        data = self._decrypted(data)
        return data if data or self.tls.ended else None

    def _decrypted(self, data: bytes) -> bytes:
        assert self.tls is not None
        try:
            self.tls.feed(data)
            return self.tls.read()
        except TlsError as error:
            raise ConnectionError(f"TLS: {error}") from error

    def _send(self, data: bytes, deadline: float, meanwhile: Callable[[], None] | None = None) -> None:
        assert self._socket is not None
        if not data:
            return
        view = memoryview(data)
        while True:
            self._wait_for(min(self._left(deadline), SEND_SLICE))
            try:
                sent = self._socket.send(view)
            except TimeoutError:
                if meanwhile is not None:
                    meanwhile()
                continue
            if sent == len(view):
                return
            view = view[sent:]

    def _receive(self, deadline: float) -> bytes:
        assert self._socket is not None
        self._wait_for(self._left(deadline))
        return self._socket.recv(REPLIES)
