"""Open loop: messages start at fixed instants whether or not the earlier ones are done, as the world sends them.

The latency of a message counts from the instant at which it was due, so that a stall is seen in full.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from tests.bench.crowd import connect
from tests.bench.letters import content, on_the_wire

STEPS = (b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n", b"DATA\r\n", on_the_wire(content(1024)))


def arrivals(port: int, rate: int, seconds: float, sessions: int = 30) -> list[float]:
    """Milliseconds from due to accepted, one a message."""
    free = deque(connect(port, sessions))
    busy: dict[int, tuple[socket.socket, int, float]] = {}
    poller = select.epoll()
    for sock in free:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poller.register(sock.fileno(), select.EPOLLIN)
    times: list[float] = []
    total, started, began = int(rate * seconds), 0, time.perf_counter()
    while len(times) < total:
        now = time.perf_counter()
        while started < total and free and began + started / rate <= now:
            sock = free.popleft()
            busy[sock.fileno()] = (sock, 0, began + started / rate)
            sock.sendall(STEPS[0])
            started += 1
        wait = max(0.0, began + started / rate - now) if started < total and free else 1.0
        for number, _ in poller.poll(wait):
            sock, step, due = busy.pop(number)
            if sock.recv(4096)[:1] not in b"23":
                raise SystemExit("the server refused")
            if step + 1 < len(STEPS):
                busy[number] = (sock, step + 1, due)
                sock.sendall(STEPS[step + 1])
            else:
                times.append((time.perf_counter() - due) * 1000)
                free.append(sock)
    return times
