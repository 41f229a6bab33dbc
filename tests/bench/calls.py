"""System calls of a message, counted by strace: `python -m tests.bench.calls [names of targets]`.

Of one session alone: what 200 messages cost more than 100 do, a message. The clocks are read without a system call.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.rates import drive, scratch, serving
from tests.bench.running import Running, interruptible, tree
from tests.bench.targets import TARGETS, NotInstalled, Target
from tests.bench.terms import Terms

Options = dict[str, int | float | bool]

JOBS: dict[str, Options] = {
    "W1": {"per_connection": 1},
    "W2": {"per_connection": 0},
    "W6": {"per_connection": 0, "recipients": 50, "group": True},
}
KINDS = {
    "send": ("sendto", "sendmsg", "write", "writev"),
    "receive": ("recvfrom", "recvmsg", "read"),
    "poll": ("epoll_wait", "epoll_pwait", "poll", "select"),
    "locks": ("futex", "sched_yield", "nanosleep"),
}
FREE = Terms(is_pinned=False)
_CALL = re.compile(r"^\d+ +(\w+)\(", re.M)


@contextmanager
def tracing(running: Running, to: Path, *words: str) -> Iterator[None]:
    """The whole process tree under strace. Tried anew where a child of before has just ended."""
    for _ in range(10):
        pids = tree(running.process.pid)
        command = ["strace", "-f", "-o", str(to), *words, *(word for pid in pids for word in ("-p", str(pid)))]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                assert tracer.stderr
                said = [tracer.stderr.readline() for _ in pids]
                if all("attached" in line for line in said):
                    yield
                    return
            finally:
                tracer.send_signal(signal.SIGINT)
        time.sleep(0.1)
    raise RuntimeError(f"strace can't look here: {said[-1].strip()}")


def trace(running: Running, target: Target, job: Options, *words: str) -> str:
    """What strace writes down while the server does the job."""
    to = running.folder / "trace"
    with tracing(running, to, *words):
        drive(running, target, {"sessions": 1, **job}, FREE)
        running.cpu_when_quiet()  # what is done behind the promise
    return to.read_text(errors="replace")


def calls(target: Target, job: Options) -> Mapping[str, float]:
    """System calls a message, by name."""
    counted = []
    for messages in (100, 200):
        with scratch() as folder, serving(target, folder, FREE) as running:
            drive(running, target, {**job, "messages": 20, "sessions": 1}, FREE)
            counted.append(Counter(_CALL.findall(trace(running, target, {**job, "messages": messages}))))
    few, many = counted
    return {name: (many[name] - few[name]) / 100 for name in many if many[name] - few[name] > 2}


def row(found: Mapping[str, float]) -> list[float]:
    """By kind, what is none of them, and the sum."""
    kinds = [sum(found.get(name, 0.0) for name in names) for names in KINDS.values()]
    whole = sum(found.values())
    return [*kinds, whole - sum(kinds), whole]


def order(traced: str) -> list[str]:
    """Of one message: "content" (it was asked for), "sync" and "promise", in the order in which they happened."""
    found = re.finditer(r'"(?P<content>354 )|(?P<sync>\b(?:fsync|fdatasync)\()|"(?P<promise>250 )', traced)
    return [str(one.lastgroup) for one in found]


def trace_of_one(target: Target, folder: Path) -> str:
    with serving(target, folder, FREE) as running:
        return trace(running, target, {"messages": 1, "size": 4096}, "-s", "12")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.calls", description=(__doc__ or "").splitlines()[0])
    names = [one.name for one in TARGETS]
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names))
    parser.add_argument("--workloads", nargs="+", choices=JOBS, default=list(JOBS))
    chosen = parser.parse_args(words)
    if unknown := set(chosen.targets) - set(names):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    print(f"{'':4}{'':20}" + "".join(f"{head:>9}" for head in (*KINDS, "others", "all")))
    for workload in chosen.workloads:
        for target in TARGETS:
            if target.name in (chosen.targets or ("smtpd_core", "aiosmtpd", "smtp-sink", "go-smtp", "smtp-server")):
                try:
                    with interruptible():
                        figures = "".join(f"{one:9.1f}" for one in row(calls(target, JOBS[workload])))
                except NotInstalled:
                    figures = "  not installed"
                print(f"{workload:4}{target.name:20}{figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
