"""Kill a delivering outbox at its n-th step on disk, or let that step fail, for every n: `python -m tests.crash.steps`.

A step is a call of the disk, a transaction of the queue, or a sync and rename in the mailbox; it dies before it or
behind it. The ledger holds what was promised; a second life delivers the rest, and may die as well.
Each life is a child of this process, which starts no thread of its own.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay.agents import maildir
from relay.disk import Disk
from relay.mail import Envelope, Stop
from relay.outbox import Outbox, envelope_for
from relay.queue_database import Database
from smtpd_core.draft import Draft
from smtpd_core.threads import Lock, Mailbox

LARGE = 300_000
SIZES = (10, 2000, LARGE, 500, LARGE + 1, 3)
CALLS = ("create", "append", "write_at", "sync", "sync_directory", "truncate", "link", "rename", "remove", "lock")
SECONDS = 20

Effect = Callable[[str, bool], None]  # (name of the step, whether it is done)


def content_of(number: int) -> bytes:
    return (
        b"X-Number: %d\r\nMessage-ID: <%d@ledger.test>\r\n\r\n" % (number, number)
        + b"%d" % (number % 7) * SIZES[number]
    )


class Steps:
    """Counts the steps of all threads and calls `effect` at the n-th."""

    def __init__(self, n: int, effect: Effect) -> None:
        self._n, self._effect = n, effect
        self._lock = Lock()
        self.names: list[str] = []

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **more: Any) -> Any:
            with self._lock:
                self.names.append(name)
                is_it = len(self.names) == self._n
            if is_it:
                self._effect(name, False)
            result = call(*words, **more)
            if is_it:
                self._effect(name, True)
            return result

        return step

    def install(self, *, disk_alone: bool) -> None:
        """In this process, for good."""
        for name in CALLS:
            setattr(Disk, name, self.around(name, getattr(Disk, name)))
        if not disk_alone:
            Database._carry_out = self.around("transaction", Database._carry_out)  # type: ignore[method-assign]
            maildir.MaildirAgent._put = self.around("deliver", maildir.MaildirAgent._put)  # type: ignore[method-assign]
            maildir.sync_directory = self.around("delivered", maildir.sync_directory)


def kills(behind: bool) -> Effect:
    def effect(name: str, is_done: bool) -> None:
        if is_done is behind:
            os.kill(os.getpid(), signal.SIGKILL)

    return effect


def fails(number: int) -> Effect:
    def effect(name: str, is_done: bool) -> None:
        if not is_done:
            raise OSError(number, os.strerror(number))

    return effect


def outbox_in(folder: Path) -> Outbox:
    def stops(envelope: Envelope) -> list[Stop]:
        return [Stop(number, one, f"maildir:{folder}/mail") for number, one in enumerate(envelope.recipients)]

    return Outbox(folder / "state", stops=stops, alone=True)


def live(folder: Path, steps: Steps | None, *, sends: bool, disk_alone: bool = False) -> int:
    """One life: send everything where it `sends`, deliver everything, stop. 0 where all ended in time."""
    if steps is not None:
        steps.install(disk_alone=disk_alone)
    outbox = outbox_in(folder)
    try:
        outbox.start()
    except OSError:
        return 3  # refused to start: an answer as well
    ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    tickets = []
    for number in range(len(SIZES)) if sends else ():
        draft = Draft(outbox.drafts)
        draft.append(content_of(number))
        ticket = outbox.keep(envelope_for("bob@ledger.test", ["ann@ledger.test"], None, time.time()), draft)
        tickets.append(ticket)
        ticket.watch(lambda one, n=number: _note(ledger, n, one.outcome is None))
        if number % 2:  # one alone, and several at once
            ticket.wait(SECONDS)
    if not all(one.wait(SECONDS) for one in tickets):
        return 4  # somebody was never answered
    deadline = time.monotonic() + SECONDS
    nothing: Mailbox[None] = Mailbox()
    while outbox.queue is not None and time.monotonic() < deadline:
        found = _delivered(folder)[0]
        if all(found[number] for number in _promised(folder)) and outbox.queue.next_due() is None:
            break
        nothing.wait(0.02)
    else:
        return 5  # never delivered
    return 0 if outbox.stop(SECONDS) else 6


def _note(ledger: int, number: int, is_kept: bool) -> None:
    os.write(ledger, b"%s %d\n" % (b"kept" if is_kept else b"refused", number))


def _ledger(folder: Path, word: str) -> set[int]:
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return {int(line.split()[1]) for line in lines if line.startswith(word)}


def _promised(folder: Path) -> set[int]:
    return _ledger(folder, "kept")


def _delivered(folder: Path) -> tuple[Counter[int], list[str]]:
    found: Counter[int] = Counter()
    wrong = []
    for path in (folder / "mail" / "new").glob("*"):
        data = path.read_bytes()
        place = data.find(b"X-Number: ")
        number = int(data[place + 10 : data.find(b"\r", place)])
        found[number] += 1
        if data[place:] != content_of(number):
            wrong.append(path.name)
    return found, wrong


def in_a_child(work: Callable[[], int]) -> int:
    """What os.waitstatus_to_exitcode gives: minus the signal where it was killed."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_steps(disk_alone: bool) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = Steps(0, kills(False))

        def work() -> int:
            code = live(folder, steps, sends=True, disk_alone=disk_alone)
            (folder / "count").write_text(str(len(steps.names)))
            return code

        assert in_a_child(work) == 0
        return int((folder / "count").read_text())


def complaints(folder: Path) -> str:
    found, wrong = _delivered(folder)
    lost = _promised(folder) - set(found)
    told_no = _ledger(folder, "refused") & set(found)
    twice = [number for number, count in found.items() if count > 1]
    said = (("lost", lost), ("refused and delivered", told_no), ("mangled", wrong), ("twice", twice))
    return "; ".join(f"{what} {which}" for what, which in said if which)


def try_kill(n: int, behind: bool, again: int) -> str:
    """Die at step n, and once more at step `again` of the second life, if not 0; then what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_child(lambda: live(folder, Steps(n, kills(behind)), sends=True))
        if again:
            in_a_child(lambda: live(folder, Steps(again, kills(behind)), sends=False))
        code = in_a_child(lambda: live(folder, None, sends=False))
        return complaints(folder) or (f"the last life ended with {code}" if code else "")


def try_failure(n: int, number: int) -> str:
    """Step n fails with this errno; the process lives on, and a second life finds the rest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = in_a_child(lambda: live(folder, Steps(n, fails(number)), sends=True, disk_alone=True))
        if first not in (0, 3, 5):
            return f"the process did not live on: {first}; {complaints(folder)}"
        code = in_a_child(lambda: live(folder, None, sends=False))
        return complaints(folder) or (f"the last life ended with {code}" if code else "")


def run(seed: int, every: int) -> list[str]:
    """What is wrong, a line for each step; `every` 1 tries all steps, 2 every second one."""
    chance = random.Random(seed)
    wrong = []
    all_steps, disk_steps = count_steps(False), count_steps(True)
    print(f"killed at every {every}. of {all_steps} steps, failing at every {every}. of {disk_steps}", flush=True)
    for n in range(1 + seed % every, all_steps + 3, every):
        behind, again = chance.random() < 0.5, chance.choice((0, 0, chance.randint(1, 12)))
        if said := try_kill(n, behind, again):
            wrong.append(f"killed {'behind' if behind else 'before'} step {n}, then at {again}: {said}")
    for n in range(1 + seed % every, disk_steps + 3, every):
        number = chance.choice((errno.EIO, errno.ENOSPC, errno.EROFS))
        if said := try_failure(n, number):
            wrong.append(f"{errno.errorcode[number]} at step {n}: {said}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.steps", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every N-th step only")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    wrong = run(chosen.seed, chosen.every)
    print("\n".join(wrong) or "every step: what was promised is there, once, and nothing else")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
