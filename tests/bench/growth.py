"""What the queue costs with many messages in it, and how long the spool takes to come back after a crash.

In this process and without a network (keep.py has the finer figures).
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from relay.intake import Intake
from relay.mail import Body, Message, Outcome, Result, Settlement
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from smtpd_core.draft import new_id
from tests.bench.keep import a_message, drive, envelope, stops
from tests.bench.targets import Target
from tests.bench.terms import Sample, Terms, Workload

TURNS = 60
BATCH = 20


def fill(queue: SqliteQueue, start: int, end: int) -> None:
    """Small messages: what is in the queue counts, not how large it is."""
    text = b"Subject: waiting\r\n\r\nwaiting\r\n"
    for at in range(start, end, 2000):
        batch = []
        for number in range(at, min(at + 2000, end)):
            of = envelope(number)
            batch.append((Message(new_id(), of, b"", Body(len(text), text)), stops(of)))
        queue.add(batch, "fill", at, time.time())


def one_turn(queue: SqliteQueue, turn: int) -> dict[str, float]:
    """Microseconds a message; as many come as go, so that the length stays."""
    now = time.time()
    batch = [a_message(turn * BATCH + n) for n in range(BATCH)]
    at = [time.perf_counter()]
    queue.add(batch, "more", turn + 1, now)
    at.append(time.perf_counter())
    destinations = [name for name, _ in queue.due(now, BATCH)]
    at.append(time.perf_counter())
    parcels = [parcel for name in destinations for parcel in queue.claim(name, 1, now, 600)]
    at.append(time.perf_counter())
    queue.settle_all([Settlement(one, (Outcome(0, Result.RELAYED, 250, at=now),)) for one in parcels], now)
    at.append(time.perf_counter())
    add, _, claim, settle = (after - before for before, after in itertools.pairwise(at))
    return {"add": add / BATCH * 1e6, "claim": claim / len(parcels) * 1e6, "settle": settle / len(parcels) * 1e6}


def costs(queues: Sequence[SqliteQueue]) -> list[dict[str, float]]:
    """Medians of each; they take turns, so that what else the disk does hits all."""
    turns: list[list[dict[str, float]]] = [[] for _ in queues]
    for turn in range(TURNS):
        for found, queue in zip(turns, queues, strict=True):
            found.append(one_turn(queue, turn))
    return [{step: statistics.median(one[step] for one in found) for step in found[0]} for found in turns]


@contextmanager
def filled(sizes: Sequence[int]) -> Iterator[list[SqliteQueue]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        queues = []
        for size in sizes:
            place = Path(folder, str(size))
            place.mkdir()
            queues.append(SqliteQueue(place / "queue.db"))
            fill(queues[-1], 0, size)
        yield queues
        for queue in queues:
            queue.close()


def queue_growth(target: Target, workload: Workload, terms: Terms) -> Sample:
    with filled((1000, terms.count(1_000_000, 2000))) as queues:
        small, large = costs(queues)
    return {f"{step}_growth": large[step] / small[step] for step in small}


def recovery(target: Target, workload: Workload, terms: Terms) -> Sample:
    """Segments without an owner, imported by the next start."""
    count = terms.count(100_000, 1000)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        spool = Spool(folder / "spool")
        drive(spool, 1000, count)
        spool.stop(10)
        queue = SqliteQueue(folder / "queue.db")
        began = time.perf_counter()
        found = Intake(folder / "spool", queue, stops).import_all()
        took = time.perf_counter() - began
        queue.close()
    if found != count:
        raise RuntimeError(f"{found} of {count} messages came back")
    return {"seconds": took}
