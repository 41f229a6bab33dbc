"""Scale and latency: what a fresh client sees while a crowd is there, and what the crowd costs in memory.

`python -m tests.bench.scale [idle slow blocking upload huge open]` prints one line a case: the figure, and the target
it is held against.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.crowd import read_reply
from tests.bench.load import content, on_the_wire
from tests.bench.run import processors
from tests.bench.targets import Running, Target, python_peer

MIB = 1 << 20
MESSAGE = on_the_wire(content(1024))


@contextmanager
def serving(*options: str) -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with Running(Target("smtpd_core", python_peer("ours.py", "", *options)), folder, processors()[0]) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def crowd(running: Running, kind: str, count: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.bench.crowd", str(running.port), kind, str(count), *more]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the crowd of {count} did not get in")
        yield process
        process.stdin.close()


def transaction(port: int) -> float:
    """Milliseconds of a fresh client's whole transaction: connect to QUIT's reply."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_reply(sock)
        for words in (b"EHLO a.test\r\n", b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n", b"DATA\r\n", MESSAGE):
            sock.sendall(words)
            read_reply(sock)
        sock.sendall(b"QUIT\r\n")
        read_reply(sock)
    return (time.perf_counter() - began) * 1000


def quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    return f"p50 {statistics.median(ordered):.2f} ms, p99 {ordered[len(ordered) * 99 // 100]:.2f} ms"


def idle(count: int = 10_000) -> str:
    with serving() as running:
        transaction(running.port)
        before = running.resident()
        with crowd(running, "idle", count):
            each = (running.resident() - before) / count / 1024
            cpu = running.cpu()
            time.sleep(5)
            cpu = running.cpu() - cpu
            times = [transaction(running.port) for _ in range(500)]
    return (
        f"{count} idle: {quantiles(times)}, {each:.1f} KiB each, {cpu:.2f} s of processor in 5 s "
        "(targets 2 / 10 ms, 6 KiB, 0)"
    )


def slow() -> str:
    with serving() as running, crowd(running, "slow", 2000):
        times = [transaction(running.port) for _ in range(500)]
    return f"2000 dribbling: {quantiles(times)} (targets 2 / 10 ms)"


def blocking() -> str:
    with serving("--hook-ms", "100", "--threads", "20") as running:
        words = [sys.executable, "-m", "tests.bench.load", "--port", str(running.port), "--messages", "600"]
        began = time.monotonic()
        subprocess.run([*words, "--per-connection", "0"], check=True, stdout=subprocess.DEVNULL)
        rate = 600 / (time.monotonic() - began)
    return f"hook of 100 ms, 20 clients, 20 threads: {rate:.0f} msg/s (target 150)"


def noops(port: int, until: Callable[[], bool]) -> list[float]:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_reply(sock)
        times = []
        while not until() or len(times) < 100:
            began = time.perf_counter()
            sock.sendall(b"NOOP\r\n")
            read_reply(sock)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    return times


def upload() -> str:
    with serving() as running:
        transaction(running.port)
        before, peak = running.resident(), 0
        with crowd(running, "upload", 100, str(25 * MIB)) as process:
            assert process.stdout
            done: list[bool] = []

            def over() -> bool:
                nonlocal peak
                peak = max(peak, running.resident())
                return bool(done) or _readable(process, done)

            times = noops(running.port, over)
    return (
        f"100 uploads of 25 MiB: grew {(peak - before) / MIB:.0f} MiB, NOOP {quantiles(times)} "
        "(targets 64 MiB, p99 30 ms)"
    )


def _readable(process: subprocess.Popen[str], done: list[bool]) -> bool:
    import select

    if select.select([process.stdout], [], [], 0)[0]:
        done.append(True)
    return bool(done)


def huge() -> str:
    with serving("--durable") as running:
        transaction(running.port)
        before, peak = running.resident(), 0
        chunk = content(MIB)
        with socket.create_connection(("127.0.0.1", running.port)) as sock:
            read_reply(sock)
            for words in (b"EHLO a.test\r\n", b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n", b"DATA\r\n"):
                sock.sendall(words)
                read_reply(sock)
            for _ in range(1024):
                sock.sendall(chunk)
                peak = max(peak, running.resident())
            sock.sendall(b".\r\n")
            read_reply(sock)
    return f"one message of 1 GiB: grew {(max(peak, before) - before) / MIB:.1f} MiB (target 8)"


def open_loop(*options: str) -> str:
    """300 messages a second at fixed instants for 6 s, each by the next of 30 kept sessions."""
    from tests.bench.open_loop import arrivals

    with serving(*options) as running:
        times = arrivals(running.port, 300, 6.0)
    wanted = "1.3 / 4.0" if options else "0.9 / 2.5"
    return f"open loop, 300 a second{' durable' if options else ''}: {quantiles(times)} (targets {wanted} ms)"


CASES: dict[str, Callable[[], str]] = {
    "idle": idle,
    "slow": slow,
    "blocking": blocking,
    "upload": upload,
    "huge": huge,
    "open": open_loop,
    "open-durable": lambda: open_loop("--durable"),
}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        print(CASES[name](), flush=True)


if __name__ == "__main__":
    main()
