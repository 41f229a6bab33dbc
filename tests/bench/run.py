"""Run workloads against targets, interleaved, and print medians: `python -m tests.bench.run --help`.

Each run starts the server anew, pinned to the first processor, and drives it from the load generator pinned to the
second. The rate is messages (or megabytes) per second; CPU is user + system of the server's whole process tree per
1 000 messages; "gen" is the generator's share of one processor: near 1.0 it was the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.plot import bars
from tests.bench.targets import TARGETS, Running, Target
from tests.bench.workloads import WORKLOADS, Workload

Sample = dict[str, float]


def processors() -> tuple[int | None, int | None]:
    """One for the server, one for the load; (None, None) where there is only one."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def measure(target: Target, workload: Workload, scale: float) -> Sample:
    """One run. Raises FileNotFoundError where the peer is not installed, RuntimeError where it failed."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    server_processor, load_processor = processors()
    options = {**workload.options, "messages": max(int(workload.options["messages"] * scale), 4)}
    try:
        with Running(target, folder, server_processor) as running:
            words = [sys.executable, "-m", "tests.bench.load", "--port", str(running.port)]
            for name, value in options.items():
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
            if load_processor is not None and shutil.which("taskset"):
                words = ["taskset", "-c", str(load_processor), *words]
            before = running.cpu()
            done = subprocess.run(words, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            load: Sample = json.loads(done.stdout)
            cpu, resident = running.cpu() - before, running.resident()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rate = load["messages"] / load["seconds"]
    return {
        "rate": rate * options.get("size", 1024) / 1e6 if workload.in_megabytes else rate,
        "cpu": cpu / load["messages"] * 1000,
        "generator": load["cpu"] / load["seconds"],
        "p50_ms": load["p50_ms"],
        "p99_ms": load["p99_ms"],
        "resident_mib": resident / (1 << 20),
    }


def fits(target: Target, workload: Workload) -> bool:
    return target.stores == workload.stores and (target.tls or not workload.tls)


def compare(workloads: list[Workload], targets: list[Target], runs: int, scale: float) -> dict[str, dict[str, Sample]]:
    """Medians by workload and target; one run of each target before the second run of any."""
    results: dict[str, dict[str, Sample]] = {}
    for workload in workloads:
        print(f"\n{workload.name}: {workload.what}", flush=True)
        samples: dict[str, list[Sample]] = {one.name: [] for one in targets if fits(one, workload)}
        failed: dict[str, str] = {}
        for _ in range(runs):
            for target in targets:
                if not fits(target, workload) or target.name in failed:
                    continue
                try:
                    samples[target.name].append(measure(target, workload, scale))
                except FileNotFoundError:
                    failed[target.name] = "not measured: not installed"
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[target.name] = f"not measured: {error}"
        results[workload.name] = {
            name: {key: statistics.median(one[key] for one in several) for key in several[0]}
            for name, several in samples.items()
            if several and name not in failed
        }
        show(workload, results[workload.name], failed)
    return results


def show(workload: Workload, medians: dict[str, Sample], failed: dict[str, str]) -> None:
    unit = "MB/s" if workload.in_megabytes else "msg/s"
    ours = next((value["rate"] for name, value in medians.items() if name.startswith("smtpd_core")), 0.0)
    print(f"  {'':22}{unit:>9}{'CPU s/1000':>12}{'gen':>6}{'p50 ms':>9}{'p99 ms':>9}{'MiB':>7}{'ours/it':>9}")
    for name, one in medians.items():
        print(
            f"  {name:22}{one['rate']:9.0f}{one['cpu']:12.3f}{one['generator']:6.2f}"
            f"{one['p50_ms']:9.2f}{one['p99_ms']:9.2f}{one['resident_mib']:7.0f}{ours / one['rate']:9.2f}"
        )
    for name, why in failed.items():
        print(f"  {name:22} {why}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="", help="names, comma-separated; default all")
    parser.add_argument("--peers", default="", help="parts of target names, comma-separated; default all found")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of messages")
    parser.add_argument("--out", type=Path, help="folder for results.json and rates.svg")
    chosen = parser.parse_args()
    wanted = [one for one in chosen.workloads.split(",") if one]
    unknown = set(wanted) - {one.name for one in WORKLOADS}
    if unknown:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in WORKLOADS)}")
    peers = [one for one in chosen.peers.split(",") if one]
    targets = [
        one for one in TARGETS if not peers or one.name.startswith("smtpd_core") or any(p in one.name for p in peers)
    ]
    machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} processors"
    print(f"{machine}, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%d')}")
    results = compare(
        [one for one in WORKLOADS if not wanted or one.name in wanted], targets, chosen.runs, chosen.scale
    )
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "runs": chosen.runs, "results": results}
        (chosen.out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
        (chosen.out / "rates.svg").write_text(bars(results))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
