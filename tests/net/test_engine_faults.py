"""Faults and floods, each with real sockets: one client's trouble is nobody else's."""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import struct
import threading
import time

import pytest

from smtpd_core.net import Guard, GuardSettings, Timeouts
from smtpd_core.net.poller import EpollPoller, SelectorPoller
from tests.net.echo import Client, Club, serving
from tests.support.told import told_to_the_log

POLLERS = pytest.mark.parametrize("poller", [EpollPoller, SelectorPoller])


def reset(client: Client) -> None:
    """Close with RST."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@POLLERS
def test_a_client_that_never_reads_is_not_read_from_and_in_the_end_closed(poller):
    club = Club()
    with serving(club, make_poller=poller, timeouts=Timeouts(send=0.5)) as engine:
        greedy = Client(engine.addresses[0])
        greedy.send("BIG 20000000")
        with Client(engine.addresses[0]) as other:
            assert other.ask("still here") == "250 still here"
        club.wait_until(lambda: any("does not read" in why for _, why in club.closed))
        greedy.close()


@POLLERS
def test_output_is_whole_when_the_client_reads_late(poller):
    with serving(Club(), make_poller=poller) as engine, Client(engine.addresses[0]) as client:
        client.send("BIG 5000000\nafter")
        assert len(client.read()) == 5_000_000
        assert client.read() == "250 after"


def test_a_silent_client_is_told_and_closed():
    club = Club()
    with serving(club, timeouts=Timeouts(greeting=0.3)) as engine, Client(engine.addresses[0]) as client:
        assert client.read() == "421 greeting"
        assert client.read() == ""


def test_a_client_that_dribbles_a_command_meets_the_same_deadline():
    """The deadline once moved with every byte that came."""
    club = Club()
    with serving(club, timeouts=Timeouts(command=0.6)) as engine, Client(engine.addresses[0]) as client:
        assert client.ask("one") == "250 one"
        began = time.monotonic()
        client.socket.settimeout(0.1)
        while True:
            client.socket.sendall(b"x")
            try:
                data = client.socket.recv(100)
                break
            except TimeoutError:
                assert time.monotonic() - began < 10
        assert data == b"421 command\n"


def test_a_byte_that_comes_together_with_the_deadline_does_not_lift_it():
    """Who dribbled steadily could stay for ever."""
    stalls = threading.Event()

    class Stalling(EpollPoller):
        __slots__ = ()

        def poll(self, timeout):
            events = super().poll(timeout)
            if events and stalls.is_set():
                stalls.clear()
                time.sleep(0.6)  # the deadline passes between the byte and the look at the clock
            return events

    times = Timeouts(command=0.3)
    with (
        serving(Club(), timeouts=times, make_poller=Stalling) as engine,
        Client(engine.addresses[0]) as client,
    ):
        assert client.ask("one") == "250 one"
        stalls.set()
        client.socket.sendall(b"x")
        assert client.read() == "421 command"


def test_the_session_ends_also_for_who_never_pauses():
    """Such a client is always ready, never parked, and has no other deadline."""
    club = Club()
    with serving(club, timeouts=Timeouts(session=0.5), batch_size=64) as engine, Client(engine.addresses[0]) as client:
        answers = b""
        client.socket.settimeout(0.02)
        ends = time.monotonic() + 10
        while b"421" not in answers and time.monotonic() < ends:
            try:
                client.socket.send(b"n\n" * 5000)
            except TimeoutError:
                pass
            except OSError:
                break
            try:
                answers = answers[-10:] + client.socket.recv(65_536)
            except (TimeoutError, ConnectionError):
                pass
        club.wait_until(lambda: len(club.closed) == 1)
        assert "session" in club.talks[0].told


def test_the_session_ends_also_for_who_reads_slowly():
    club = Club()
    with serving(club, timeouts=Timeouts(session=0.4)) as engine, Client(engine.addresses[0]) as client:
        client.send("BIG 20000000")
        club.wait_until(lambda: len(club.closed) == 1)


def test_content_below_the_minimum_rate_is_ended():
    club = Club()
    times = Timeouts(minimum_rate=1000, rate_window=0.3)
    with serving(club, timeouts=times) as engine, Client(engine.addresses[0]) as client:
        assert client.ask("DATA") == "354 go"
        client.socket.settimeout(0.05)
        data = b""
        while not data:
            client.socket.sendall(b"x\n")
            try:
                data = client.socket.recv(100)
            except TimeoutError:
                pass
        assert data == b"421 slow\n"


def test_content_above_the_minimum_rate_goes_on():
    times = Timeouts(minimum_rate=1000, rate_window=0.2)
    with serving(Club(), timeouts=times) as engine, Client(engine.addresses[0]) as client:
        assert client.ask("DATA") == "354 go"
        ends = time.monotonic() + 0.7
        sent = 0
        while time.monotonic() < ends:
            client.socket.sendall(b"x" * 999 + b"\n")
            sent += 999
            time.sleep(0.02)  # the pace of this client
        assert client.ask(".") == f"250 {sent}"


def test_the_whole_session_has_a_deadline():
    with serving(Club(), timeouts=Timeouts(session=0.4)) as engine, Client(engine.addresses[0]) as client:
        client.socket.settimeout(0.05)
        answers = b""
        while b"421" not in answers:
            try:
                client.socket.sendall(b"n\n")
                answers += client.socket.recv(1000)
            except TimeoutError:
                pass
        assert answers.endswith(b"421 session\n")


@POLLERS
def test_a_half_closed_client_gets_the_replies_owed(poller):
    club = Club()
    with serving(club, make_poller=poller) as engine, Client(engine.addresses[0]) as client:
        client.send("one\ntwo\nTICKET")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read() == "250 one"
        assert client.read() == "250 two"
        club.wait_until(lambda: bool(club.tickets))
        club.tickets[0].resolve()
        assert client.read() == "250 kept"
        assert client.read() == ""


@POLLERS
def test_a_reset_while_the_ticket_is_open_is_survived(poller):
    club = Club()
    with serving(club, make_poller=poller) as engine:
        client = Client(engine.addresses[0])
        client.send("TICKET")
        club.wait_until(lambda: bool(club.tickets))
        reset(client)
        with Client(engine.addresses[0]) as other:
            assert other.ask("x") == "250 x"
        club.tickets[0].resolve()
        club.wait_until(lambda: bool(club.closed))


@POLLERS
def test_a_reset_during_a_hook_is_survived(poller):
    club = Club()
    with serving(club, make_poller=poller) as engine:
        client = Client(engine.addresses[0])
        client.send("BLOCK 0.2")
        club.wait_until(lambda: club.running == 1)
        reset(client)
        club.wait_until(lambda: bool(club.closed))
        with Client(engine.addresses[0]) as other:
            assert other.ask("x") == "250 x"


@POLLERS
def test_a_client_that_talks_before_a_ticket_is_resolved_costs_no_spinning(poller):
    """Data behind an open ticket is reported by the poll once, not for ever."""
    club = Club()
    with serving(club, make_poller=poller) as engine, Client(engine.addresses[0]) as client:
        client.send("TICKET")
        club.wait_until(lambda: bool(club.tickets))
        client.send("next")
        time.sleep(0.1)  # the poll reports what came
        before = time.process_time()
        time.sleep(0.3)  # long enough for a spin to show
        assert time.process_time() - before < 0.1
        club.tickets[0].resolve()
        assert client.read() == "250 kept"
        assert client.read() == "250 next"


def test_whatever_a_conversation_raises_ends_only_its_connection(caplog):
    club = Club()
    with serving(club, max_threads=2, min_threads=1) as engine:
        for _ in range(5):
            with Client(engine.addresses[0]) as client:
                assert client.ask("RAISE") == ""
            with Client(engine.addresses[0]) as client:
                assert client.ask("EXIT") == ""
        assert engine.pool.slots_held == 0
        with Client(engine.addresses[0]) as client:
            assert client.ask("x") == "250 x"
    assert "as asked" in caplog.text


def test_the_connection_over_the_limit_is_told_421_at_once():
    guard = Guard(GuardSettings(max_connections=2))
    club = Club()
    with serving(club, guard=guard) as engine:
        first, second = Client(engine.addresses[0]), Client(engine.addresses[0])
        third = Client(engine.addresses[0])
        assert third.greeting.startswith("421 4.3.2 ")
        assert third.read() == ""
        first.close()
        club.wait_until(lambda: len(club.closed) == 1)
        with Client(engine.addresses[0]) as fourth:
            assert fourth.greeting == "220 hello"
        second.close()


def test_a_flood_of_connects_that_close_at_once_leaves_nothing_behind():
    club = Club()
    with serving(club) as engine:
        for number in range(500):
            raw = socket.create_connection(engine.addresses[0])
            if number % 2:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        with Client(engine.addresses[0]) as client:
            assert client.ask("x") == "250 x"
        club.wait_until(lambda: len(club.closed) == len(club.talks))
        assert engine.guard.connections == engine.connection_count


def test_without_descriptors_accepting_pauses_and_recovers(caplog):
    club = Club()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(club) as engine:
        early = Client(engine.addresses[0])
        waiting = [socket.socket() for _ in range(3)]  # made before the limit
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 2, hard))
        blockers = []
        try:
            try:
                while True:
                    blockers.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            with caplog.at_level(logging.ERROR), told_to_the_log() as told:
                for sock in waiting:
                    sock.connect(engine.addresses[0])
                told.wait_for("no descriptor")
            # One leaves: its two descriptors let two in, and the third one finds none again, which is not told again.
            early.close()
            assert all(select.select([sock], [], [], 20)[0] for sock in waiting[:2])
            ends = time.monotonic() + 10
            while engine._reactor.accepting._is_accepting and time.monotonic() < ends:
                time.sleep(0.01)  # that it finds none again is told to nobody
            assert caplog.text.count("no descriptor") == 1
        finally:
            for descriptor in blockers:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in waiting:
            sock.settimeout(10)
            assert sock.recv(100) == b"220 hello\n"
            sock.close()
        assert used


@pytest.mark.parametrize("step", [86_400 * 365, -86_400 * 365])
def test_a_step_of_the_clock_moves_no_deadline(monkeypatch, step):
    """Only the monotonic clock counts: the wall clock may jump as it likes, also while a deadline runs."""
    club, real = Club(), time.time
    times = Timeouts(command=1.0, ticket=1.0, rate_window=1.0)
    with serving(club, timeouts=times) as engine:
        idle, parked, content = (Client(engine.addresses[0]) for _ in range(3))
        assert idle.ask("x") == "250 x"
        assert content.ask("DATA") == "354 go"
        parked.send("TICKET")
        club.wait_until(lambda: bool(club.tickets))
        began = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + step)
            with Client(engine.addresses[0]) as fresh:
                assert fresh.ask("y") == "250 y"
            assert idle.read() == "421 command"
            assert parked.read() == "451 too late"
        assert time.monotonic() - began >= 0.9, "no deadline came early"
        assert content.ask(".") == "250 0"
        for client in (idle, parked, content):
            client.close()


def test_a_ticket_that_is_late_is_withdrawn_and_one_that_was_taken_is_waited_for():
    club = Club()
    with serving(club, timeouts=Timeouts(ticket=0.3)) as engine, Client(engine.addresses[0]) as client:
        assert client.ask("TICKET") == "451 too late"
        client.send("TICKET")
        club.wait_until(lambda: len(club.tickets) == 2)
        assert club.tickets[1].take()
        time.sleep(0.6)  # twice the deadline
        club.tickets[1].resolve()
        assert client.read() == "250 kept"


def test_a_pause_is_kept_and_what_came_meanwhile_is_read():
    with serving(Club()) as engine, Client(engine.addresses[0]) as client:
        began = time.monotonic()
        client.send("PAUSE 0.3\nnext")
        assert client.read() == "250 paused"
        assert client.read() == "250 next"
        assert time.monotonic() - began >= 0.3


@POLLERS
def test_more_than_a_batch_is_read_in_several_turns(poller):
    with serving(Club(), make_poller=poller, batch_size=1024) as engine, Client(engine.addresses[0]) as client:
        lines = [f"line {number}" for number in range(2000)]
        client.send("\n".join(lines))
        assert [client.read() for _ in lines] == [f"250 {line}" for line in lines]
