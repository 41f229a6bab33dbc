"""Engines inside other programs, each in a process of its own: leaving without stop, and forking."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.net.echo import Client

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import os, sys, threading, time
from tests.net.echo import Client, Club
from smtpd_core.net import Door, Engine, ListenerSettings

def make(club):
    engine = Engine([Door(ListenerSettings(bind="127.0.0.1:0", tls="none"))], club.open)
    engine.start()
    return engine

club = Club()
engine = make(club)
"""


def run(script: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_program_that_forgets_to_stop_ends_and_its_clients_hear_it():
    script = PRELUDE + "print(engine.addresses[0][1], flush=True)\nsys.stdin.readline()\n"
    program = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert program.stdin is not None and program.stdout is not None
    with Client(("127.0.0.1", int(program.stdout.readline()))) as client:
        program.stdin.close()  # its main thread comes to its end
        assert client.read() == "421 stop"
        assert client.read() == ""
    assert program.wait(10) == 0
    program.stdout.close()


def test_a_hook_that_hangs_does_not_keep_the_program():
    began = time.monotonic()
    done = run("""
client = Client(engine.addresses[0])
client.send("BLOCK 60")
club.wait_until(lambda: club.running == 1)
""")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 10


def test_leaving_through_an_exception_ends_too():
    done = run("client = Client(engine.addresses[0])\nraise SystemExit(3)")
    assert done.returncode == 3, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_forked_child_is_inactive_and_can_start_its_own():
    done = run("""
client = Client(engine.addresses[0])
assert client.ask("before") == "250 before"
own = {int(fd) for fd in os.listdir("/proc/self/fd")}
child = os.fork()
if child == 0:
    sockets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{fd}") or True and os.path.islink(f"/proc/self/fd/{fd}")]
    left = [name for name in sockets if name.startswith("socket") or "eventpoll" in name or "eventfd" in name]
    ok = len(left) == 1                      # the test's own client
    ok = ok and not engine.is_running and engine.connection_count == 0
    ok = ok and engine.stop(1)
    second = make(Club())
    with Client(second.addresses[0]) as other:
        ok = ok and other.ask("child") == "250 child"
    ok = ok and second.stop(5)
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert client.ask("after") == "250 after"
assert engine.is_running
with Client(engine.addresses[0]) as other:
    assert other.ask("new") == "250 new"
assert engine.stop(5)
print("fine")
""")
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_fork_from_within_a_hook_leaves_the_parent_whole():
    done = run("""
statuses = []
def fork_and_wait():
    child = os.fork()
    if child == 0:
        os._exit(7 if not engine.is_running else 1)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
club.on_block = fork_and_wait
with Client(engine.addresses[0]) as client:
    for _ in range(5):
        assert client.ask("BLOCK 0") == "250 done"
assert statuses == [7] * 5, statuses
assert engine.stop(5)
print("fine")
""")
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_child_that_comes_back_from_a_hook_into_the_engine_ends_quietly():
    done = run("""
def fork():
    if os.fork() == 0:
        threading.Timer(1.0, lambda: os._exit(0)).start()
    else:
        os.wait()
club.on_block = fork
with Client(engine.addresses[0]) as client:
    assert client.ask("BLOCK 0") == "250 done"
    assert client.ask("x") == "250 x"
assert engine.stop(5)
print("fine")
""")
    assert done.stdout.strip() == "fine", done.stderr
