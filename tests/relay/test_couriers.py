"""Slow destinations and the couriers: what they may hold, and that nobody else waits for them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from relay.agents.agent import OpenBody, outcome
from relay.agents.smtp import SmtpAgent
from relay.courier import Letter, Round, carry
from relay.couriers import LINGER, Couriers
from relay.hop import Hop, Load, Manners, StepTimes, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Outcome, Parcel, Recipient, Result
from relay.outstanding import Outstanding
from relay.plan import Plan
from relay.queue_memory import MemoryQueue
from relay.window import SLOW, Pace, Window, Windows
from smtpd_core.server import SmtpServer
from smtpd_core.wire.envelope import MailParameters
from tests.relay.test_dispatcher import Scene
from tests.support.clock import FakeClock
from tests.support.parcels import agent_for, body, parcel, told
from tests.support.peer import ScriptedPeer


def sent(couriers: Couriers, window: Window, now: float = 0.0, size: int = 1) -> Round:
    one = parcel("bob@x.test", content=b"x" * size)
    round = Round("mx:x.test", [one], 1)
    couriers.send(round, window, now, lambda: None)
    return round


def ended(couriers: Couriers, round: Round, window: Window) -> None:
    round.left = 0
    couriers.ended(round, window)


def window_of(pace: Pace) -> Window:
    seconds = {Pace.NEW: -1.0, Pace.QUICK: 0.1, Pace.SLOW: SLOW}[pace]
    window = Window(most=1000, seconds=seconds)
    assert window.pace is pace
    return window


@pytest.mark.parametrize(
    ("pace", "most"),
    [(Pace.QUICK, 16), (Pace.NEW, 14), (Pace.SLOW, 32)],
)
def test_each_pace_has_its_share(pace: Pace, most: int) -> None:
    couriers = Couriers("test", 16, 48)
    count = 0
    while couriers.room(pace):
        sent(couriers, window_of(pace))
        count += 1
    assert count == most
    # New ones leave some for those known to be quick, slow ones leave all.
    left = {Pace.QUICK: 0, Pace.NEW: 2, Pace.SLOW: 16}[pace]
    assert couriers.room(Pace.QUICK) == left
    couriers.stop(1.0)


def test_a_courier_that_only_waits_is_replaced() -> None:
    couriers = Couriers("test", 8, 12)
    window = window_of(Pace.QUICK)
    rounds = [sent(couriers, window) for _ in range(8)]
    couriers.look(LINGER - 1)
    assert (couriers.room(Pace.QUICK), couriers.room(Pace.SLOW)) == (0, 8)
    # It counts among the patient, which says nothing about its destination yet.
    couriers.look(LINGER)
    assert (couriers.room(Pace.QUICK), couriers.room(Pace.SLOW)) == (8, 1)
    assert window.pace is Pace.QUICK
    couriers.look(SLOW + 1)
    assert window.pace is Pace.SLOW
    # Beyond the places for the patient, they take those of the others.
    more = [sent(couriers, window_of(Pace.QUICK), SLOW) for _ in range(7)]
    couriers.look(2 * SLOW)
    assert couriers.room(Pace.QUICK) == 4
    for round in rounds:
        ended(couriers, round, window)
    assert window.pace is Pace.QUICK
    assert (couriers.room(Pace.QUICK), couriers.room(Pace.SLOW)) == (8, 1)
    assert len(more) == 7
    couriers.stop(1.0)


def test_those_that_linger_leave_a_share_to_slow_destinations() -> None:
    """Greeting pauses of seven seconds at as many quick destinations as there are couriers left none to slow ones."""
    couriers = Couriers("test", 16, 48)
    rounds = []
    for at in range(100):
        while couriers.room(Pace.QUICK):
            rounds.append(sent(couriers, window_of(Pace.QUICK), at * LINGER))
        couriers.look((at + 1) * LINGER)
    assert couriers.room(Pace.SLOW) == 6
    slow = [sent(couriers, window_of(Pace.SLOW)) for _ in range(6)]
    assert (couriers.room(Pace.QUICK), couriers.room(Pace.SLOW)) == (0, 0)
    assert len(rounds) + len(slow) == 64
    # What they had is theirs again.
    ended(couriers, slow[0], window_of(Pace.SLOW))
    assert (couriers.room(Pace.QUICK), couriers.room(Pace.SLOW)) == (0, 1)
    couriers.stop(1.0)


def test_a_large_message_may_take_its_time() -> None:
    couriers = Couriers("test", 8, 8)
    window = Window()
    sent(couriers, window, size=65_536 * 100)
    couriers.look(SLOW + 99)
    assert window.pace is Pace.NEW
    couriers.look(SLOW + 101)
    assert window.pace is Pace.SLOW
    window = Window()
    window.took(SLOW + 99, 65_536 * 100)
    assert window.pace is Pace.QUICK
    couriers.stop(1.0)


def test_the_next_parcel_of_a_round_has_its_own_time() -> None:
    couriers = Couriers("test", 8, 8)
    window = window_of(Pace.QUICK)
    round = sent(couriers, window)
    for at in (1.0, 2.0, 3.0, 11.0):
        couriers.heard(round, at)
        couriers.look(at + 1)
        assert not round.lingers
    couriers.look(11.0 + LINGER)
    assert round.lingers and window.pace is Pace.QUICK
    couriers.look(11.1 + SLOW)
    assert window.pace is Pace.SLOW
    couriers.stop(1.0)


def test_a_slow_destination_is_quick_again_once_it_proves_it() -> None:
    window = Window()
    window.took(300.0, 0)
    tries = 0
    while window.pace is Pace.SLOW:
        window.took(0.1, 0)
        tries += 1
    assert tries == 5


def test_slow_destinations_are_remembered_when_windows_are_forgotten() -> None:
    windows = Windows(lambda _: 20, most=8)
    for number in range(4):
        windows[f"slow{number}"].took(300.0, 0)
    windows["busy"].busy = 1
    for number in range(100):
        windows[f"quick{number}"].took(0.1, 0)
    assert all(windows[f"slow{number}"].pace is Pace.SLOW for number in range(4))
    assert windows["busy"].busy == 1
    # Where nothing is dull, the oldest goes: memory is bounded all the same.
    for number in range(100):
        windows[f"late{number}"].took(300.0, 0)
    assert windows.get("slow0") is None


@contextmanager
def tarpits(count: int) -> Iterator[dict[str, int]]:
    """Ports by kind of trouble: one that greets a byte a second, one that hangs behind MAIL, one that never greets."""
    stop = threading.Event()

    def dribble(listener: socket.socket) -> None:
        open_ones: list[socket.socket] = []
        listener.settimeout(0.2)
        said = 0
        while not stop.is_set():
            try:
                open_ones.append(listener.accept()[0])
            except TimeoutError:
                pass
            for one in open_ones:
                try:
                    one.send(b"220-x\r\n"[said % 7 : said % 7 + 1])
                except OSError:
                    pass  # that client gave up
            said += 1
            stop.wait(0.3)
        for one in open_ones:
            one.close()

    hangs = "S: 220 peer\nC: EHLO\nS: 250 peer\nC: MAIL\n-- hang"
    with (
        socket.create_server(("127.0.0.1", 0)) as dribbling,
        ScriptedPeer(hangs) as hanging,
        socket.create_server(("127.0.0.1", 0), backlog=count) as silent,
    ):
        thread = threading.Thread(target=dribble, args=(dribbling,))
        thread.start()
        try:
            names = {"dribbling": dribbling, "silent": silent}
            yield {name: one.getsockname()[1] for name, one in names.items()} | {"hanging": hanging.port}
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
def test_fifty_tarpits_take_nothing_from_a_good_destination(is_known: bool) -> None:
    """Each has more mail than it may have couriers. They are all asked before the good one, and none ever answers."""
    with tarpits(50) as ports, SmtpServer(port=0, local_binding="127.0.0.1") as good:
        good.on_message_received = lambda session, letter: None
        times = StepTimes.all(60.0, 60.0)
        manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=times)

        def plan_of(destination: str) -> Plan:
            kind = destination[3:].partition("-")[0]
            return Plan((Hop(destination[3:], "127.0.0.1", ports.get(kind, good.address[1])),))

        smtp = SmtpAgent(plan_of, lambda where: manners, IdleConnections())
        scene = Scene({"mx": smtp}, couriers=64)
        if is_known:
            for number in range(50):
                scene.dispatcher._windows[f"mx:{_kind(number)}-{number}.test"].took(300.0, 0)
        for number in range(50):
            for letter in range(20):
                scene.put(f"bob@{_kind(number)}-{number}.test", id=f"T{number}-{letter}", sender="")
        scene.clock.advance(1.0)
        for letter in range(20):
            scene.put("bob@good.test", id=f"G{letter}", sender="")
        begun = time.monotonic()
        letters = scene.dispatcher.wait(0.0)
        while len(scene.told) < 20:
            scene.dispatcher.step(letters, scene.clock.now)
            letters = scene.dispatcher.wait(5.0)
            assert time.monotonic() - begun < 20, f"{len(scene.told)} of 20 letters were delivered"
        took = time.monotonic() - begun
        assert scene.told == [("bob@good.test", "relayed")] * 20
        # All of the tarpits are still being waited for.
        held = {round.destination for round in scene.dispatcher._rounds if round.destination != "mx:good.test"}
        assert len(held) == 50
    assert took < 10
    scene.dispatcher._couriers[False].stop(10.0)
    smtp.close()


def _kind(number: int) -> str:
    return ("dribbling", "hanging", "silent")[number % 3]


def test_tarpits_by_the_thousand_do_not_hide_a_good_destination() -> None:
    """The queue names those that wait longest first, and a thousand at a time."""
    scene = Scene({"mx": agent_for(1)}, couriers=4, patient=2)
    for number in range(1500):
        scene.dispatcher._windows[f"mx:slow{number}.test"].took(300.0, 0)
        scene.put(f"bob@slow{number}.test", id=f"S{number}", sender="")
    scene.clock.advance(1.0)
    scene.put("bob@good.test", id="G", sender="")
    asked: list[str] = []
    claim = scene.queue.claim

    def claimed(destination: str, room: int, now: float, lease: float) -> list[Parcel]:
        asked.append(destination)
        return claim(destination, room, now, lease)

    scene.queue.claim = claimed  # type: ignore[method-assign]
    # The slow ones' share is taken.
    for couriers in scene.dispatcher._couriers.values():
        while couriers.room(Pace.SLOW):
            sent(couriers, window_of(Pace.SLOW))
    scene.dispatcher.announce()
    scene.dispatcher.step([], scene.clock.now)
    assert asked == ["mx:good.test"]
    scene.dispatcher._couriers[False].stop(5.0)


@pytest.mark.parametrize(
    ("script", "step"),
    [
        ("-- drip 220-x\\r\\n", "greeting"),
        ("S: 220 peer\nC: EHLO\n-- drip 250-x\\r\\n", "hello"),
        ("S: 220 peer\nC: EHLO\nS: 250 peer\nC: MAIL\n-- drip 250-x\\r\\n", "mail"),
    ],
)
def test_a_hop_that_keeps_talking_without_saying_anything_is_given_up_in_time(script: str, step: str) -> None:
    """Each step has 5 seconds, all of them together less than one."""
    times = StepTimes(5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, opening=0.6, transaction=0.6, recipient=0.0)
    manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=times)
    with ScriptedPeer(script) as peer:
        begun = time.monotonic()
        (outcome,) = agent_for(peer.port, manners=manners).deliver(parcel("bob@x.test"), body(), 5.0)
        took = time.monotonic() - begun
    assert outcome.result.value == "deferred" and "too slow" in outcome.text
    assert 0.5 < took < 4


def parcel_load(size: int) -> Load:
    return Load("", (Recipient("bob@x.test"),), MailParameters(), size, lambda most: iter(()))


def test_content_must_go_at_a_minimum_rate_and_the_answer_behind_it_is_waited_for() -> None:
    times = StepTimes(2.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, opening=5.0, transaction=0.5, recipient=0.0)
    assert times.for_load(parcel_load(1024)) == 1.5
    manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=times)
    hello = "S: 220 peer\nC: EHLO\nS: 250 peer\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n"
    # It reads nothing: what fits no buffer is stuck.
    large = parcel("bob@x.test", content=b"x" * 4_000_000)
    quick = replace(times, block=9.0, content=9.0, minimum_rate=8_000_000)
    with ScriptedPeer(hello + "-- idle 20") as peer:
        stuck = Manners(hello="relay.test", tls=TlsLevel.NONE, times=quick)
        (outcome,) = agent_for(peer.port, manners=stuck).deliver(large, body(b"x\r\n" * 1_333_000), 5.0)
        assert outcome.result.value == "deferred" and "too slow" in outcome.text
    # It thinks for longer than all before the final dot may take.
    with ScriptedPeer(hello + "C: <content>\n-- idle 2\nS: 250 2.0.0 yes\nC: QUIT\nS: 221 bye\n") as peer:
        agent = agent_for(peer.port, manners=manners)
        assert told(agent.deliver(parcel("bob@x.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()


class Waiting:
    """Blocks for every destination but the good one."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.waiting: list[str] = []

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        if parcel.destination != "mx:good.test":
            self.waiting.append(parcel.destination)
            self.go_on.wait(30)
        return [outcome(stop, Result.RELAYED, now, code=250) for stop in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""


def test_what_only_waits_does_not_count_as_work_that_a_slow_queue_is_behind_with() -> None:
    agent = Waiting()
    scene = Scene({"mx": agent}, outstanding=Outstanding(16))
    for number in range(30):
        scene.put(f"bob@tarpit{number}.test", id=f"T{number}", sender="")
    scene.clock.advance(1.0)
    scene.put("bob@good.test", id="G", sender="")
    scene.dispatcher.step([], scene.clock.now)
    assert len(scene.dispatcher._rounds) == 16
    scene.clock.advance(LINGER)
    scene.dispatcher.announce()
    scene.dispatcher.step([], scene.clock.now)
    letters = scene.dispatcher.wait(10.0)
    scene.dispatcher.step(letters, scene.clock.now)
    assert scene.told == [("bob@good.test", "relayed")]
    agent.go_on.set()
    scene.dispatcher._couriers[False].stop(10.0)


class Tiring:
    """Quick at first; once it is tired, every parcel takes until its destination counts as slow."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.is_tired = False

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        if self.is_tired:
            self.clock.advance(SLOW + 1)
        return [outcome(stop, Result.RELAYED, now, code=250) for stop in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""


class Letters(list[Letter]):
    put = list.append


def test_the_rest_of_a_round_is_given_back_by_a_courier_whose_hop_became_slow() -> None:
    """A quick destination that turned into a tarpit held each of its couriers for ten time-outs in a row."""
    agent = Tiring()
    agent.is_tired = True
    round = Round("mx:x.test", [parcel("bob@x.test", id=f"M{n}") for n in range(10)], 10)
    letters = Letters()
    carry(round, agent, MemoryQueue(), letters, agent.clock)
    assert [len(letter.outcomes) for letter in letters] == [1] + [0] * 9


def test_what_a_courier_gives_back_is_delivered_all_the_same() -> None:
    agent = Tiring()
    scene = Scene({"mx": agent}, couriers=4)
    scene.clock = agent.clock
    scene.dispatcher._clock = agent.clock
    scene.put("bob@x.test")
    scene.run()
    agent.is_tired = True
    for number in range(40):
        scene.put("bob@x.test", id=f"N{number}")
    scene.run()
    assert len(scene.told) == 41
    assert scene.dispatcher._outstanding.room == Outstanding((4 + 8) * 10).room
