"""Run workloads against this server and its peers, interleaved, and print medians: `python -m tests.bench.run --help`.

Each run starts the server anew: one run of every target before the second run of any. What each workload is and what it
is held against is in workloads.py; docs/speed.md tells it in words.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from smtpd_core.app.life import room_for_connections
from smtpd_core.app.terminal import progress
from tests.bench import install
from tests.bench.rates import rate, show_what_arrives
from tests.bench.report import Found, document, machine, show, summary, together, write
from tests.bench.stored import Miscounted
from tests.bench.targets import TARGETS, Target, on_interpreter
from tests.bench.terms import Sample, Terms, Workload
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
        show_what_arrives(workload, terms)
    for target in turns(found, targets):
        if target.name in found.missing:
            continue
        if time.monotonic() > until:
            if not samples[target.name]:
                found.missing[target.name] = "no time was left"
            continue
        try:
            samples[target.name].append(workload.measure(target, workload, terms))
        except FileNotFoundError:
            found.missing[target.name] = "not installed"
        except Miscounted as error:
            found.missing[target.name] = f"NOT TRUE TO ITS WORD: {error}"
        except (RuntimeError, SystemExit, OSError, subprocess.SubprocessError) as error:
            found.missing[target.name] = str(error)
    found.medians = {
        name: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for name, several in samples.items()
        if several and name not in found.missing
    }
    return found


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="", help="names, comma-separated; default all")
    parser.add_argument("--peers", default="", help="parts of names, comma-separated; default all; none: only ours")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in each run of a workload of rates")
    parser.add_argument("--scale", type=float, default=1.0, help="below 1: smaller crowds, shorter waits")
    parser.add_argument("--interpreters", default="", help="other pythons to run this server on, comma-separated")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--unpinned", action="store_true", help="leave server and load on all processors")
    parser.add_argument("--quick", action="store_true", help="one short run of the main workloads, in two minutes")
    parser.add_argument("--install", action="store_true", help="first get the peers that are missing")
    parser.add_argument("--out", type=Path, help="folder for results.json, rates.svg and README.md")
    parser.add_argument("--add", action="store_true", help="leave the figures of other workloads there as they are")
    chosen = parser.parse_args()
    wanted = [one for one in chosen.workloads.split(",") if one]
    if unknown := set(wanted) - {one.name for one in WORKLOADS}:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in WORKLOADS)}")
    if chosen.quick:
        chosen.runs, chosen.seconds, chosen.scale, chosen.minutes = 1, 0.5, 0.1, 1.6
        wanted = wanted or list(QUICK)
    if chosen.install:
        install.main()
    room_for_connections(20_000)  # the servers inherit it
    terms = Terms(chosen.seconds, chosen.scale, not chosen.unpinned)
    peers = [one for one in chosen.peers.split(",") if one]
    targets = list(TARGETS)
    for python in filter(None, chosen.interpreters.split(",")):
        targets += [on_interpreter(one, python) for one in TARGETS if one.name in PORTABLE]
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}", flush=True)
    if terms.scale < 1:
        print(f"scale {terms.scale:g}: crowds and queues have that share of the size that their names tell", flush=True)
    results, until = [], time.monotonic() + 60 * chosen.minutes
    for workload in WORKLOADS:
        if not wanted or workload.name in wanted:
            results.append(compare(workload, chosen_targets(workload, targets, peers), chosen.runs, terms, until))
            show(results[-1])
            sys.stdout.flush()
    print("\ntargets: " + ", ".join(f"{count} {verdict}" for verdict, count in summary(results).items()))
    if chosen.out:
        found = document(results, targets, terms)
        write(chosen.out, together(chosen.out, found, [one.name for one in WORKLOADS]) if chosen.add else found)
    return 0 if all(found.own for found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
