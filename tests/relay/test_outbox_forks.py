"""A child of an embedding program holds nothing of its parent's outbox, also when it outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay import Outbox, Routes
from relay.control import ask

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Its child says in one line what it finds, then lives until its standard input ends.
PROGRAM = """
import os, signal, sys
from relay import Outbox, Routes
outbox = Outbox(sys.argv[1], stops=Routes(default="maildir:" + sys.argv[1] + "/mail").stops)
outbox.start()
outbox.queue.hold([])
outbox.send(b"Subject: x\\r\\n\\r\\nhello\\r\\n", "bob@here.test", ["ann@held.test"])
if os.fork() == 0:
    from smtpd_core.draft import Draft
    from relay.outbox import envelope_for
    ticket = outbox.keep(envelope_for("bob@here.test", ["ann@held.test"], None, 1.0), Draft())
    print("refused" if ticket.wait(5) and ticket.outcome else "waits or kept", outbox.delivers, flush=True)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_that_outlives_its_parent_keeps_no_lock(tmp_path: Path) -> None:
    """The next server found queue and spool held by a process that never delivers."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "refused False\n"
    assert child.wait(20) == -signal.SIGKILL
    outbox = Outbox(tmp_path, stops=Routes().stops)
    outbox.start()
    try:
        assert outbox.delivers
        assert ask(tmp_path, "hold", ["NONE"]) == 0
    finally:
        assert outbox.stop(10)
        child.stdin.close()
        child.stdout.close()
    assert list((tmp_path / "spool").glob("*.seg")) == []


def test_a_child_may_start_the_outbox_anew_and_spools_beside_its_parent(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "    sys.stdin.read()", "    print(outbox.start(), outbox.delivers, outbox.stop(), flush=True)"
    )
    program = program.replace("os.kill(os.getpid(), signal.SIGKILL)", "os.wait(); sys.exit(not outbox.stop())")
    told = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert told.stdout.splitlines() == ["refused False", "True False True"], told.stderr
    assert told.returncode == 0, told.stderr
