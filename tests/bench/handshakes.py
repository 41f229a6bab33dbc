"""TLS in memory, beside the standard library's ssl: handshakes a second, bytes a second, memory per idle connection.

Both servers run in this process, one after the other in turns, with the same certificate, the same client (the
standard library's) and the same group; only the CPU time of the server's own steps counts. The rate should be at
least 0.8 of the standard library's, memory at most 40 KiB a connection.

    python -m tests.bench.handshakes [--rounds 7] [--handshakes 300] [--connections 1000]
"""

from __future__ import annotations

import argparse
import gc
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from certs.contexts import ServerContexts
from certs.files import read_pair
from certs.issue import ensure_self_signed
from certs.stream import TlsStream

LEAST_RATE = 0.8
MOST_KIB = 40.0


class Ours:
    """A server side of ours."""

    name = "certs.TlsStream"

    def __init__(self, contexts: ServerContexts) -> None:
        self.contexts = contexts

    def open(self) -> TlsStream:
        return self.contexts.stream(bindings=False)  # the standard library works none out

    def step(self, tls: TlsStream, data: bytes) -> bytes:
        tls.feed(data)
        if tls.handshake():
            tls.facts  # noqa: B018  a server always asks for them
        return tls.take_output()

    def read(self, tls: TlsStream, data: bytes) -> int:
        tls.feed(data)
        return len(tls.read())


class Library:
    """A server side of the standard library's, on memory buffers as asyncio uses it."""

    name = "ssl.SSLObject"

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def open(self) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        return self.context.wrap_bio(into, out, server_side=True), into, out

    def step(self, tls: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO], data: bytes) -> bytes:
        server, into, out = tls
        into.write(data)
        try:
            server.do_handshake()
        except ssl.SSLWantReadError:
            return out.read()
        server.cipher(), server.version(), server.getpeercert()
        return out.read()

    def read(self, tls: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO], data: bytes) -> int:
        server, into, _ = tls
        into.write(data)
        size = 0
        try:
            while True:
                size += len(server.read(16_384))
        except ssl.SSLWantReadError:
            return size


Side = Ours | Library


def client_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    return context


def shake(side: Side, context: ssl.SSLContext) -> tuple[float, object, ssl.SSLObject, ssl.MemoryBIO]:
    """One handshake: seconds that the server took, and both ends."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="mx.test")
    took = -time.thread_time()
    server = side.open()
    took += time.thread_time()
    for _ in range(3):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        data = out.read()
        if not data:
            break
        took -= time.thread_time()
        reply = side.step(server, data)  # type: ignore[arg-type]
        took += time.thread_time()
        into.write(reply)
    return took, server, client, out


def rate(side: Side, context: ssl.SSLContext, count: int) -> float:
    return count / sum(shake(side, context)[0] for _ in range(count))


def throughput(side: Side, context: ssl.SSLContext, megabytes: int = 32) -> float:
    """MB a second decrypted, 64 KiB fed at a time."""
    _, server, client, out = shake(side, context)
    block, took, size = b"x" * 65_000, 0.0, 0
    while size < megabytes << 20:
        client.write(block)
        data = out.read()
        took -= time.thread_time()
        size += side.read(server, data)  # type: ignore[arg-type]
        took += time.thread_time()
    return size / took / 1e6


def resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def memory(side: Side, context: ssl.SSLContext, count: int) -> float:
    """KiB of this process per connection that has said its EHLO and is idle; the clients are dropped."""
    shake(side, context)
    gc.collect()
    before, kept = resident_kib(), []
    for _ in range(count):
        _, server, client, out = shake(side, context)
        client.write(b"EHLO probe\r\n")
        side.read(server, out.read())  # type: ignore[arg-type]
        kept.append(server)
        del client, out
    gc.collect()
    return (resident_kib() - before) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--handshakes", type=int, default=300)
    parser.add_argument("--connections", type=int, default=1_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = ensure_self_signed(folder, "mx.test")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.options |= ssl.OP_NO_RENEGOTIATION
        ours, library = Ours(ServerContexts(read_pair(certificate, key))), Library(context)
    good = True
    # Before the rest: memory that was freed once is taken again unseen.
    used = memory(ours, client_context(ssl.TLSVersion.TLSv1_3), args.connections)
    print(f"{'':<24}{ours.name:>18}{library.name:>18}{'ratio':>8}")

    def compare(what: str, measure: Callable[[Side], float], least: float = 0.0) -> None:
        nonlocal good
        measure(ours), measure(library)
        pairs = [(measure(ours), measure(library)) for _ in range(args.rounds)]
        one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        good = good and one / other >= least
        print(f"{what:<24}{one:>18.0f}{other:>18.0f}{one / other:>8.2f}")

    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        clients = client_context(version)
        compare(f"handshakes/s {version.name}", lambda side, c=clients: rate(side, c, args.handshakes), LEAST_RATE)
    clients = client_context(ssl.TLSVersion.TLSv1_3)
    compare("read MB/s", lambda side: throughput(side, clients))
    print(f"{'KiB per idle connection':<24}{used:>18.1f}")
    good = good and used <= MOST_KIB
    print("within the targets" if good else f"NOT within the targets: rate {LEAST_RATE}, memory {MOST_KIB} KiB")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
