"""Master and receivers as real processes, driven by real sockets and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.echo import Client

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os, sys, logging, time
from smtpd_core.app.processes import Master, Role
from smtpd_core.app.ward import LEAVE
from smtpd_core.net import Door, Engine, ListenerSettings
from smtpd_core.net.listeners import bind
from tests.net.echo import Club, Echo

logging.basicConfig(level=logging.INFO)
door = Door(ListenerSettings(bind="127.0.0.1:0", tls="none"))
listeners = bind(door)
for listener in listeners:
    listener.is_shared = True
print(listeners[0].address[1], flush=True)

class Who(Echo):
    def obey(self, line, turn):
        if line == b"WHO":
            self.output += b"250 %d\\n" % os.getpid()
            self.waiting_for = "command"
            return None
        return super().obey(line, turn)

def receive(ward):
    if os.path.exists(sys.argv[1]):
        return 1
    while os.path.exists(sys.argv[1] + ".slow"):
        time.sleep(0.02)  # until the test takes the file away
    club = Club()
    club.on_block = lambda: print("BLOCKED", flush=True)
    engine = Engine([door], lambda *facts: Who(club, facts[0], facts[2]), listeners=listeners)
    engine.start()
    ward.is_ready()
    if ward.wait() == LEAVE:
        engine.pause()
        while ward.wait(0.2) is None and engine.connection_count:
            pass
    return 0 if engine.stop(5) else 1

master = Master([Role(f"receiver {n}", receive) for n in (1, 2)],
                tell=lambda state: os.write(1, state.encode() + b"\\n"), patience=10)
sys.exit(master.run())
"""


BESIDE_A_RELAY = SCRIPT.replace(
    "    ward.is_ready()\n    if",
    """    say("PREPARED")
    if not ward.may_serve():
        return 0
    say("SERVES")
    ward.is_ready()
    if""",
).replace(
    "master = Master([",
    """
def say(line):
    os.write(1, line.encode() + b"\\n")  # whole, whoever else says something

def relay(ward):
    ward.is_ready()
    while ward.wait() == 1:
        ok = not os.path.exists(sys.argv[1] + ".refused")
        say("RELAY RELOADED" if ok else "RELAY REFUSED")
        ward.has_reloaded(ok)
    return 0

def took_over():
    say("TOOK OVER")

master = Master(took_over=took_over, roles=[Role("relay", relay, reloads_in_place=True)] + [""",
)


class Served:
    def __init__(self, stop_file: Path, script: str = SCRIPT) -> None:
        self.stop_file = stop_file
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(stop_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        self.address = ("127.0.0.1", int(self.hear()))
        self.hear_until("READY=1")

    def hear_until(self, last: str) -> list[str]:
        """All that is said up to this."""
        said = [self.hear()]
        while said[-1] != last:
            assert said[-1], said
            said.append(self.hear())
        return said

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def who(self) -> int:
        with Client(self.address) as client:
            return int(client.ask("WHO").split()[1])

    def children(self) -> set[int]:
        """The processes that the master has now."""
        number = self.process.pid
        return set(map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split()))

    def wait_for_children(self, count: int) -> None:
        ends = time.monotonic() + 60
        while len(self.children()) != count:
            assert time.monotonic() < ends, f"{self.children()}: {count} are due"
            time.sleep(0.02)  # another process's children

    def everybody(self, wanted: int, besides: frozenset[int] = frozenset()) -> set[int]:
        """Ask until `wanted` processes that are not `besides` have answered."""
        found: set[int] = set()
        held = []
        ends = time.monotonic() + 60
        while len(found) < wanted and time.monotonic() < ends:
            client = Client(self.address)  # held open, so that the next one goes to whoever is free
            held.append(client)
            found.add(int(client.ask("WHO").split()[1]))
            found -= besides
        for client in held:
            client.close()
        assert len(found) == wanted
        return found


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    served = Served(tmp_path / "stop")
    yield served
    end(served)


@pytest.fixture
def beside_a_relay(tmp_path) -> Iterator[Served]:
    served = Served(tmp_path / "stop", BESIDE_A_RELAY)
    yield served
    end(served)


def end(served: Served) -> None:
    if served.process.poll() is None:
        served.process.kill()
    served.process.communicate()


def test_term_drains_and_ends_with_0(served):
    with Client(served.address) as client:
        assert client.ask("x") == "250 x"
        served.process.send_signal(signal.SIGTERM)
        assert client.read() == "421 stop"
    assert served.process.wait(60) == 0


def test_a_killed_receiver_loses_only_its_own_sessions_and_comes_back(served):
    clients = [Client(served.address) for _ in range(20)]
    owners = [int(client.ask("WHO").split()[1]) for client in clients]
    victim = owners[0]
    os.kill(victim, signal.SIGKILL)
    for client, owner in zip(clients, owners, strict=True):
        if owner != victim:
            assert client.ask("x") == "250 x"
    with Client(served.address) as client:  # at once, whoever takes it
        assert client.ask("x") == "250 x"
    assert victim not in served.everybody(2)
    for client in clients:
        client.close()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0


def test_hup_replaces_the_receivers_and_closes_no_session(served):
    old = served.everybody(2)
    with Client(served.address) as client:
        served.process.send_signal(signal.SIGHUP)
        assert served.hear() == "RELOADING=1"
        assert served.hear() == "READY=1"
        served.everybody(2, frozenset(old))
        assert int(client.ask("WHO").split()[1]) in old
    ends = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{process}") for process in old):
        assert time.monotonic() < ends
        time.sleep(0.02)  # processes that are not ours to wait for


def test_hup_twice_leaves_one_successor_for_each_receiver(served):
    """The second one once began a second successor, and both stayed."""
    old = served.everybody(2)
    slow = served.stop_file.with_suffix(".slow")
    slow.touch()
    served.process.send_signal(signal.SIGHUP)
    assert served.hear() == "RELOADING=1"
    served.wait_for_children(4)
    served.process.send_signal(signal.SIGHUP)
    assert served.hear() == "RELOADING=1"
    served.wait_for_children(6)
    slow.unlink()
    assert served.hear() == "READY=1"
    served.wait_for_children(2)
    assert not served.children() & old
    assert served.everybody(2) == served.children()


def test_a_receiver_that_dies_while_its_successor_starts_is_not_started_again(served):
    old = served.everybody(2)
    slow = served.stop_file.with_suffix(".slow")
    slow.touch()
    served.process.send_signal(signal.SIGHUP)
    assert served.hear() == "RELOADING=1"
    served.wait_for_children(4)
    for process in old:
        os.kill(process, signal.SIGKILL)
    for _ in old:
        while " ended with -9" not in (said := served.process.stderr.readline()):
            assert said
        assert "its successor starts" in said
    slow.unlink()
    assert served.hear() == "READY=1"
    assert served.everybody(2) == served.children()


def test_a_reload_that_fails_is_over_too(served):
    old = served.everybody(2)
    served.stop_file.touch()
    served.process.send_signal(signal.SIGHUP)
    assert served.hear() == "RELOADING=1"
    assert served.hear() == "READY=1"
    assert served.everybody(2) == old


def test_newcomers_are_served_while_receivers_come_and_go(served):
    """A process that was woken for a newcomer and then turned away once left it in silence."""
    for _ in range(4):
        served.process.send_signal(signal.SIGHUP)
        assert served.hear() == "RELOADING=1"
        for _ in range(60):
            with Client(served.address) as client:
                assert client.greeting == "220 hello"
                assert client.ask("x") == "250 x"
        assert served.hear() == "READY=1"


def test_a_receiver_that_keeps_dying_is_started_with_growing_delay(served):
    victims = served.everybody(2)
    served.stop_file.touch()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    said = []
    while sum("starting it again" in line for line in said) < 5:
        said.append(served.process.stderr.readline())
    delays = [line.rsplit(" in ", 1)[1] for line in said if "receiver 1" in line and "starting it again" in line]
    assert delays[:2] == ["0.1 s\n", "0.2 s\n"]
    served.stop_file.unlink()
    served.everybody(2)


def test_children_end_when_the_master_is_killed(served):
    with Client(served.address) as client:
        assert client.ask("x") == "250 x"
        served.process.kill()
        assert client.read() == "421 stop"


def test_a_second_term_ends_at_once(served):
    with Client(served.address) as client:
        assert client.ask("x") == "250 x"
        client.send("BLOCK 30")
        assert served.hear() == "BLOCKED"
        served.process.send_signal(signal.SIGTERM)
        assert served.hear() == "STOPPING=1"
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 1
        assert time.monotonic() - began < 9, "draining would have waited for the hook, for 10 seconds"


def test_new_settings_are_in_force_once_a_successor_is_prepared_and_the_relay_has_them(beside_a_relay):
    beside_a_relay.process.send_signal(signal.SIGHUP)
    said = beside_a_relay.hear_until("READY=1")
    wanted = ["RELOADING=1", "PREPARED", "RELAY RELOADED", "TOOK OVER", "SERVES", "READY=1"]
    assert list(dict.fromkeys(said)) == wanted and said.count("SERVES") == 2


def test_what_no_successor_can_serve_reaches_no_relay(beside_a_relay):
    before = beside_a_relay.children()
    beside_a_relay.stop_file.touch()
    beside_a_relay.process.send_signal(signal.SIGHUP)
    assert beside_a_relay.hear_until("READY=1") == ["RELOADING=1", "READY=1"]
    assert beside_a_relay.children() == before


def test_what_the_relay_refuses_no_successor_serves(beside_a_relay):
    before = beside_a_relay.children()
    beside_a_relay.stop_file.with_suffix(".refused").touch()
    beside_a_relay.process.send_signal(signal.SIGHUP)
    said = beside_a_relay.hear_until("READY=1")
    beside_a_relay.wait_for_children(3)
    assert beside_a_relay.children() == before
    assert "RELAY REFUSED" in said and not {"SERVES", "TOOK OVER"} & set(said)
