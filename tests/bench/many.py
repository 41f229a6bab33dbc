"""Outbound to ten thousand destinations, all behind one smtp-sink, with and without dead ones among them.

    python -m tests.bench.many [--destinations N] [--dead D]... [--runs R]

A dead destination takes connections and never says a word; each has 20 messages, which are due before all others. What
counts is the time in which the others' mail is delivered.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from relay.agents.smtp import SmtpAgent
from relay.dispatcher import Dispatcher
from relay.hop import Hop, Manners, StepTimes, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Body, Message, Outcome, Parcel, Recipient, Stop
from relay.plan import Plan
from relay.queue_sqlite import SqliteQueue
from smtpd_core.draft import new_id
from smtpd_core.wire.envelope import Envelope
from tests.bench.deliver import sink

CONTENT = b"Subject: load\r\n\r\n" + b"x" * 1000 + b"\r\n"
LETTERS = 20


def filled(folder: Path, destinations: int, dead: int) -> SqliteQueue:
    queue = SqliteQueue(folder / "queue.db")
    names = [f"mx:dead{n}.test" for n in range(dead) for _ in range(LETTERS)]
    names += [f"mx:d{n}.test" for n in range(destinations)]
    start = time.time() - 10
    for at in range(0, len(names), 500):
        batch = []
        for name in names[at : at + 500]:
            to = Recipient(f"user@{name[3:]}")
            envelope = Envelope("bob@bench.test", (to,), arrived=start)
            batch.append((Message(new_id(), envelope, b"", Body(len(CONTENT), CONTENT)), [Stop(0, to, name)]))
        queue.add(batch, "bench", at + 1, start + at / 500)
    return queue


def run(destinations: int, dead: int) -> tuple[float, float]:
    """Seconds and CPU seconds until all but the dead ones have their mail."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        sink(Path(other)) as port,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as silent,
    ):
        queue = filled(Path(one), destinations, dead)
        nowhere = silent.getsockname()[1]
        manners = Manners(hello="bench.test", tls=TlsLevel.NONE, times=StepTimes.all(600.0, 600.0))
        done = threading.Event()
        count = 0

        def plan_of(destination: str) -> Plan:
            host = destination[3:]
            return Plan((Hop(host, "127.0.0.1", nowhere if host.startswith("dead") else port),))

        def heard(parcel: Parcel, outcome: Outcome) -> None:
            nonlocal count
            count += 1
            if count == destinations:
                done.set()

        idle = IdleConnections()
        agent = SmtpAgent(plan_of, lambda _: manners, idle)
        dispatcher = Dispatcher(queue, {"mx": agent}, lambda _: [], idle=idle, on_outcome=heard)
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.monotonic()
        dispatcher.start()
        assert done.wait(600), f"{count} of {destinations} were delivered"
        took = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        silent.close()
        dispatcher.stop(1.0)
        queue.close()
        return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--destinations", type=int, default=10_000)
    parser.add_argument("--dead", type=int, action="append", help="default 0, 1 and 50, in turn")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    kinds = options.dead or [0, 1, 50]
    found: dict[int, list[tuple[float, float]]] = {dead: [] for dead in kinds}
    for _ in range(options.runs):
        for dead in kinds:
            found[dead].append(run(options.destinations, dead))
    for dead, several in found.items():
        seconds, cpu = (statistics.median(column) for column in zip(*several, strict=True))
        print(f"{dead:5} dead  {seconds:7.2f} s  {options.destinations / seconds:6.0f} msg/s  {cpu:6.2f} CPU s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
