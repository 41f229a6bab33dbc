"""What the queue costs with many messages in it, and how long the spool takes to come back after a crash.

In this process and without a network (keep.py has the finer figures).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from relay.intake import Intake
from relay.mail import Body, Message
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from smtpd_core.draft import new_id
from tests.bench.keep import drive, envelope, one_turn, stops
from tests.bench.targets import Target
from tests.bench.terms import Sample, Terms, Workload

TURNS = 40
# What is timed in keep.one_turn, by the names that the figures have here.
STEPS = {"add": "add (batches of 100)", "claim": "claim (1 of a destination)", "settle": "settle (batches of 20)"}


def fill(queue: SqliteQueue, start: int, end: int) -> None:
    """Small messages: what is in the queue counts, not how large it is."""
    text = b"Subject: waiting\r\n\r\nwaiting\r\n"
    for at in range(start, end, 2000):
        batch = []
        for number in range(at, min(at + 2000, end)):
            of = envelope(number)
            batch.append((Message(new_id(), of, b"", Body(len(text), text)), stops(of)))
        queue.add(batch, "fill", at, time.time())


def costs(queue: SqliteQueue) -> dict[str, float]:
    """Microseconds a message."""
    samples: dict[str, list[float]] = {}
    for turn in range(TURNS):
        one_turn(queue, samples, turn)
    return {name: statistics.median(samples[step]) for name, step in STEPS.items()}


def queue_growth(target: Target, workload: Workload, terms: Terms) -> Sample:
    """The small and the large queue take turns, so that what else the disk does hits both."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        queues = {}
        for size in (1000, terms.count(1_000_000, 2000)):
            place = Path(folder, str(size))
            place.mkdir()
            queues[size] = SqliteQueue(place / "queue.db")
            fill(queues[size], 0, size)
        samples: dict[int, dict[str, list[float]]] = {size: {} for size in queues}
        for turn in range(TURNS):
            for size, queue in queues.items():
                one_turn(queue, samples[size], turn)
        for queue in queues.values():
            queue.close()
    small, large = samples.values()
    return {
        f"{name}_growth": statistics.median(large[step]) / statistics.median(small[step])
        for name, step in STEPS.items()
    }


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
