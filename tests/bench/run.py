"""Run workloads against this server and its peers, interleaved, and print medians: `python -m tests.bench.run --help`.

Each run starts the server anew: one run of every target before the second run of any. What each workload is and what it
is held against is in workloads.py; docs/speed.md tells it in words.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smtpd_core.app.life import room_for_connections
from smtpd_core.app.terminal import progress
from tests.bench import install
from tests.bench.rates import rate, show_what_arrives
from tests.bench.report import Found, document, machine, show, summary, together, write
from tests.bench.running import interruptible, processors
from tests.bench.stored import Miscounted
from tests.bench.targets import TARGETS, NotInstalled, Target, interpreter, on_interpreter
from tests.bench.terms import Sample, Terms, Workload
from tests.bench.words import positive, split
from tests.bench.workloads import OWN, SINKS, WORKLOADS

# --quick: what can be seen of the rates in two minutes.
QUICK = ("W1", "W2", "W3R", "W4", "W5", "W6", "open-loop", "start-stop")

# These run on other interpreters too; the driver itself stays on its own.
PORTABLE = ("smtpd_core", "smtpd_core durable")


def compare(
    workload: Workload, targets: Sequence[Target], runs: int, terms: Terms, until: float = float("inf")
) -> Found:
    """No run begins after `until`, a time of the monotonic clock."""
    found = Found(workload, 1 if workload.is_once else runs)
    samples: dict[str, list[Sample]] = {one.name: [] for one in targets}
    if workload.measure is rate and SINKS[0] == workload.targets[0]:
        with reasons(found, SINKS[0]):
            show_what_arrives(workload, terms)
    for target in turns(found, targets):
        if target.name in found.missing:
            continue
        if time.monotonic() > until:
            if not samples[target.name]:
                found.missing[target.name] = "no time was left"
            continue
        with reasons(found, target.name):
            samples[target.name].append(workload.measure(target, workload, terms))
    found.medians = {
        name: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for name, several in samples.items()
        if several and name not in found.missing
    }
    found.counts = {name: len(samples[name]) for name in found.medians}
    return found


@contextmanager
def reasons(found: Found, name: str) -> Iterator[None]:
    """What goes wrong with one target, whatever it is, is why that one has no figure; the others are measured."""
    try:
        yield
    except NotInstalled:
        found.missing[name] = "not installed"
    except Miscounted as error:
        found.missing[name] = f"NOT TRUE TO ITS WORD: {error}"
    except (Exception, SystemExit) as error:  # a store that can't be read, a full disk, a server that ended
        found.missing[name] = str(error) or type(error).__name__


def turns(found: Found, targets: Sequence[Target]) -> Iterator[Target]:
    """One run of every target before the second run of any; on a terminal a bar tells how far it is."""
    with progress(found.workload.name, found.runs * len(targets)) as one_more:
        for _ in range(found.runs):
            for target in targets:
                yield target
                one_more()


def chosen_targets(workload: Workload, targets: Sequence[Target], peers: Sequence[str]) -> list[Target]:
    """In the order of the workload; targets on other interpreters follow their own."""
    wanted = []
    for name in workload.targets:
        if name.startswith(OWN[0]) or not peers or any(peer.lower() in name.lower() for peer in peers):
            elsewhere = "" if workload.is_in_process else f"{name}, "
            wanted += [one for one in targets if one.name == name or (elsewhere and one.name.startswith(elsewhere))]
    return wanted


def peers_of(words: str) -> list[str]:
    """Parts of the names of peers; "none" for none of them. Raises ArgumentTypeError where no peer has such a name."""
    found, names = split(words), [one.name for one in TARGETS if not one.name.startswith(OWN[0])]
    for part in found:
        if part != "none" and not any(part.lower() in name.lower() for name in names):
            raise argparse.ArgumentTypeError(f"no peer {part}; there are {', '.join(names)}, and none for none of them")
    return found


def elsewhere(words: str) -> list[Target]:
    """This server on other interpreters. Raises ArgumentTypeError where one is none."""
    found = []
    for python in split(words):
        if not interpreter(python):
            raise argparse.ArgumentTypeError(f"{python} is not an interpreter of Python")
        found += [on_interpreter(one, python) for one in TARGETS if one.name in PORTABLE]
    return found


def main() -> int:
    with interruptible():
        return measured(options())


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", type=split, default="", help="names, comma-separated; default all")
    parser.add_argument("--peers", type=peers_of, default="", help="parts of names; default all; none: only ours")
    parser.add_argument("--runs", type=positive(int), default=5)
    parser.add_argument("--seconds", type=positive(float), default=2.0, help="of load in a run of a workload of rates")
    parser.add_argument("--scale", type=positive(float), default=1.0, help="below 1: smaller crowds, shorter waits")
    parser.add_argument("--interpreters", type=elsewhere, default="", help="other pythons to run this server on")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--unpinned", action="store_true", help="leave server and load on all processors")
    parser.add_argument("--quick", action="store_true", help="one short run of the main workloads, in two minutes")
    parser.add_argument("--install", action="store_true", help="first get the peers that are missing")
    parser.add_argument("--out", type=Path, help="folder for results.json, rates.svg and README.md")
    parser.add_argument("--add", action="store_true", help="leave the figures of other workloads there as they are")
    chosen = parser.parse_args()
    if unknown := set(chosen.workloads) - {one.name for one in WORKLOADS}:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in WORKLOADS)}")
    if chosen.quick:
        chosen.runs, chosen.seconds, chosen.scale, chosen.minutes = 1, 0.5, 0.1, 1.6
        chosen.workloads = chosen.workloads or list(QUICK)
    return chosen


def measured(chosen: argparse.Namespace) -> int:
    terms = Terms(chosen.seconds, chosen.scale, not chosen.unpinned)
    targets, load = [*TARGETS, *chosen.interpreters], os.getloadavg()[0]
    order = [one.name for one in WORKLOADS]
    if chosen.out:  # what would be known too late at the end
        chosen.out.mkdir(parents=True, exist_ok=True)
        if chosen.add:
            together(chosen.out, document([], targets, terms, load), order)
    if chosen.install:
        install.main()
    room_for_connections(20_000)  # the servers inherit it
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}, load average {load:.1f}", flush=True)
    if terms.is_pinned and processors()[0] is None:
        print("server and load share their processors: two of them and taskset would keep them apart", flush=True)
    if terms.scale < 1:
        print(f"scale {terms.scale:g}: crowds and queues have that share of the size that their names tell", flush=True)
    results, until = [], time.monotonic() + 60 * chosen.minutes
    for workload in WORKLOADS:
        if not chosen.workloads or workload.name in chosen.workloads:
            found = chosen_targets(workload, targets, chosen.peers)
            results.append(compare(workload, found, chosen.runs, terms, until))
            show(results[-1])
            sys.stdout.flush()
    print("\ntargets: " + ", ".join(f"{count} {verdict}" for verdict, count in summary(results).items()))
    if chosen.out:
        written = document(results, targets, terms, load)
        write(chosen.out, together(chosen.out, written, order) if chosen.add else written)
    return 0 if all(one.own for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
