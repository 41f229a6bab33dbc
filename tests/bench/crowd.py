"""A crowd: many connections that are idle, dribble one byte a second, or upload at once, until standard input ends.

`python -m tests.bench.crowd PORT idle|idle-tls|slow|upload COUNT [SIZE]` prints "ready" when all are connected and
greeted, "done" when an upload is over. It is a process of its own, so that the one who measures latency does nothing
else.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time

from smtpd_core.app.life import room_for_connections
from tests.bench.letters import content, on_the_wire

EHLO = b"EHLO crowd.test\r\n"
# One endless command, a byte at a time: legal until the line limit, which takes a quarter of an hour to reach.
DRIBBLE = b"NOOP " + b"x" * 400


def connect(port: int, count: int) -> list[socket.socket]:
    """`count` greeted sessions; connecting in small groups, so that the listen queue never overflows."""
    crowd: list[socket.socket] = []
    while len(crowd) < count:
        group = [socket.create_connection(("127.0.0.1", port)) for _ in range(min(50, count - len(crowd)))]
        for words in (b"", EHLO):
            for sock in group:
                sock.sendall(words)
            for sock in group:
                read_reply(sock)
        crowd += group
    return crowd


def secured(crowd: list[socket.socket]) -> list[socket.socket]:
    """The same sessions after STARTTLS and a second EHLO."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    found: list[socket.socket] = []
    for sock in crowd:
        sock.sendall(b"STARTTLS\r\n")
        read_reply(sock)
        found.append(context.wrap_socket(sock))
        found[-1].sendall(EHLO)
        read_reply(found[-1])
    return found


def read_reply(sock: socket.socket) -> bytes:
    """One whole reply; SystemExit where it is a refusal or the server hung up."""
    answer = b""
    while not answer.endswith(b"\r\n") or answer.splitlines()[-1][3:4] == b"-":
        piece = sock.recv(65536)
        if not piece:
            raise SystemExit(f"the server hung up after {answer!r}")
        answer += piece
    if answer[:1] not in b"23":
        raise SystemExit(f"the server refused: {answer!r}")
    return answer


def dribble(crowd: list[socket.socket]) -> None:
    """Every connection sends one byte a second, spread evenly over the second, until standard input ends."""
    at, began, sent = [0] * len(crowd), time.monotonic(), 0
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        due = int((time.monotonic() - began) * len(crowd))
        while sent < due:
            n = sent % len(crowd)
            crowd[n].send(DRIBBLE[at[n] % len(DRIBBLE) :][:1])
            at[n] += 1
            sent += 1


def upload(crowd: list[socket.socket], size: int) -> None:
    """Every connection sends one message of `size` octets, all at once."""
    body = memoryview(on_the_wire(content(size)))
    for sock in crowd:
        for words in (b"MAIL FROM:<a@crowd.test>\r\n", b"RCPT TO:<b@crowd.test>\r\n", b"DATA\r\n"):
            sock.sendall(words)
            read_reply(sock)
        sock.setblocking(False)
    poller = select.epoll()
    at = {sock.fileno(): 0 for sock in crowd}
    by_number = {sock.fileno(): sock for sock in crowd}
    for number in at:
        poller.register(number, select.EPOLLOUT)
    while at:
        for number, _ in poller.poll():
            at[number] += by_number[number].send(body[at[number] : at[number] + 262_144])
            if at[number] == len(body):
                poller.unregister(number)
                del at[number]
    for sock in crowd:
        sock.setblocking(True)
        read_reply(sock)


def main() -> None:
    port, kind, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if room_for_connections(count) < count:
        raise SystemExit(f"the limit of descriptors (ulimit -Hn) is too low for {count} connections")
    crowd = connect(port, count)
    if kind == "idle-tls":
        crowd = secured(crowd)
    print("ready", flush=True)
    if kind == "slow":
        dribble(crowd)
    elif kind == "upload":
        upload(crowd, int(sys.argv[4]))
        print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
