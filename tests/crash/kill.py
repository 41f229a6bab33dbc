"""Kill the server at random moments under load and hold it to its word: `python -m tests.crash.kill --help`.

The ledger is on the client's side: what got its 250 must be delivered at least once, what was answered 4xx or 5xx must
not, and a message whose answer nobody saw may be either. Bounded by rounds; the seed is printed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

from smtpd_core.app.terminal import progress

CLIENTS = 6

_NUMBER = re.compile(rb"^X-Number: (\d+)\r?$", re.MULTILINE)


@dataclass
class Ledger:
    """Thread: any."""

    promised: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    _given: int = 0
    _lock: Lock = field(default_factory=Lock)

    def next_number(self) -> int:
        with self._lock:
            self._given += 1
            return self._given


@dataclass(frozen=True)
class Verdict:
    promised: int
    refused: int
    unknown: int
    lost: set[int]
    delivered_though_refused: set[int]
    copies: int
    mangled: set[int]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.delivered_though_refused or self.mangled)

    def __str__(self) -> str:
        return (
            f"{self.promised} promised, {self.refused} refused, {self.unknown} without an answer; "
            f"{len(self.lost)} lost, {len(self.delivered_though_refused)} delivered though refused, "
            f"{len(self.mangled)} not as sent, {self.copies} delivered more than once"
        )


# A server one in thirty of whose syncs fails, so that mail is refused as well.
FAILING = """
import errno, random, sys
from relay.disk import Disk
from smtpd_core.app.cli import main
sync = Disk.sync
def some_fail(disk, descriptor):
    if random.random() < 1 / 30:
        raise OSError(errno.EIO, "I/O error")
    sync(disk, descriptor)
Disk.sync = some_fail
sys.exit(main(sys.argv[1:]))
"""


class Server:
    """The daemon on a state directory. `options` are more words for its command line."""

    def __init__(self, state: Path, options: list[str], *, fails: bool = False) -> None:
        program = ["-c", FAILING] if fails else ["-m", "smtpd_core"]
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", "--listen", "127.0.0.1:0", "--state", state, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.port = 0
        for line in self.process.stdout:
            if line.startswith("listening mx"):
                self.port = int(line.rpartition(":")[2])
                break
        if not self.port:
            raise RuntimeError(f"the server did not start: exit code {self.process.wait()}")

    def kill_one(self, chance: random.Random) -> None:
        """One of the processes that the master started, if there are any: the others go on."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        started = children.read_text().split() if children.exists() else []
        if started:
            os.kill(int(chance.choice(started)), signal.SIGKILL)

    def kill(self) -> None:
        """The whole process group at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def content_of(number: int) -> bytes:
    """Small, and every twentieth large, so that both ways into the spool are killed."""
    size = 300_000 if number % 20 == 0 else 200 + number % 4000
    head = b"X-Number: %d\r\nMessage-ID: <%d@ledger.test>\r\n\r\n" % (number, number)
    return head + (b"%064d\r\n" % number) * (size // 66 + 1)


def send_for_ever(port: int, ledger: Ledger, stop: Event) -> None:
    """One client: keeps its connection until the server is killed."""
    number = 0
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            while not stop.is_set():
                number = ledger.next_number()
                client.ehlo_or_helo_if_needed()
                client.mail("bob@ledger.test")
                client.rcpt(f"user{number % 7}@ledger.test")
                ledger.unknown.add(number)
                code, _ = client.data(content_of(number))
                ledger.unknown.discard(number)
                (ledger.promised if code == 250 else ledger.refused).add(number)
    except smtplib.SMTPDataError:
        ledger.unknown.discard(number)
        ledger.refused.add(number)
    except (smtplib.SMTPException, OSError):
        pass  # killed: `unknown` says whether content was under way


def delivered(state: Path) -> tuple[Counter[int], set[int]]:
    """How often each message lies in a mailbox, and which are not as they were sent."""
    found: Counter[int] = Counter()
    mangled = set()
    for path in (state / "mail").rglob("new/*"):
        data = path.read_bytes()
        match = _NUMBER.search(data)
        if match is None:
            mangled.add(0)
            continue
        number = int(match[1])
        found[number] += 1
        if not data.endswith(content_of(number)):
            mangled.add(number)
    return found, mangled


def wait_until_delivered(state: Path, seconds: float) -> None:
    """Until spool and queue are empty, or the time is over."""
    words = [sys.executable, "-m", "smtpd_core", "queue", "stats", "--json", "--state", str(state)]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        told = subprocess.run(words, capture_output=True, text=True).stdout
        if '"messages": 0,' in told and not list((state / "spool" / "bodies").iterdir()):
            return
        time.sleep(0.2)  # another process's queue


def kill_once(server: Server, ledger: Ledger, chance: random.Random) -> None:
    """Load, and death at a random moment."""
    stop = Event()
    clients = [Thread(target=send_for_ever, args=(server.port, ledger, stop), daemon=True) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    stop.wait(chance.uniform(0.02, 0.8))
    server.kill_one(chance)
    stop.wait(chance.uniform(0.0, 0.4))
    server.kill()
    stop.set()
    for one in clients:
        one.join(30)


def run(state: Path, rounds: int, seed: int, options: list[str]) -> Verdict:
    """`rounds` kills, in every third with a disk that fails now and then; a last run delivers what is left."""
    chance = random.Random(seed)
    ledger = Ledger()
    with progress("kills", rounds) as one_more:
        for number in range(rounds):
            kill_once(Server(state, options, fails=number % 3 == 1), ledger, chance)
            one_more()
    server = Server(state, options)
    wait_until_delivered(state, 60)
    server.stop()
    found, mangled = delivered(state)
    return Verdict(
        len(ledger.promised), len(ledger.refused), len(ledger.unknown),
        ledger.promised - set(found), ledger.refused & set(found),
        sum(count > 1 for count in found.values()), mangled,
    )  # fmt: skip


def several_processes(folder: Path, count: int) -> list[str]:
    """The words that make the server run `count` receivers."""
    config = folder / "several.toml"
    config.write_text(
        f"""hostname = "mx.ledger.test"
[threads]
processes = {count}
[domains."ledger.test"]
deliver = "maildir:{folder}/state/mail"
users = "any"
"""
    )
    return ["--config", str(config)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processes", type=int, default=1, help="receivers beside a relay process, if more than one")
    chosen = parser.parse_args()
    print(f"{chosen.rounds} rounds, seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        options = several_processes(Path(folder), chosen.processes) if chosen.processes > 1 else []
        verdict = run(Path(folder) / "state", chosen.rounds, chosen.seed, options)
    print(verdict)
    for name in ("lost", "delivered_though_refused", "mangled"):
        if getattr(verdict, name):
            print(f"{name}: {sorted(getattr(verdict, name))[:20]}")
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
