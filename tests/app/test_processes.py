"""Master and receivers as real processes, driven by real sockets and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
    if os.path.exists(sys.argv[1] + "." + ward.name):
        os.write(1, b"HELD %d\\n" % os.getpid())
        while os.path.exists(sys.argv[1] + "." + ward.name):
            time.sleep(0.02)  # until the test takes the file away, or us
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
        say("RELAY RELOADS")
        while os.path.exists(sys.argv[1] + ".held"):
            time.sleep(0.02)  # until the test takes the file away
        say("RELAY RELOADED" if ok else "RELAY REFUSED")
        ward.has_reloaded(ok)
    return 0

def took_over():
    say("TOOK OVER")

master = Master(took_over=took_over, roles=[Role("relay", relay, reloads_in_place=True)] + [""",
)


class Served:
    def __init__(self, stop_file: Path, script: str = SCRIPT, *, waits: bool = True) -> None:
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
        if waits:
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
        self.wait_for(lambda: len(self.children()) == count)

    def wait_for(self, fact: Callable[[], bool]) -> None:
        ends = time.monotonic() + 60
        while not fact():
            assert time.monotonic() < ends, f"it did not come to that with {self.children()}"
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
    first = served.children() - old
    served.process.send_signal(signal.SIGHUP)
    assert served.hear() == "RELOADING=1"
    served.wait_for(lambda: not served.children() & first and len(served.children()) == 4)
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
    wanted = ["RELOADING=1", "PREPARED", "RELAY RELOADS", "RELAY RELOADED", "TOOK OVER", "SERVES", "READY=1"]
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


def test_term_waits_for_no_successor_that_still_prepares(served):
    """It was waited for as for one that drains, then killed, and the end was one with an error."""
    served.stop_file.with_suffix(".slow").touch()
    served.process.send_signal(signal.SIGHUP)
    assert served.hear() == "RELOADING=1"
    served.wait_for_children(4)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0


def test_a_reload_that_is_asked_for_while_the_relay_reloads_begins_after_it(beside_a_relay):
    """The relay's answer to the first HUP was taken for that to the second, which it then refused."""
    held = beside_a_relay.stop_file.with_suffix(".held")
    held.touch()
    beside_a_relay.process.send_signal(signal.SIGHUP)
    beside_a_relay.hear_until("RELAY RELOADS")
    beside_a_relay.process.send_signal(signal.SIGHUP)
    beside_a_relay.wait_for(lambda: not _is_pending(beside_a_relay.process.pid, signal.SIGHUP))
    beside_a_relay.stop_file.with_suffix(".refused").touch()
    held.unlink()
    said = [one for one in beside_a_relay.hear_until("READY=1") if one not in ("PREPARED", "SERVES")]
    if said[-2:] == ["TOOK OVER", "READY=1"]:
        said += beside_a_relay.hear_until("RELAY REFUSED")
    assert said.index("TOOK OVER") < said.index("RELOADING=1") < said.index("RELAY REFUSED")
    assert said.count("TOOK OVER") == 1


def _is_pending(process: int, number: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return any(one >> (number - 1) & 1 for one in pending)


def test_a_receiver_whose_successor_is_killed_gets_another_where_the_new_settings_are_in_force(beside_a_relay):
    """It stayed with the old ones, beside another with the new ones."""
    old = beside_a_relay.everybody(2)
    behind = beside_a_relay.stop_file.with_suffix(".receiver 2")
    behind.touch()
    beside_a_relay.process.send_signal(signal.SIGHUP)
    said = beside_a_relay.hear_until("SERVES")
    while not (held := [one for one in said if one.startswith("HELD")]):
        said.append(beside_a_relay.hear())
    behind.unlink()
    os.kill(int(held[0].split()[1]), signal.SIGKILL)
    beside_a_relay.wait_for(lambda: not old & beside_a_relay.children())
    assert len(beside_a_relay.everybody(2, frozenset(old))) == 2


def test_a_reload_that_fails_while_the_start_is_under_way_does_not_end_it(tmp_path):
    """A receiver's successor that could not serve was taken for a start that could not be."""
    holds = [tmp_path / f"stop.receiver {number}" for number in (1, 2)]
    for one in holds:
        one.touch()
    served = Served(tmp_path / "stop", waits=False)
    try:
        assert served.hear().startswith("HELD") and served.hear().startswith("HELD")
        served.stop_file.touch()
        served.process.send_signal(signal.SIGHUP)
        for _ in holds:
            while "the successor can't serve" not in (said := served.process.stderr.readline()):
                assert said and "before all served" not in said
        for one in holds:
            one.unlink()
        served.hear_until("READY=1")
        assert len(served.everybody(2)) == 2
    finally:
        end(served)
