"""What a message costs as things grow: `python -m tests.bench.flat [--out docs/bench] [--scale 1] [connections ...]`.

Four curves of this server alone, each as a plot and all in flat.json: against connections, size, recipients and the
length of the queue. The cost is processor time of the server (user and system), except in the queue, where it is time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from smtpd_core.app.life import room_for_connections
from tests.bench.growth import costs, filled
from tests.bench.lines import Plot, Points, curves
from tests.bench.rates import drive, scratch, serving
from tests.bench.report import machine
from tests.bench.running import interruptible
from tests.bench.scale import crowd
from tests.bench.targets import TARGETS, Target
from tests.bench.terms import Terms
from tests.bench.words import positive

MIB = 1 << 20
SINK, STORE = (next(one for one in TARGETS if one.name == name) for name in ("smtpd_core", "smtpd_core durable"))

PLOTS = {
    "connections": Plot(
        "Cost of a message against the number of connections",
        "What bends it: past the processor's caches every session's state has to be fetched from memory.",
        "connections",
        "CPU ms a message of 1 KiB",
        {10: "10", 100: "100", 1000: "1 000", 10_000: "10 000"},
    ),
    "size": Plot(
        "Cost of a message against its size",
        "What bends it: below 100 KiB the dialogue costs more than the content; from there on it is straight.",
        "octets of content",
        "CPU ms a message",
        {1024: "1 KiB", 10_240: "10 KiB", 102_400: "100 KiB", MIB: "1 MiB", 10 * MIB: "10 MiB", 100 * MIB: "100 MiB"},
        grows=True,
    ),
    "recipients": Plot(
        "Cost of a message against its recipients",
        "What bends it: below 10 recipients the rest of the message costs more than they do.",
        "recipients of a message of 1 KiB, in one write",
        "CPU ms a message",
        {1: "1", 10: "10", 100: "100", 1000: "1 000"},
        grows=True,
    ),
    "queue": Plot(
        "Cost of a message in the queue against the length of the queue",
        "What bends it: each tenfold adds pages to the indexes, and past the page cache they are read from the file.",
        "messages queued",
        "µs a message, in batches of 20",
        {10**n: f"{10**n:,}".replace(",", "\u202f") for n in range(2, 7)},
    ),
}


def cost(target: Target, terms: Terms, options: dict[str, int | float | bool], idle: int = 0) -> float:
    """Milliseconds of processor a message, beside so many idle connections."""
    with scratch() as folder, serving(target, folder, terms) as running, crowd(running, "idle", idle):
        before = running.cpu()
        load = drive(running, target, options, terms)
        return (running.cpu_when_quiet() - before) / load["messages"] * 1000


def connections(terms: Terms) -> dict[str, Points]:
    """Ten messages on each connection, whatever their number, so that opening them weighs the same."""
    lines: dict[str, list[tuple[float, float]]] = {"all active": [], "20 active, others idle": []}
    for count in PLOTS["connections"].names:
        number = int(count)
        job = {"sessions": number, "messages": max(10 * number, terms.count(20_000, 200)), "per_connection": 10}
        lines["all active"].append((count, cost(SINK, terms, {**job, "opening": 50})))
        job |= {"sessions": min(20, number), "messages": terms.count(20_000, 200)}
        lines["20 active, others idle"].append((count, cost(SINK, terms, job, idle=max(0, number - 20))))
    return dict(lines)


def sizes(terms: Terms) -> dict[str, Points]:
    def line(target: Target) -> Points:
        job = {"sessions": 4, "per_connection": 0, "seconds": terms.seconds}
        return [(size, cost(target, terms, {**job, "size": int(size)})) for size in PLOTS["size"].names]

    return {"taken": line(SINK), "synced and queued": line(STORE)}


def recipients(terms: Terms) -> dict[str, Points]:
    def line(target: Target) -> Points:
        job = {"sessions": 10, "group": True, "per_connection": 0, "seconds": terms.seconds}
        return [(count, cost(target, terms, {**job, "recipients": int(count)})) for count in PLOTS["recipients"].names]

    return {"taken": line(SINK), "synced and queued": line(STORE)}


def queue(terms: Terms) -> dict[str, Points]:
    lengths = [int(one) for one in PLOTS["queue"].names if one <= terms.count(1_000_000, 1000)]
    with filled(lengths) as queues:
        found = costs(queues)
    return {step: [(length, one[step]) for length, one in zip(lengths, found, strict=True)] for step in found[0]}


CURVES: dict[str, Callable[[Terms], Mapping[str, Points]]] = {
    "connections": connections,
    "size": sizes,
    "recipients": recipients,
    "queue": queue,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flat", description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", help=f"of {', '.join(CURVES)}; default all")
    parser.add_argument("--seconds", type=positive(float), default=2.0, help="of load at each point")
    parser.add_argument("--scale", type=positive(float), default=1.0, help="below 1: fewer messages, a shorter queue")
    parser.add_argument("--out", type=Path, help="folder for flat.json and the plots")
    chosen = parser.parse_args()
    if unknown := set(chosen.which) - set(CURVES):
        parser.error(f"no curve {', '.join(sorted(unknown))}; there are {', '.join(CURVES)}")
    room_for_connections(20_000)
    terms = Terms(chosen.seconds, chosen.scale)
    where = f"{machine()}, {time.strftime('%Y-%m-%d')}"
    if terms.scale < 1:
        where += f", at {terms.scale:g} of the full scale"
    print(where)
    found: dict[str, object] = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "scale": terms.scale}
    for name in chosen.which or CURVES:
        plot = PLOTS[name]
        with interruptible():
            lines = CURVES[name](terms)
        print(f"\n{plot.title} ({plot.up})", flush=True)
        for line, points in lines.items():
            print(f"  {line:24}" + "".join(f"{plot.names[x]:>10}:{y:8.3g}" for x, y in points), flush=True)
        found[name] = {"plot": {key: asdict(plot)[key] for key in ("title", "across", "up", "bends")}, "lines": lines}
        if chosen.out:
            chosen.out.mkdir(parents=True, exist_ok=True)
            (chosen.out / f"flat-{name}.svg").write_text(curves(plot, lines, where))
    if chosen.out:
        (chosen.out / "flat.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
