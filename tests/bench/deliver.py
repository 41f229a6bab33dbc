"""Outbound: a full queue on disk to smtp-sink over 20 kept connections, ours and Postfix's in turn.

    python -m tests.bench.deliver [--count N] [--runs R] [--size BYTES] [--only ours|postfix]

Both begin with all messages queued and synced, and end when the queue is empty. CPU is user + system of the delivering
process tree per 1 000 messages, the sink's not included. Postfix needs root and Debian's package.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.agents.smtp import SmtpAgent
from relay.dispatcher import Dispatcher
from relay.hop import Hop, Manners, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Body, Message, Recipient, Stop
from relay.plan import Plan
from relay.queue_sqlite import SqliteQueue
from relay.terms import Terms
from smtpd_core.draft import new_id
from smtpd_core.wire.envelope import Envelope
from tests.bench.stores import PATH, postfix
from tests.bench.targets import Running, Target, free_port, smtp_sink

CONNECTIONS = 20


@contextmanager
def sink(folder: Path) -> Iterator[int]:
    with Running(Target("smtp-sink", smtp_sink), folder, None) as running:
        yield running.port


def ours(count: int, size: int, folder: Path, port: int) -> tuple[float, float]:
    content = b"Subject: load\r\n\r\n" + b"x" * (size - 19) + b"\r\n"
    queue = SqliteQueue(folder / "queue.db")
    destination = f"smtp:127.0.0.1:{port}"
    for at in range(0, count, 500):
        batch = []
        for number in range(at, min(at + 500, count)):
            to = Recipient(f"user{number}@far.test")
            envelope = Envelope("bob@bench.test", (to,), arrived=time.time())
            message = Message(new_id(), envelope, b"", Body(len(content), content))
            batch.append((message, [Stop(0, to, destination)]))
        queue.add(batch, "bench", at + 1, time.time())
    manners = Manners(hello="bench.test", tls=TlsLevel.NONE)
    plan = Plan((Hop("sink", "127.0.0.1", port),))
    idle = IdleConnections()
    agent = SmtpAgent(lambda _: plan, lambda _: manners, idle)
    terms = Terms(concurrency=CONNECTIONS)
    dispatcher = Dispatcher(queue, {"smtp": agent}, lambda _: [], terms_of=lambda _: terms, idle=idle)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    dispatcher.start()
    while queue.next_due() is not None:
        time.sleep(0.02)
    took = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    dispatcher.stop()
    queue.close()
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def postfixs(count: int, size: int, folder: Path, port: int) -> tuple[float, float]:
    smtp_port = free_port()
    if postfix(smtp_port, folder) is None:
        raise FileNotFoundError("Postfix")
    config = folder / "config"
    main = config / "main.cf"
    text = main.read_text().replace("= discard", "= smtp")
    text += f"""relayhost = [127.0.0.1]:{port}
default_destination_concurrency_limit = {CONNECTIONS}
initial_destination_concurrency = {CONNECTIONS}
smtp_connection_cache_destinations = [127.0.0.1]:{port}
minimal_backoff_time = 3600
"""
    main.write_text(text + "defer_transports = smtp\n")
    program = shutil.which("postfix", path=PATH)
    target = Target("Postfix", lambda _port, _folder: [str(program), "-c", str(config), "start-fg"])
    running = Running.__new__(Running)
    running.port = smtp_port
    running.log = (folder / "log").open("wb")
    running.process = subprocess.Popen(target.command(smtp_port, folder) or [], stdout=running.log, stderr=running.log)
    running._await_banner()
    with running:
        source = shutil.which("smtp-source", path=PATH)
        command = [str(source), "-s", "10", "-m", str(count), "-l", str(size), "-f", "bob@bench.test"]
        subprocess.run([*command, "-t", "user@far.test", f"127.0.0.1:{smtp_port}"], check=True)
        _await(lambda: _files(folder / "queue", "deferred") >= count, 300)
        main.write_text(text)
        subprocess.run([str(program), "-c", str(config), "reload"], check=True, stderr=subprocess.DEVNULL)
        time.sleep(1.0)
        before = running.cpu()
        start = time.monotonic()
        subprocess.run([str(shutil.which("postqueue", path=PATH)), "-c", str(config), "-f"], check=True)
        _await(lambda: _files(folder / "queue", "deferred", "active", "incoming") == 0, 300)
        took = time.monotonic() - start
        return took, running.cpu() - before


def _files(queue: Path, *names: str) -> int:
    return sum(len(files) for name in names for _, _, files in os.walk(queue / name))


def _await(fact: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > until:
            raise TimeoutError("the queue does not get there")
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--only", choices=("ours", "postfix"))
    options = parser.parse_args()
    sides = {"ours": ours, "postfix": postfixs}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.runs):
        for name, side in sides.items():
            if options.only in (None, name):
                with (
                    tempfile.TemporaryDirectory() as one,
                    tempfile.TemporaryDirectory() as other,
                    sink(Path(other)) as port,
                ):
                    took, cpu = side(options.count, options.size, Path(one), port)
                rates[name].append((options.count / took, cpu * 1000 / options.count))
    for name, found in rates.items():
        if found:
            rate, cpu = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{name:8}  {rate:8.0f} msg/s   {cpu:.3f} CPU s per 1000   ({len(found)} runs)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
