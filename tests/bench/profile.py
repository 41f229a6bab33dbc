"""Where our server's time goes under workloads: `python -m tests.bench.profile W1 W2 [--seconds 5] [--perf] [--out D]`.

py-spy samples the running server (250 a second) and the functions are listed by the share of samples in which they were
at work themselves, beside the share in which they or what they called were; threads that wait for something to do are
left out. --perf lists the same process by symbol instead, the interpreter's and the kernel's, where the kernel lets
perf look. Sampling costs the server some speed; shares are what to read, not rates.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.bench.rates import generator, rate, scratch, serving
from tests.bench.running import Running, interruptible
from tests.bench.targets import TARGETS
from tests.bench.terms import Terms, Workload
from tests.bench.words import positive, split
from tests.bench.workloads import WORKLOADS

LINES = 30
# A thread with one of these at the end of its stack has nothing to do.
WAITING = ("EpollPoller.poll ", "SelectorPoller.poll ", "ThreadPool._watch ", "Condition.wait ", "select ")
# For the server to settle before the samples begin.
WARM_UP = 0.5


def py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def samples(running: Running, seconds: float) -> list[tuple[list[str], int]]:
    """Stacks, outermost function first, and how often each was seen."""
    program = py_spy()
    if program is None:
        raise SystemExit("py-spy is missing: pip install -e .[bench]")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = Path(folder, "stacks")
        words = [program, "record", "--pid", str(running.process.pid), "--format", "raw", "--rate", "250"]
        words += ["--duration", str(max(1, round(seconds))), "--output", str(found), "--nonblocking"]
        done = subprocess.run(words, capture_output=True, text=True)
        if not found.exists():
            raise SystemExit(f"py-spy: {(done.stderr.strip() or 'it says nothing').splitlines()[-1]}")
        return [_stack(line) for line in found.read_text().splitlines() if line]


def _stack(line: str) -> tuple[list[str], int]:
    frames, _, count = line.rpartition(" ")
    return [_function(frame) for frame in frames.split(";")], int(count)


def _function(frame: str) -> str:
    """Without the line number: turn (smtpd_core/net/connection.py)."""
    head, _, number = frame.rpartition(":")
    return f"{head})" if number.rstrip(")").isdigit() else frame


def top(stacks: Iterable[tuple[list[str], int]]) -> list[str]:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for frames, count in stacks:
        if frames[-1].startswith(WAITING):
            continue
        total += count
        own[frames[-1] or "(no Python function)"] += count
        for frame in set(frames):
            within[frame] += count
    lines = [f"{total} samples", f"{'own':>6}{'with callees':>14}  function"]
    for name, count in own.most_common(LINES):
        lines.append(f"{count / total:6.1%}{max(count, within[name]) / total:14.1%}  {name}")
    return lines


def symbols(running: Running, seconds: float) -> list[str]:
    program = shutil.which("perf")
    if program is None:
        raise SystemExit("perf is missing (Debian: linux-perf)")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        data = str(Path(folder, "perf.data"))
        words = [program, "record", "-q", "-e", "cpu-clock", "-F", "997", "-o", data, "-p", str(running.process.pid)]
        done = subprocess.run([*words, "--", "sleep", str(seconds)], capture_output=True, text=True)
        words = [program, "report", "-i", data, "--stdio", "--no-children", "-F", "overhead,dso,symbol", "-w", "9,24"]
        report = subprocess.run(words, capture_output=True, text=True)
    found = [line.rstrip() for line in report.stdout.splitlines() if "%" in line and not line.startswith("#")]
    if not found:
        raise SystemExit(f"perf can't look here: {(done.stderr.strip() or report.stderr.strip()).splitlines()[-1]}")
    return found[:LINES]


def look(workload: Workload, seconds: float, by_symbol: bool) -> list[str]:
    target = next(one for one in TARGETS if one.name == workload.targets[0])
    terms = Terms(seconds + 20.0)  # ended when the samples are there
    with scratch() as folder, serving(target, folder, terms) as running:
        words = generator(running.port, target, {"seconds": terms.seconds, **workload.options}, terms)
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as load:
            try:
                time.sleep(WARM_UP)
                return symbols(running, seconds) if by_symbol else top(samples(running, seconds))
            finally:
                load.terminate()


def main() -> int:
    rated = {one.name: one for one in WORKLOADS if one.measure is rate}
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="+", type=split, metavar="WORKLOAD", help=", ".join(rated))
    parser.add_argument("--seconds", type=positive(float), default=5.0, help="of sampling")
    parser.add_argument("--perf", action="store_true", help="by symbol of the interpreter and the kernel")
    parser.add_argument("--out", type=Path, help="a folder for what is seen: a file for each workload")
    chosen = parser.parse_args()
    names = [name for several in chosen.workloads for name in several]
    if unknown := set(names) - set(rated):
        parser.error(f"no workload {', '.join(sorted(unknown))} to look at; there are {', '.join(rated)}")
    for name in names:
        workload = rated[name]
        with interruptible():
            lines = [f"{name}: {workload.what}", *look(workload, chosen.seconds, chosen.perf)]
        print("\n".join(lines))
        if chosen.out:
            chosen.out.mkdir(parents=True, exist_ok=True)
            (chosen.out / f"profile-{name}.txt").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
