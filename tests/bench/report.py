"""What a run found: the table on the terminal, results.json, rates.svg, and README.md with both in words.

A goal without its peer in the run is not measured, never met.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.plot import bars
from tests.bench.rates import BOTTLENECK
from tests.bench.running import processors, usable_processors
from tests.bench.targets import Target
from tests.bench.terms import FIGURES, Sample, Terms, Workload


@dataclass(slots=True)
class Found:
    """Of one workload: medians by target, why others have none, and how many runs they are of."""

    workload: Workload
    runs: int
    medians: dict[str, Sample] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # runs behind each median

    @property
    def own(self) -> Sample | None:
        return self.medians.get(self.workload.targets[0])

    def verdicts(self) -> list[tuple[str, str, str]]:
        """Peer ("" for a bound), goal and verdict."""
        unit = self.workload.unit
        return [
            (one.peer, str(one).replace("msg/s", unit), one.verdict(self.own, self.medians.get(one.peer)))
            for one in self.workload.goals
        ]


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    count = len(usable_processors())
    return f"{model}, {count} processor{'s' * (count > 1)}, {platform.system()} {platform.release()}"


def versions(targets: Sequence[Target], names: set[str]) -> dict[str, str]:
    """Of all that were measured; libraries under this server included."""
    found = {one.name: one.version() for one in targets if one.name in names}
    return {**found, "OpenSSL": ssl.OPENSSL_VERSION, "SQLite": sqlite3.sqlite_version}


def show(found: Found) -> None:
    """One block of the table: a line a target, the goal that it is held against beside it."""
    workload = found.workload
    heads = [FIGURES[one].replace("msg/s", workload.unit) for one in workload.columns]
    has_ratio = "rate" in workload.columns and len(workload.targets) > 1
    print(f"\n{workload.name}: {workload.what} ({found.runs} run{'s' * (found.runs > 1)})")
    ratios = "     ours/it     its CPU/ours" if has_ratio else ""
    print(f"  {'':28}" + "".join(f"{one:>12}" for one in heads) + ratios + "  target")
    goals: dict[str, list[str]] = {}
    for peer, goal, verdict in found.verdicts():
        goals.setdefault(peer or workload.targets[0], []).append(f"{goal}: {verdict}")
    for name, sample in found.medians.items():
        line = "".join(f"{_figure(sample[one]):>12}" for one in workload.columns)
        if has_ratio:
            line += _ratios(found.own, sample)
        if sample.get("generator", 0.0) >= BOTTLENECK:
            line += "  [the load generator may be the limit]"
        if found.counts[name] < found.runs:
            line += f"  [of {found.counts[name]} only]"
        print(f"  {name:28}{line}  {'; '.join(goals.pop(name, []))}".rstrip())
    for name, why in found.missing.items():
        print(f"  {name:28}  not measured: {why}  {'; '.join(goals.pop(name, []))}".rstrip())
    for name, left in goals.items():
        print(f"  {name:28}  not in this run  {'; '.join(left)}")


def _ratios(own: Sample | None, peer: Sample) -> str:
    """How many times faster ours is, and how many times our processor time a message costs the peer."""
    if own is None:
        return f"{'':29}"
    return f"{own['rate'] / peer['rate']:12.2f}{peer['cpu'] / max(own['cpu'], 1e-9):17.2f}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def summary(all_found: Sequence[Found]) -> dict[str, int]:
    counts = {"met": 0, "missed": 0, "not measured": 0}
    for found in all_found:
        for _, _, verdict in found.verdicts():
            counts[verdict.partition(" (")[0]] += 1
    return counts


def document(all_found: Sequence[Found], targets: Sequence[Target], terms: Terms, load: float) -> dict[str, Any]:
    """`load` is how many processes wanted a processor before the run began."""
    names = {name for found in all_found for name in found.medians}
    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "load_before": round(load, 2),
        "seconds": terms.seconds,
        "scale": terms.scale,
        "pinned": terms.is_pinned and processors()[0] is not None,
        "versions": versions(targets, names),
        "workloads": {found.workload.name: _one(found) for found in all_found},
    }


def _one(found: Found) -> dict[str, Any]:
    return {
        "what": found.workload.what,
        "date": time.strftime("%Y-%m-%d"),
        "unit": found.workload.unit,
        "runs": found.runs,
        "fewer_runs": {name: count for name, count in found.counts.items() if count < found.runs},
        "medians": {name: {key: round(value, 4) for key, value in one.items()} for name, one in found.medians.items()},
        "generator_was_the_limit": [
            name for name, one in found.medians.items() if one.get("generator", 0.0) >= BOTTLENECK
        ],
        "not_measured": found.missing,
        "goals": [
            {"against": peer or "a bound", "goal": goal, "verdict": verdict} for peer, goal, verdict in found.verdicts()
        ],
    }


def together(folder: Path, results: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """With the workloads that an earlier run on the same machine and terms left in the folder, in their order."""
    try:
        earlier = json.loads((folder / "results.json").read_text())
    except FileNotFoundError:
        return results
    if any(earlier[one] != results[one] for one in ("machine", "seconds", "scale", "pinned")):
        raise SystemExit(f"{folder}/results.json is of another machine or of other terms: nothing can be added to it")
    dated = {name: {"date": earlier["date"], "fewer_runs": {}, **one} for name, one in earlier["workloads"].items()}
    workloads = {**dated, **results["workloads"]}
    return {
        **results,
        "versions": {**earlier["versions"], **results["versions"]},
        "workloads": {name: workloads[name] for name in order if name in workloads},
    }


def write(folder: Path, results: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (folder / "rates.svg").write_text(bars(results))
    (folder / "README.md").write_text("\n".join(page(results)) + "\n")


def page(results: Mapping[str, Any]) -> Iterator[str]:
    """The same as Markdown."""
    yield "# Figures of the bench\n"
    yield f"Written by `make bench` on {results['date']}: {results['machine']}. [What they mean](../speed.md).\n"
    if results["scale"] < 1:
        yield f"Crowds and queues had {results['scale']:g} of the size that their names tell.\n"
    yield "![Rates by workload](rates.svg)\n"
    yield from _table(("target", "version"), sorted(results["versions"].items()))
    for name, found in results["workloads"].items():
        yield f"\n## {name}: {found['what']}\n"
        yield f"Medians of {found['runs']} run{'s' * (found['runs'] > 1)}, {found['date']}.\n"
        columns = [one for one in FIGURES if any(one in sample for sample in found["medians"].values())]
        heads = [FIGURES[one].replace("msg/s", found["unit"]) for one in columns]
        rows = [
            (target + _reservations(found, target), *(_figure(one[c]) for c in columns))
            for target, one in found["medians"].items()
        ]
        rows += [(target, f"not measured: {why}") for target, why in found["not_measured"].items()]
        yield from _table(("", *heads), rows)
        if found["goals"]:
            yield ""
            yield from _table(("against", "target", "verdict"), [tuple(one.values()) for one in found["goals"]])


def _reservations(found: Mapping[str, Any], target: str) -> str:
    limit = " (the load generator may be the limit)" * (target in found["generator_was_the_limit"])
    return limit + (f" (of {found['fewer_runs'][target]} only)" if target in found["fewer_runs"] else "")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield "| " + " | ".join([*row, *[""] * (len(heads) - len(row))]) + " |"
