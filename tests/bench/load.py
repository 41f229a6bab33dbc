"""A load generator: many SMTP sessions driven by one epoll loop, sending prepared bytes and counting replies.

It runs as a process of its own (`python -m tests.bench.load --port N ...`) and prints one line of JSON: messages,
seconds, its own processor seconds, latencies. Of a reply it reads no more than the code.
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
from collections import deque
from dataclasses import dataclass, fields

# How long a server may be silent before the run is given up.
SILENCE = 20.0


@dataclass(frozen=True, slots=True)
class Job:
    """What every session does. `size` counts content octets; `dots` makes every line start with a dot."""

    port: int
    sessions: int = 20
    messages: int = 1000
    size: int = 1024
    per_connection: int = 1  # 0: connections are kept, each carries its share
    recipients: int = 1
    group: bool = False  # MAIL, all RCPT and DATA in one write
    dots: bool = False
    starttls: bool = False
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Step:
    """Bytes to send and the number of replies to wait for."""

    words: bytes
    owed: int = 1
    begins: bool = False  # a transaction begins: its latency is counted from here
    ends: bool = False


HELLO = Step(b"EHLO bench.test\r\n")
STARTTLS = Step(b"STARTTLS\r\n")


def content(size: int, dots: bool = False) -> bytes:
    """Lines of 76 columns (78 octets), a header first; the same for every run."""
    head = b"Subject: bench\r\nFrom: <probe@bench.test>\r\n\r\n"
    line = (b"." * 6 + b"a" * 70 if dots else b"abcdefghijklmnopqrstuvwxyz0123456789+/" * 2) + b"\r\n"
    whole, rest = divmod(max(0, size - len(head)), len(line))
    return head + line * whole + (b"z" * (rest - 2) + b"\r\n" if rest >= 2 else b"")


def on_the_wire(text: bytes) -> bytes:
    """Content with dots stuffed and the end mark."""
    return text.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def transaction(job: Job) -> list[Step]:
    """One message, in lock step or with its envelope in one write (RFC 2920)."""
    body = Step(on_the_wire(content(job.size, job.dots)), ends=True)
    mail = b"MAIL FROM:<probe@bench.test>\r\n"
    rcpts = [b"RCPT TO:<user%d@bench.test>\r\n" % n for n in range(job.recipients)]
    if job.group:
        return [Step(mail + b"".join(rcpts) + b"DATA\r\n", 2 + len(rcpts), begins=True), body]
    return [Step(mail, begins=True), *map(Step, rcpts), Step(b"DATA\r\n"), body]


class Session:
    """One connection and where it is in its script."""

    __slots__ = ("began", "owed", "partial", "script", "socket", "step", "unsent")

    def __init__(self, sock: socket.socket, script: deque[Step]) -> None:
        self.socket = sock
        self.script = script
        self.step = Step(b"")
        self.owed = 1
        self.unsent = memoryview(b"")
        self.partial = b""
        self.began = 0.0


class Generator:
    """Runs a job to its end. A 4xx or 5xx ends the run: a bench that counts refusals measures nothing."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.transaction = transaction(job)
        self.poller = select.epoll()
        self.sessions: dict[int, Session] = {}
        self.left = job.messages  # not given to a session yet
        self.latencies: list[float] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE

    def run(self) -> dict[str, float]:
        began, before = time.monotonic(), os.times()
        for _ in range(min(self.job.sessions, self.job.messages)):
            self._open()
        while self.sessions:
            events = self.poller.poll(SILENCE)
            if not events:
                raise SystemExit(f"the server was silent for {SILENCE:g} s")
            for descriptor, mask in events:
                session = self.sessions[descriptor]
                if mask & select.EPOLLOUT:
                    self.poller.modify(descriptor, select.EPOLLIN)
                    self._send(session)
                if mask & ~select.EPOLLOUT:
                    self._receive(session)
        seconds, after = time.monotonic() - began, os.times()
        if len(self.latencies) != self.job.messages:
            raise SystemExit(f"{len(self.latencies)} messages were accepted, not {self.job.messages}")
        ordered = sorted(self.latencies)
        return {
            "messages": self.job.messages,
            "seconds": seconds,
            "cpu": after.user + after.system - before.user - before.system,
            "p50_ms": ordered[len(ordered) // 2] * 1000,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
        }

    def _open(self) -> None:
        share = self.job.per_connection or -(-self.job.messages // self.job.sessions)
        take = min(share, self.left)
        self.left -= take
        sock = socket.create_connection((self.job.host, self.job.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        secure = [HELLO, STARTTLS] if self.job.starttls else []
        session = Session(sock, deque([*secure, HELLO, *self.transaction * take, Step(b"QUIT\r\n")]))
        self.sessions[sock.fileno()] = session
        self.poller.register(sock.fileno(), select.EPOLLIN)

    def _shake_hands(self, session: Session) -> None:
        """As far as the server's bytes reach: while one session waits for them, others go on."""
        tls = session.socket
        assert isinstance(tls, ssl.SSLSocket)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        session.step = Step(b"")
        self._advance(session)

    def _advance(self, session: Session) -> None:
        if session.script:
            session.step = session.script.popleft()
            session.owed = session.step.owed
            session.unsent = memoryview(session.step.words)
            if session.step.begins:
                session.began = time.monotonic()
            self._send(session)

    def _send(self, session: Session) -> None:
        try:
            while session.unsent:
                session.unsent = session.unsent[session.socket.send(session.unsent) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.poller.modify(session.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _receive(self, session: Session) -> None:
        if session.step is STARTTLS and session.owed == 0:
            return self._shake_hands(session)
        more = True
        while more:
            try:
                data = session.socket.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                return self._close(session)
            self._read_replies(session, data)
            more = isinstance(session.socket, ssl.SSLSocket)  # plaintext may wait inside, where epoll can't see it

    def _read_replies(self, session: Session, data: bytes) -> None:
        lines = (session.partial + data).split(b"\r\n")
        session.partial = lines.pop()
        for line in lines:
            if line[:1] not in (b"2", b"3"):
                raise SystemExit(f"the server refused: {line.decode('ascii', 'replace')}")
            session.owed -= line[3:4] != b"-"
        if session.owed == 0:
            if session.step is STARTTLS:
                session.socket = self.tls.wrap_socket(session.socket, do_handshake_on_connect=False)
                return self._shake_hands(session)
            if session.step.ends:
                self.latencies.append(time.monotonic() - session.began)
            self._advance(session)

    def _close(self, session: Session) -> None:
        if session.script:
            raise SystemExit("the server hung up early")
        self.poller.unregister(session.socket.fileno())
        del self.sessions[session.socket.fileno()]
        session.socket.close()
        if self.left:
            self._open()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__.splitlines()[0])
    for one in fields(Job):
        kind = {"int": int, "str": str}.get(str(one.type))
        option = f"--{one.name.replace('_', '-')}"
        if kind is None:
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=kind, default=one.default, required=one.name == "port")
    print(json.dumps(Generator(Job(**vars(parser.parse_args()))).run()))


if __name__ == "__main__":
    main()
