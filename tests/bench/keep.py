"""Spool and queue without a network: `python -m tests.bench.keep spool|recovery|queue [--count N] [--folder F]`.

spool     sessions that each promise the next message when the last is kept, with and without intake behind them
recovery  orphan segments with N messages: until all are in the queue
queue     cost of add, claim, settle and list with N messages queued, against the same with 1 000
CPU is user + system of this process per 1 000 messages.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from relay.intake import Intake
from relay.mail import Body, Message, Outcome, Recipient, Result, Settlement, Stop
from relay.queue_reader import SqliteReader
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from relay.view import Filter
from smtpd_core.draft import Draft, new_id
from smtpd_core.threads import Mailbox, Ticket
from smtpd_core.wire.envelope import Envelope, MailParameters, Origin

T = TypeVar("T")

CONTENT = b"From: bob@example.test\r\nSubject: load\r\n\r\n" + (b"x" * 76 + b"\r\n") * 52
TRACE = b"Received: from probe (192.0.2.1) by mx.example.test with ESMTP; Tue, 24 Nov 2026 10:00:00 +0000\r\n"
ORIGIN = Origin("192.0.2.1", 40000, "probe.test", "ESMTP", "", "", "mx 127.0.0.1:2525", "s-0123456789")


def envelope(number: int, destinations: int = 1000) -> Envelope:
    return Envelope(
        "bob@example.test",
        (Recipient(f"user{number % 97}@d{number % destinations}.test"),),
        MailParameters(size=len(CONTENT)),
        ORIGIN,
        time.time(),
    )


def stops(of: Envelope) -> Sequence[Stop]:
    return [Stop(number, one, "mx:" + one.address.partition("@")[2]) for number, one in enumerate(of.recipients)]


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def drive(spool: Spool, sessions: int, count: int) -> None:
    """`sessions` outstanding promises at any time, `count` in all; one thread, as a reactor would."""
    arrived: Mailbox[Ticket] = Mailbox()
    given = done = 0

    def give() -> None:
        nonlocal given
        draft = Draft(spool.drafts)
        draft.trace = TRACE
        draft.append(CONTENT)
        spool.promise(draft, envelope(given)).watch(arrived.put)
        given += 1

    for _ in range(min(sessions, count)):
        give()
    while done < count:
        for ticket in arrived.wait():
            if ticket.outcome is not None:
                raise ticket.outcome
            done += 1
            if given < count:
                give()


def spool_rates(folder: Path, count: int) -> None:
    for sessions in (1, 10, 50, 200):
        for imports in (False, True):
            place = folder / f"{sessions}-{imports}"
            place.mkdir()
            spool = Spool(place / "spool")
            intake = queue = None
            if imports:
                queue = SqliteQueue(place / "queue.db")
                intake = Intake(place / "spool", queue, stops, spool=spool)
                spool.announce = intake.announce
                intake.start()
            started, used = time.perf_counter(), cpu()
            drive(spool, sessions, count if sessions > 1 else count // 10)
            taken, used = time.perf_counter() - started, cpu() - used
            number = count if sessions > 1 else count // 10
            print(
                f"{sessions:4} sessions, {'with' if imports else 'no  '} intake: {number / taken:8.0f} msg/s,"
                f" {used / number * 1000:.3f} CPU s/1000",
                flush=True,
            )
            spool.stop(10)
            if intake is not None and queue is not None:
                started = time.perf_counter()
                intake.stop(60)
                print(f"      intake needed {time.perf_counter() - started:.2f} s more", flush=True)
                queue.close()


def recovery(folder: Path, count: int) -> None:
    spool = Spool(folder / "spool")
    drive(spool, 1000, count)
    spool.stop(10)
    queue = SqliteQueue(folder / "queue.db")
    intake = Intake(folder / "spool", queue, stops)
    started, used = time.perf_counter(), cpu()
    found = intake.import_all()
    taken, used = time.perf_counter() - started, cpu() - used
    print(
        f"{found} messages recovered in {taken:.2f} s ({found / taken:.0f} msg/s, {used / found * 1000:.3f} CPU s/1000)"
    )
    queue.close()


def fill(queue: SqliteQueue, count: int) -> None:
    for start in range(0, count, 1000):
        queue.add([a_message(n) for n in range(start, min(start + 1000, count))], "fill", start, time.time())


def a_message(number: int) -> tuple[Message, Sequence[Stop]]:
    of = envelope(number)
    return Message(new_id(), of, TRACE, Body(len(CONTENT), CONTENT)), stops(of)


def queue_costs(folder: Path, count: int) -> None:
    """The small and the large queue take turns, so that what else the disk does hits both."""
    queues: dict[int, SqliteQueue] = {}
    samples: dict[int, dict[str, list[float]]] = {}
    for size in (1000, count):
        (folder / str(size)).mkdir()
        queue = queues[size] = SqliteQueue(folder / str(size) / "queue.db")
        samples[size] = {}
        started = time.perf_counter()
        fill(queue, size)
        # Both hold the same number for this one, whatever else they hold.
        alone = [(one, [Stop(0, of[0].recipient, "mx:alone.test")]) for one, of in (a_message(n) for n in range(200))]
        queue.add(alone, "alone", 1, time.time())
        print(f"{size} messages added in {time.perf_counter() - started:.1f} s", flush=True)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"  resident at most {memory // 1024} MiB", flush=True)
    for turn in range(60):
        for size, queue in queues.items():
            one_turn(queue, samples[size], turn)
    for name in samples[1000]:
        small, large = (statistics.median(samples[size][name]) for size in (1000, count))
        print(f"{name:28} {small:9.1f} us at 1 000, {large:9.1f} us at {count}: {large / small:.2f}x")
    for queue in queues.values():
        queue.close()


def one_turn(queue: SqliteQueue, samples: dict[str, list[float]], turn: int) -> None:
    """Microseconds for one message, in batches as intake and dispatcher make them."""

    def timed(name: str, per: int, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = work()
        samples.setdefault(name, []).append((time.perf_counter() - started) / per * 1e6)
        return result

    now = time.time()
    batch = [a_message(turn * 100 + n) for n in range(100)]
    timed("add (batches of 100)", 100, lambda: queue.add(batch, "more", turn + 1, now))
    destinations = [name for name, _ in timed("due", 1, lambda: queue.due(now, 20))]
    parcels = []
    for name in destinations:
        parcels += timed("claim (1 of a destination)", 1, lambda name=name: queue.claim(name, 1, now, 600))  # type: ignore[misc]
    ends = [Settlement(one, (Outcome(0, Result.RELAYED, 250, at=now),)) for one in parcels]
    timed("settle (batches of 20)", 20, lambda: queue.settle_all(ends, now))
    reader = SqliteReader(queue.path)
    timed("list of one destination", 200, lambda: list(reader.messages(Filter(destination="mx:alone.test"), 9e9)))
    reader.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.keep", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("spool", "recovery", "queue"))
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write; default a temporary folder")
    chosen = parser.parse_args()
    work, count = {"spool": (spool_rates, 20_000), "recovery": (recovery, 100_000), "queue": (queue_costs, 1_000_000)}[
        chosen.what
    ]
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        work(Path(folder), chosen.count or count)
    return 0


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
