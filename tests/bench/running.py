"""A server under measurement: a process tree of its own, what it has used, and its end.

Thread: any one. Not here: which servers there are (targets.py), what is asked of them (workloads.py).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
TICK = os.sysconf("SC_CLK_TCK")
# How long after the load a tree may still use its processor for it (intake behind a promise, a queue manager).
QUIET_WITHIN = 3.0
# How long its children may take to end after it.
END_WITHIN = 5.0


def usable_processors() -> list[int]:
    return sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def processors() -> tuple[int | None, int | None]:
    """One for the server, one for the load; (None, None) where there is only one."""
    usable = usable_processors()
    return (usable[0], usable[1]) if len(usable) > 1 and shutil.which("taskset") else (None, None)


def pinned(words: Sequence[str], processor: int | None) -> list[str]:
    return list(words) if processor is None else ["taskset", "-c", str(processor), *words]


def surroundings() -> dict[str, str]:
    """This repository is what another interpreter imports, whatever is installed there."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Told to end, by SIGTERM or from the keyboard, the bench ends the servers and removes their folders first."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("interrupted: its servers are ended, and their folders removed") from None


def free_port() -> int:
    """Below those that the system hands out, so that nothing else gets it before the server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Running:
    """Use as a context manager. Raises RuntimeError where the server does not greet."""

    def __init__(self, command: Sequence[str], port: int, folder: Path, processor: int | None = None) -> None:
        self.port = port
        self.folder = folder
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            pinned(command, processor), stdout=self.log, stderr=self.log, cwd=ROOT, env=surroundings()
        )
        try:
            self._await_banner()
        except BaseException:
            self.__exit__()
            raise

    def _await_banner(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                    if sock.recv(100).startswith(b"220"):
                        sock.sendall(b"QUIT\r\n")
                        sock.recv(100)
                        return
            except OSError:
                time.sleep(0.02)
        said = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"does not serve: {said[-1] if said else 'it says nothing'}")

    def cpu(self) -> float:
        """User and system seconds of the whole process tree."""
        return sum(_ticks(pid) for pid in tree(self.process.pid)) / TICK

    def cpu_when_quiet(self) -> float:
        """The same once the tree does nothing more, so that what is done behind the promises counts too."""
        until, used = time.monotonic() + QUIET_WITHIN, self.cpu()
        while time.monotonic() < until:
            time.sleep(0.05)
            if (later := self.cpu()) == used:
                break
            used = later
        return used

    def resident(self) -> int:
        """Resident bytes of the whole process tree."""
        return sum(_resident(pid) for pid in tree(self.process.pid))

    def threads(self) -> int:
        return sum(len(_tasks(pid)) for pid in tree(self.process.pid))

    def wake_ups(self) -> int:
        """How often a thread of the tree has gone to sleep, and so was woken."""
        return sum(_sleeps(task) for pid in tree(self.process.pid) for task in _tasks(pid))

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        family = tree(self.process.pid)  # Postfix's master outlives the command that started it
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _signal(family[1:], signal.SIGTERM)
        # Not our children, so they can't be waited for; one that still writes would make its folder anew.
        until = time.monotonic() + END_WITHIN
        while any(map(_is_running, family[1:])) and time.monotonic() < until:
            time.sleep(0.01)
        _signal(filter(_is_running, family[1:]), signal.SIGKILL)
        self.log.close()


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    found, at = [root], 0
    while at < len(found):
        try:
            found.extend(int(pid) for pid in Path(f"/proc/{found[at]}/task/{found[at]}/children").read_text().split())
        except OSError:
            pass
        at += 1
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _ticks(pid: int) -> int:
    try:
        # After the name in parentheses; fields 14 to 17 are user, system and those of the reaped children.
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, after[11:15]))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _sleeps(task: Path) -> int:
    try:
        lines = (task / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")), 0)
