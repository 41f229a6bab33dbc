"""A load generator: many SMTP sessions driven by one epoll loop, sending prepared bytes and counting replies.

It runs as a process of its own (`python -m tests.bench.load --port N ...`) and prints one line of JSON: messages,
seconds, its own processor seconds, latencies. Messages are numbered from 0, so that the server's store can be held
against the count. Of a reply it reads no more than the code. Nothing blocks: a server slow to accept or to shake hands
with one session holds up no other.
load.c does the same for less.
Not here: what is measured with which job (workloads.py), who is measured (targets.py).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

from tests.bench.letters import STAMP, on_the_wire, rest, stamp

# How long a server may be silent before the run is given up.
SILENCE = 20.0
# What is copied to put a number before it; the rest of a larger message is sent as it lies there.
COPIED = 65_536


@dataclass(frozen=True, slots=True)
class Job:
    """What every session does until `messages` are begun or `seconds` are over (0: no limit).

    `size` counts content octets; `dots` makes every line start with a dot; `opening` bounds the connections that wait
    for their greeting at the same time, for a server whose listen queue is short.
    """

    port: int
    sessions: int = 20
    messages: int = 0
    seconds: float = 0.0
    size: int = 1024
    per_connection: int = 1  # 0: connections are kept
    recipients: int = 1
    group: bool = False  # MAIL, all RCPT and DATA in one write
    dots: bool = False
    starttls: bool = False
    opening: int = 0  # 0: no bound


# Bytes to send, more bytes that follow them, and the number of replies to wait for. SECURE stands for a handshake.
Step = tuple[bytes, memoryview, int]
NOTHING = memoryview(b"")
SECURE: Step = (b"", NOTHING, -1)


class Session:
    """One connection and where it is in its script."""

    __slots__ = (
        *("following", "greeted", "is_over", "owed", "partial", "script", "secured", "shaking", "socket", "unsent"),
        "waits_to_send",
    )

    def __init__(self, sock: socket.socket, script: Iterator[Step]) -> None:
        self.socket = sock
        self.script = script
        self.owed = 1  # the greeting
        self.unsent: memoryview = NOTHING
        self.following: memoryview = NOTHING
        self.partial = b""
        self.greeted = self.shaking = self.secured = self.waits_to_send = self.is_over = False


class Generator:
    """Thread: one."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.poller = select.epoll()
        self.sessions: dict[int, Session] = {}
        self.latencies: list[float] = []
        self.begun = self.opening = 0
        self.until = float("inf")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        mail = b"MAIL FROM:<probe@bench.test>\r\n"
        rcpts = [b"RCPT TO:<user%d@bench.test>\r\n" % n for n in range(job.recipients)]
        whole = mail + b"".join(rcpts) + b"DATA\r\n"
        steps = [(whole, 2 + len(rcpts))] if job.group else [(one, 1) for one in (mail, *rcpts, b"DATA\r\n")]
        self.envelope: list[Step] = [(words, NOTHING, owed) for words, owed in steps]
        wire = on_the_wire(stamp(0) + rest(job.size, job.dots))[STAMP:]
        self.copied, self.shared = wire[:COPIED], memoryview(wire)[COPIED:]

    def run(self) -> dict[str, float]:
        began, before = time.monotonic(), os.times()
        if self.job.seconds:
            self.until = began + self.job.seconds
        self._open_more()
        while self.sessions:
            events = self.poller.poll(SILENCE)
            if not events:
                raise SystemExit(f"the server was silent for {SILENCE:g} s")
            for descriptor, mask in events:
                session = self.sessions[descriptor]
                if mask & select.EPOLLOUT:
                    self._send(session)
                if mask & ~select.EPOLLOUT:
                    self._receive(session)
        seconds, after = time.monotonic() - began, os.times()
        if len(self.latencies) != self.begun or not self.begun:
            raise SystemExit(f"{len(self.latencies)} messages were accepted, not {self.begun}")
        ordered = sorted(self.latencies)
        return {
            "messages": self.begun,
            "seconds": seconds,
            "cpu": after.user + after.system - before.user - before.system,
            "p50_ms": ordered[len(ordered) // 2] * 1000,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
        }

    def _may_begin(self) -> bool:
        return (not self.job.messages or self.begun < self.job.messages) and time.monotonic() < self.until

    def _script(self) -> Iterator[Step]:
        """What a session says after each time that the replies owed to it have come."""
        yield b"EHLO bench.test\r\n", NOTHING, 1
        if self.job.starttls:
            yield b"STARTTLS\r\n", NOTHING, 1
            yield SECURE
            yield b"EHLO bench.test\r\n", NOTHING, 1
        taken, most = 0, self.job.per_connection or float("inf")
        while taken < most and self._may_begin():
            number, began = self.begun, time.monotonic()
            self.begun += 1
            taken += 1
            yield from self.envelope
            yield stamp(number) + self.copied, self.shared, 1
            self.latencies.append(time.monotonic() - began)
        yield b"QUIT\r\n", NOTHING, 1

    def _open_more(self) -> None:
        while (
            len(self.sessions) < self.job.sessions
            and (not self.job.opening or self.opening < self.job.opening)
            and (not self.job.messages or self.begun + self.opening < self.job.messages)
            and (time.monotonic() < self.until)
        ):
            sock = socket.socket()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.job.port))
            self.sessions[sock.fileno()] = Session(sock, self._script())
            self.poller.register(sock.fileno(), select.EPOLLIN)
            self.opening += 1

    def _advance(self, session: Session) -> None:
        if not session.greeted:
            session.greeted = True
            self.opening -= 1
            if self.job.opening:
                self._open_more()
        step = next(session.script, None)
        if step is None:
            return self._close(session)
        if step is SECURE:
            session.shaking = session.secured = True
            session.socket = self.tls.wrap_socket(session.socket, do_handshake_on_connect=False)
            return self._shake_hands(session)
        words, session.following, session.owed = step
        session.unsent = memoryview(words)
        self._send(session)

    def _shake_hands(self, session: Session) -> None:
        try:
            session.socket.do_handshake()  # type: ignore[attr-defined]
        except ssl.SSLWantReadError:
            return
        session.shaking = False
        self._advance(session)

    def _send(self, session: Session) -> None:
        try:
            while session.unsent:
                session.unsent = session.unsent[session.socket.send(session.unsent) :]
                if not session.unsent:
                    session.unsent, session.following = session.following, NOTHING
        except (BlockingIOError, ssl.SSLWantWriteError):
            if not session.waits_to_send:
                session.waits_to_send = True
                self.poller.modify(session.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        else:
            if session.waits_to_send:
                session.waits_to_send = False
                self.poller.modify(session.socket.fileno(), select.EPOLLIN)

    def _receive(self, session: Session) -> None:
        if session.shaking:
            return self._shake_hands(session)
        more = True
        while more:
            try:
                data = session.socket.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise SystemExit("the server hung up early")
            self._read_replies(session, data)
            # Under TLS plaintext may wait where epoll can't see it.
            more = session.secured and not session.shaking and not session.is_over

    def _read_replies(self, session: Session, data: bytes) -> None:
        lines = (session.partial + data).split(b"\r\n")
        session.partial = lines.pop()
        for line in lines:
            if line[:1] not in (b"2", b"3"):
                raise SystemExit(f"the server refused: {line.decode('ascii', 'replace')}")
            session.owed -= line[3:4] != b"-"
        if session.owed == 0:
            self._advance(session)

    def _close(self, session: Session) -> None:
        """After the reply to QUIT, without waiting for the server to hang up first."""
        session.is_over = True
        descriptor = session.socket.fileno()
        self.poller.unregister(descriptor)
        del self.sessions[descriptor]
        session.socket.close()
        self._open_more()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__.splitlines()[0])
    for one in fields(Job):
        kind = {"int": int, "float": float}.get(str(one.type))
        option = f"--{one.name.replace('_', '-')}"
        if kind is None:
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=kind, default=one.default, required=one.name == "port")
    print(json.dumps(Generator(Job(**vars(parser.parse_args()))).run()))


if __name__ == "__main__":
    main()
