"""What the protocol core costs by itself: microseconds per dialogue, MB/s of content. No sockets, no threads.

    python tests/bench/bench_core.py [dialogue] [recipients] [content] [pieces]

Each figure is the best of several rounds: noise only ever adds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from smtpd_core.wire.events import Waiting
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol

SETTINGS = ProtocolSettings(hostname="mx.test", starttls=True)
ROUNDS = 7

# A client that waits for each reply: what a real one sends in each of its writes.
GROUPS = (
    b"EHLO client.example.test\r\n",
    b"MAIL FROM:<ann@client.example.test> SIZE=1024\r\n",
    b"RCPT TO:<bob@mx.test>\r\n",
    b"DATA\r\n",
    (b"x" * 62 + b"\r\n") * 16 + b".\r\n",
    b"QUIT\r\n",
)


def play(groups: tuple[bytes, ...]) -> None:
    protocol = ServerProtocol(SETTINGS)
    protocol.next_event()
    protocol.accept()
    protocol.take_output()
    for group in groups:
        protocol.receive(group)
        while not isinstance(protocol.next_event(), Waiting):
            if protocol.verdict is not None:
                protocol.accept()
        protocol.take_output()


def best(work: Callable[[], None], times: int) -> float:
    """Seconds per call."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            work()
        found.append(time.process_time() - began)
    return min(found) / times


def dialogue() -> None:
    print(f"one message, each command by itself   {best(lambda: play(GROUPS), 2000) * 1e6:8.1f} us")
    piped = (GROUPS[0], b"".join(GROUPS[1:4]), GROUPS[4] + GROUPS[5])
    print(f"one message, pipelined                {best(lambda: play(piped), 2000) * 1e6:8.1f} us")
    kept = best(lambda: play((*GROUPS[:5], *(GROUPS[1:5] * 10), GROUPS[5])), 200) - best(lambda: play(GROUPS), 2000)
    print(f"a further message on the connection   {kept / 10 * 1e6:8.1f} us")


def recipients() -> None:
    many = (GROUPS[0], GROUPS[1] + GROUPS[2] * 50 + GROUPS[3], GROUPS[4] + GROUPS[5])
    print(f"one message for 50 recipients         {best(lambda: play(many), 300) * 1e6:8.1f} us")


def content() -> None:
    plain = (b"x" * 76 + b"\r\n") * 13_000
    dotted = (b".." + b"x" * 74 + b"\r\n") * 13_000
    for name, body in (("plain", plain), ("dot-heavy", dotted)):
        for size in (65_536, 4_096, 1_460):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]

            def upload(pieces: list[bytes] = pieces) -> None:
                play((*GROUPS[:4], *pieces, b".\r\n"))

            print(f"content, {name:9}, {size:6} at a time   {len(body) / best(upload, 20) / 1e6:8.0f} MB/s")
    chunk = b"BDAT %d LAST\r\n" % len(plain)
    pieces = [plain[at : at + 65_536] for at in range(0, len(plain), 65_536)]
    chunked = best(lambda: play((*GROUPS[:3], chunk, *pieces)), 20)
    print(f"content, BDAT,       65536 at a time   {len(plain) / chunked / 1e6:8.0f} MB/s")


def pieces() -> None:
    """An octet at a time: what a client costs that dribbles. The same per octet however long the line or the body."""
    for name, before, data in (
        ("a line of 2 KiB", GROUPS[:1], b"NOOP " + b"x" * 2_040 + b"\r\n"),
        ("a login line of 12 KiB", GROUPS[:1], b"AUTH PLAIN " + b"A" * 12_288 + b"\r\n"),
        ("content of 4 KiB", GROUPS[:4], b"x" * 4_096),
        ("content of 64 KiB", GROUPS[:4], b"x" * 65_536),
    ):
        octets = tuple(data[at : at + 1] for at in range(len(data)))
        cost = best(lambda before=before, octets=octets: play((*before, *octets)), 2) - best(
            lambda: play(GROUPS[:1]), 500
        )  # type: ignore[misc]
        print(f"{name:22} an octet at a time  {cost / len(octets) * 1e6:8.2f} us an octet")


PARTS = {"dialogue": dialogue, "recipients": recipients, "content": content, "pieces": pieces}

if __name__ == "__main__":
    for part in sys.argv[1:] or list(PARTS):
        PARTS[part]()
