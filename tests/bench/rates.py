"""Rates: a server driven by the load generator for a while, with what it cost and whether it kept what it promised.

The server is pinned to the first processor, the load to the second, where the target is not spread over both. The rate
is messages (or megabytes) per second; CPU is user + system of the server's whole process tree per 1 000 messages; "gen"
is the generator's share of its processor.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from certs.issue import ensure_self_signed
from tests.bench import install, stored
from tests.bench.running import Running, free_port, pinned, processors
from tests.bench.targets import KEEPING, NotInstalled, Target
from tests.bench.terms import Sample, Terms, Workload

# From this share of its processor on the generator may be what limits the rate.
BOTTLENECK = 0.9


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder with the certificate that all peers use; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        ensure_self_signed(folder / "tls", "bench.test")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(target: Target, folder: Path, terms: Terms) -> Iterator[Running]:
    """Raises NotInstalled where the peer is not installed, RuntimeError where it does not serve."""
    port = free_port()
    command = target.command(port, folder)
    if command is None:
        raise NotInstalled(target.name)
    with Running(command, port, folder, processors()[0] if _is_pinned(target, terms) else None) as running:
        yield running


def generator(port: int, target: Target, options: dict[str, int | float | bool], terms: Terms) -> list[str]:
    """The command of the load generator: load.c's where it is built (for TLS: with tls.c), else load.py's."""
    program = install.load_program(bool(options.get("starttls")))
    words = [str(program)] if program else [sys.executable, "-m", "tests.bench.load"]
    words += ["--port", str(port)]
    for name, value in {"opening": target.opening, **options}.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] * value if isinstance(value, bool) else [option, str(value)]
    return pinned(words, processors()[1] if _is_pinned(target, terms) else None)


def _is_pinned(target: Target, terms: Terms) -> bool:
    return terms.is_pinned and not target.is_spread


def drive(running: Running, target: Target, options: dict[str, int | float | bool], terms: Terms) -> Sample:
    """What the generator says."""
    done = subprocess.run(generator(running.port, target, options, terms), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "the load generator failed").splitlines()[-1])
    load: Sample = json.loads(done.stdout)
    return load


def rate(target: Target, workload: Workload, terms: Terms) -> Sample:
    options = {"seconds": terms.seconds, **workload.options}
    with scratch() as folder:
        with serving(target, folder, terms) as running:
            warmed = 0
            if target.warm_up:
                warmed = int(drive(running, target, {**options, "seconds": target.warm_up}, terms)["messages"])
            before = running.cpu_when_quiet()
            load = drive(running, target, options, terms)
            cpu, resident = running.cpu_when_quiet() - before, running.resident()
        hold_to_its_word(target, folder, warmed + int(load["messages"]), workload)
    a_second = load["messages"] / load["seconds"]
    return {
        "rate": a_second * workload.options.get("size", 1024) / 1e6 if workload.unit == "MB/s" else a_second,
        "cpu": cpu / load["messages"] * 1000,
        "generator": load["cpu"] / load["seconds"],
        "p50_ms": load["p50_ms"],
        "p99_ms": load["p99_ms"],
        "resident_mib": resident / (1 << 20),
    }


def hold_to_its_word(target: Target, folder: Path, promised: int, workload: Workload) -> None:
    """Raises Miscounted where what a store holds, or what our sink counted, is not what was answered 250."""
    size, dots = int(workload.options.get("size", 1024)), bool(workload.options.get("dots"))
    if target.stored:
        stored.compare(target.stored(folder), promised, size, dots)
    elif target.counts:
        counted = folder / "counted"
        if not counted.exists():
            raise stored.Miscounted("it ended without a word of what it was given")
        messages, octets = json.loads(counted.read_text())
        wanted = len(stored.content(size, dots))
        if (messages, octets) != (promised, promised * wanted):
            raise stored.Miscounted(f"{messages} messages of {octets} octets came, not {promised} of {wanted}")


def show_what_arrives(workload: Workload, terms: Terms) -> None:
    """A few messages of the workload, two a session, written down by our sink and compared: octets and recipients."""
    few = {**workload.options, "messages": 2 * int(workload.options.get("sessions", 20))}
    with scratch() as folder:
        with serving(KEEPING, folder, terms) as running:
            load = drive(running, KEEPING, few, terms)
        hold_to_its_word(KEEPING, folder, int(load["messages"]), replace(workload, options=few))
        wanted = [f"user{n}@bench.test" for n in range(int(few.get("recipients", 1)))]
        for path in (folder / "kept").glob("*.to"):
            if (found := path.read_text().split()) != wanted:
                raise stored.Miscounted(f"a message came for {len(found)} recipients, not for {len(wanted)}")
