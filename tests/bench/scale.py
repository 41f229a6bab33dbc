"""Scale and latency: what a fresh client sees while a crowd is there, and what the crowd costs."""

from __future__ import annotations

import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from smtpd_core import SmtpServer
from tests.bench.crowd import read_reply
from tests.bench.letters import content, on_the_wire, rest
from tests.bench.open_loop import arrivals
from tests.bench.rates import scratch, serving
from tests.bench.running import Running
from tests.bench.targets import Target
from tests.bench.terms import Sample, Terms, Workload

MIB = 1 << 20
MESSAGE = on_the_wire(content(1024))


@contextmanager
def crowd(running: Running, kind: str, count: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.bench.crowd", str(running.port), kind, str(count), *more]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"the crowd of {count} did not get in")
            yield process
        finally:
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


def transactions(port: int, terms: Terms) -> list[float]:
    """Five hundred, or as many as fit into six seconds: smtp-server alone waits 100 ms before it greets."""
    until, found = time.monotonic() + 6.0, []
    while len(found) < terms.count(500, 20) and time.monotonic() < until:
        found.append(transaction(port))
    return found


def quantiles(values: list[float]) -> Sample:
    ordered = sorted(values)
    return {"p50_ms": statistics.median(ordered), "p99_ms": ordered[len(ordered) * 99 // 100]}


def beside_idle(target: Target, workload: Workload, terms: Terms) -> Sample:
    count = terms.count(int(workload.options["crowd"]), 10)
    kind = "idle-tls" if workload.options.get("starttls") else "idle"
    with scratch() as folder, serving(target, folder, terms) as running:
        transaction(running.port)
        if kind == "idle-tls":
            with crowd(running, kind, 20):  # what TLS needs once is not the crowd's
                pass
        before = running.resident()
        with crowd(running, kind, count):
            time.sleep(0.5)
            each = (running.resident() - before) / count / 1024
            threads = running.threads()
            times = transactions(running.port, terms)
    return {**quantiles(times), "each_kib": each, "threads": threads}


def still(target: Target, workload: Workload, terms: Terms) -> Sample:
    """Five seconds in which nobody says a word."""
    count = terms.count(int(workload.options["crowd"]), 10)
    with scratch() as folder, serving(target, folder, terms) as running, crowd(running, "idle", count):
        time.sleep(1.0)
        cpu, woken, began = running.cpu(), running.wake_ups(), time.monotonic()
        time.sleep(5 * min(1.0, terms.scale))
        passed = time.monotonic() - began
        cpu, woken = running.cpu() - cpu, running.wake_ups() - woken
        threads = running.threads()
    return {"wake_ups": woken / passed, "cpu_a_minute": cpu / passed * 60, "threads": threads}


def beside_slow(target: Target, workload: Workload, terms: Terms) -> Sample:
    count = terms.count(int(workload.options["crowd"]), 10)
    with scratch() as folder, serving(target, folder, terms) as running, crowd(running, "slow", count):
        times = transactions(running.port, terms)
        threads = running.threads()
    return {**quantiles(times), "threads": threads}


def noops(port: int, is_over: Callable[[], bool]) -> list[float]:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_reply(sock)
        sock.sendall(b"EHLO a.test\r\n")
        read_reply(sock)
        times = []
        while not is_over() or len(times) < 20:
            began = time.perf_counter()
            sock.sendall(b"NOOP\r\n")
            read_reply(sock)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    return times


def big_upload(target: Target, workload: Workload, terms: Terms) -> Sample:
    with scratch() as folder, serving(target, folder, terms) as running:
        transaction(running.port)
        before = peak = running.resident()
        done = False
        with crowd(running, "upload", terms.count(100, 4), str(25 * MIB)) as process:
            assert process.stdout
            output = process.stdout

            def is_over() -> bool:
                nonlocal peak, done
                peak = max(peak, running.resident())
                done = done or bool(select.select([output], [], [], 0)[0])
                return done

            times = noops(running.port, is_over)
    return {"grown_mib": (peak - before) / MIB, **quantiles(times)}


def huge(target: Target, workload: Workload, terms: Terms) -> Sample:
    megabytes = terms.count(1024, 16)
    with scratch() as folder, serving(target, folder, terms) as running:
        transaction(running.port)
        before = peak = running.resident()
        began = time.perf_counter()
        chunk = rest(MIB)
        with socket.create_connection(("127.0.0.1", running.port)) as sock:
            read_reply(sock)
            for words in (b"EHLO a.test\r\n", b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n", b"DATA\r\n"):
                sock.sendall(words)
                read_reply(sock)
            sock.sendall(b"Subject: one large message")
            for _ in range(megabytes):
                sock.sendall(chunk)
                peak = max(peak, running.resident())
            sock.sendall(b".\r\n")
            read_reply(sock)
    return {"grown_mib": (peak - before) / MIB, "seconds": time.perf_counter() - began}


def open_loop(target: Target, workload: Workload, terms: Terms) -> Sample:
    """By the next of 30 kept sessions, for 4 s."""
    with scratch() as folder, serving(target, folder, terms) as running:
        return quantiles(arrivals(running.port, 300, 4.0 * min(1.0, terms.scale)))


def start_stop(target: Target, workload: Workload, terms: Terms) -> Sample:
    """In this process; the first one, which imports what it needs, is not counted."""
    found = []
    for _ in range(21):
        server = SmtpServer(port=0)
        server.on_message_received = lambda session, message: None
        began = time.perf_counter()
        server.start()
        server.stop()
        found.append((time.perf_counter() - began) * 1000)
    return {"start_stop_ms": statistics.median(found[1:])}
