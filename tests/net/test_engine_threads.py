"""Leader and followers under load: slow hooks, stalls, the waiting list, changing limits, stopping."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from smtpd_core.net import Door, Engine, Guard, ListenerSettings, Timeouts
from smtpd_core.net.poller import EpollPoller, SelectorPoller
from smtpd_core.threads import HookMeter, resolve_all
from tests.net.echo import Client, Club, serving

POLLERS = pytest.mark.parametrize("poller", [EpollPoller, SelectorPoller])


def test_a_stalled_leader_is_deposed_and_others_are_served():
    club = Club()
    gate = threading.Event()
    club.on_block = lambda: gate.wait(20) and None
    with serving(club) as engine, Client(engine.addresses[0]) as slow, Client(engine.addresses[0]) as fast:
        assert not club.block.is_slow
        slow.send("BLOCK 0")
        club.wait_until(lambda: club.running == 1)
        assert fast.ask("x") == "250 x"
        gate.set()
        assert slow.read() == "250 done"
        assert engine.pool.deposed == 1


def test_a_hook_known_to_be_slow_is_entered_after_stepping_down():
    club = Club()
    club.block.average = 0.1
    with serving(club) as engine, Client(engine.addresses[0]) as slow, Client(engine.addresses[0]) as fast:
        for _ in range(3):
            slow.send("BLOCK 0.1")
            club.wait_until(lambda: club.running == 1)
            assert fast.ask("x") == "250 x"
            assert slow.read() == "250 done"
        assert engine.pool.stepped_down >= 3


@POLLERS
def test_hooks_never_exceed_the_maximum_and_nobody_is_silent(poller):
    club = Club()
    with serving(club, max_threads=3, min_threads=1, make_poller=poller) as engine:
        clients = [Client(engine.addresses[0]) for _ in range(12)]
        for client in clients:
            client.send("BLOCK 0.1")
        with Client(engine.addresses[0]) as other:
            assert other.ask("x") == "250 x"
        assert [client.read() for client in clients] == ["250 done"] * 12
        assert club.most_running == 3
        figures = engine.figures
        assert figures.waited > 0 and figures.waiting == 0
        assert figures.waited_longest >= 0.05 and figures.waited_seconds >= figures.waited_longest
        assert engine.pool.thread_count <= 4
        for client in clients:
            client.close()


def test_who_waits_too_long_for_a_thread_is_told_and_stays():
    club = Club()
    gate = threading.Event()
    club.on_block = lambda: gate.wait(20) and None
    times = Timeouts(hook_wait=0.3)
    with serving(club, max_threads=1, min_threads=0, timeouts=times) as engine:
        first, second = Client(engine.addresses[0]), Client(engine.addresses[0])
        first.send("BLOCK 0")
        club.wait_until(lambda: club.running == 1)
        assert second.ask("BLOCK 0") == "451 no slot"
        assert second.ask("x") == "250 x"
        gate.set()
        assert first.read() == "250 done"
        assert second.ask("BLOCK 0") == "250 done"
        first.close()
        second.close()


def test_logins_hold_at_most_half_of_the_slots():
    club = Club()
    gate = threading.Event()
    club.on_block = lambda: gate.wait(20) and None
    with serving(club, max_threads=4, min_threads=1) as engine:
        logins = [Client(engine.addresses[0]) for _ in range(4)]
        for client in logins:
            client.send("SAVE 0")
        club.wait_until(lambda: club.running == 2)
        others = [Client(engine.addresses[0]) for _ in range(2)]
        for client in others:
            client.send("BLOCK 0")
        club.wait_until(lambda: club.running == 4)
        gate.set()
        assert [client.read() for client in logins + others] == ["250 done"] * 6
        for client in logins + others:
            client.close()


def test_the_thread_counts_can_change_while_hooks_run():
    club = Club()
    gate = threading.Event()
    club.on_block = lambda: gate.wait(20) and None
    with serving(club, max_threads=1, min_threads=0) as engine:
        clients = [Client(engine.addresses[0]) for _ in range(4)]
        for client in clients:
            client.send("BLOCK 0")
        club.wait_until(lambda: club.running == 1)
        engine.resize(2, 4)
        club.wait_until(lambda: club.running == 4)
        engine.resize(0, 1)
        gate.set()
        assert [client.read() for client in clients] == ["250 done"] * 4
        club.most_running = 0
        for client in clients:
            client.send("BLOCK 0.05")
        assert [client.read() for client in clients] == ["250 done"] * 4
        assert club.most_running == 1
        for client in clients:
            client.close()


def test_a_slow_close_hook_blocks_nobody():
    club = Club()
    club.close_hook = HookMeter("close", always_slow=True)
    with serving(club) as engine:
        for _ in range(5):
            with Client(engine.addresses[0]) as client:
                assert client.ask("BYE") == "221 bye"
        club.wait_until(lambda: len(club.closed) == 5)


def test_the_watchdog_names_session_hook_and_stack(caplog):
    club = Club()
    club.block.budget = 0.2
    reported = threading.Event()
    with serving(club) as engine, Client(engine.addresses[0]) as client:
        engine.pool.on_over_budget = lambda *_: reported.set()
        client.send("BLOCK 0.6")
        assert reported.wait(10)
        assert client.read() == "250 done"
        assert club.block.over_budget == 1
        session = club.talks[0].session_id
    assert f"{session}: hook block runs longer than 0.2 s" in caplog.text
    assert "run_hook" in caplog.text


@POLLERS
def test_stop_tells_idle_sessions_and_lets_hooks_finish(poller):
    club = Club()
    with serving(club, make_poller=poller) as engine:
        idle, busy = Client(engine.addresses[0]), Client(engine.addresses[0])
        busy.send("BLOCK 0.3")
        club.wait_until(lambda: club.running == 1)
        assert engine.stop(5)
        assert idle.read() == "421 stop"
        assert busy.read() == "250 done"
        assert busy.read() == "421 stop"
        assert engine.stop(5)
        idle.close()
        busy.close()


def test_stop_keeps_its_deadline_though_a_hook_hangs():
    club = Club()
    gate = threading.Event()
    club.on_block = lambda: gate.wait(20) and None
    with serving(club, stop_timeout=0.3) as engine:
        client, ticket = Client(engine.addresses[0]), Client(engine.addresses[0])
        client.send("BLOCK 0")
        ticket.send("TICKET")
        club.wait_until(lambda: club.running == 1 and len(club.tickets) == 1)
        began = time.monotonic()
        assert not engine.stop(0.3)
        assert time.monotonic() - began < 2
        assert ticket.read() == "421 halt"
        assert client.read() == ""
        gate.set()
        club.wait_until(lambda: len(club.closed) == 2)  # the thread that came late closed its connection itself


def test_a_guard_that_outlives_its_engine_keeps_no_count_of_a_hook_that_hung():
    club, guard = Club(), Guard()
    gate = threading.Event()
    club.on_block = lambda: gate.wait(20) and None
    with serving(club, stop_timeout=0.2, guard=guard) as engine:
        client = Client(engine.addresses[0])
        client.send("BLOCK 0")
        club.wait_until(lambda: club.running == 1)
        assert not engine.stop(0.2)
        assert guard.connections == 0 and engine.connection_count == 0
        gate.set()
        club.wait_until(lambda: len(club.closed) == 1)
        assert guard.connections == 0
        client.close()


def test_a_ticket_that_is_resolved_during_the_close_hook_disturbs_nobody():
    """Its letter once was taken for the end of the turn that ran, and the connection had two owners."""
    club = Club()
    gate = threading.Event()
    club.close_hook = HookMeter("close", always_slow=True)
    entered = threading.Event()
    with serving(club, stop_timeout=5.0) as engine, Client(engine.addresses[0]) as client:
        client.send("TICKET")
        club.wait_until(lambda: bool(club.tickets))
        assert club.tickets[0].take(), "from now on it can't be withdrawn"
        talk = club.talks[0]
        calls = []

        def closed(turn, why):
            calls.append(why)
            assert turn.enter(club.close_hook)
            entered.set()
            gate.wait(20)
            turn.leave(club.close_hook)

        talk.closed = closed
        stopping = threading.Thread(target=engine.stop, args=(0.1,))
        stopping.start()
        assert entered.wait(20)
        club.tickets[0].resolve()
        stopping.join(20)
        gate.set()
        assert client.read() == "421 halt"
        assert len(calls) == 1


def test_session_ids_are_never_used_again():
    seen = []
    for _ in range(20):
        club = Club()
        with serving(club) as engine, Client(engine.addresses[0]) as client:
            assert client.ask("x") == "250 x"
            seen.append(club.talks[0].session_id)
    assert len(set(seen)) == 20


def test_stop_from_within_a_hook():
    club = Club()
    with serving(club) as engine, Client(engine.addresses[0]) as client:
        club.on_block = lambda: engine.stop(5) and None
        assert client.ask("BLOCK 0") == "250 done"
        assert client.read() == "421 stop"


def test_an_idle_server_is_still():
    """No thread of it runs, with connections open and deadlines far away."""
    club = Club()
    with serving(club, name="still") as engine:
        clients = [Client(engine.addresses[0]) for _ in range(50)]
        threads = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("still")]
        ends = time.monotonic() + 10
        while True:
            before = switches(threads)
            time.sleep(1.0)  # a second in which nothing should run
            if switches(threads) == before or time.monotonic() > ends:
                break
        assert switches(threads) == before
        for client in clients:
            client.close()


def switches(threads: list[int | None]) -> int:
    total = 0
    for number in threads:
        with open(f"/proc/self/task/{number}/status") as status:
            total += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
    return total


def test_where_no_thread_can_be_had_slow_hooks_run_inline(monkeypatch, caplog):
    club = Club()
    club.block.average = 1.0
    with serving(club, min_threads=0) as engine, Client(engine.addresses[0]) as client:

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert client.ask("BLOCK 0.05") == "250 done"
            assert client.ask("x") == "250 x"
        club.block.average = 1.0
        assert client.ask("BLOCK 0.05") == "250 done"
        assert client.ask("x") == "250 x"
    assert "no thread can be started to lead" in caplog.text


def test_many_starts_and_stops_leave_no_thread_and_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with serving(Club(), name="brief"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("brief")] == []


def test_a_failed_start_leaves_nothing_behind_and_stop_is_quiet():
    with serving(Club()) as engine:
        taken = engine.addresses[0]
        second = Engine([Door(ListenerSettings(bind=f"{taken[0]}:{taken[1]}", tls="none"))], Club().open)
        with pytest.raises(OSError, match="Address already in use"):
            second.start()
        assert second.stop()


def test_stop_during_start_from_another_thread():
    for _ in range(20):
        engine = Engine([Door(ListenerSettings(bind="127.0.0.1:0", tls="none"))], Club().open)
        stopper = threading.Thread(target=engine.stop, args=(5,))
        stopper.start()
        try:
            engine.start()
        except RuntimeError:
            pass  # stop was first
        stopper.join(10)
        assert not stopper.is_alive()
        assert engine.stop(5)


@POLLERS
def test_nothing_crosses_sessions(poller):
    """Many sessions with their own tokens over few threads, with hooks, tickets and pauses mixed in."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    club = Club()
    failures: list[str] = []

    def keeper() -> None:
        while not stop.is_set():
            club.wait_until(lambda: bool(club.tickets) or stop.is_set())
            with club.lock:
                tickets, club.tickets = club.tickets, []
            resolve_all(tickets)

    def talk(number: int, address: tuple[str, int]) -> None:
        dice = random.Random(seed + number)
        try:
            with Client(address) as client:
                for step in range(15):
                    token = f"t{number}.{step}"
                    kind = dice.randrange(4)
                    lines = {0: ["BLOCK 0.002"], 1: ["TICKET"], 2: ["SAVE 0"], 3: []}[kind]
                    answers = {0: ["250 done"], 1: ["250 kept"], 2: ["250 done"], 3: []}[kind]
                    client.send("\n".join([token, *lines, token]))
                    heard = [client.read() for _ in range(len(answers) + 2)]
                    wanted = [f"250 {token}", *answers, f"250 {token}"]
                    if heard != wanted:
                        failures.append(f"{wanted} but heard {heard}")
        except OSError as error:
            failures.append(repr(error))

    stop = threading.Event()
    with serving(club, max_threads=4, min_threads=1, make_poller=poller) as engine:
        keeping = threading.Thread(target=keeper)
        keeping.start()
        talkers = [threading.Thread(target=talk, args=(n, engine.addresses[0])) for n in range(60)]
        for thread in talkers:
            thread.start()
        for thread in talkers:
            thread.join(60)
        stop.set()
        club.note(lambda: None)
        keeping.join(10)
    assert engine.pool.slots_held == 0
    assert failures == []
    assert club.most_running <= 4
