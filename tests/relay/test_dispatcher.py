"""The dispatcher with real couriers and peers, the queue in memory and a clock that is moved by hand."""

from __future__ import annotations

import email
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from email.message import Message as Mime
from pathlib import Path

import pytest

from relay.agents.agent import Agent, OpenBody, outcome
from relay.agents.maildir import MaildirAgent
from relay.agents.smtp import SmtpAgent
from relay.courier import Letter
from relay.dispatcher import Dispatcher, Wake
from relay.hop import Hop, Manners, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Body, Envelope, Message, Outcome, Parcel, Recipient, Result, Settlement, Stop
from relay.plan import Plan
from relay.queue import Queue
from relay.queue_memory import MemoryQueue
from relay.retry import RetryPolicy
from relay.terms import Terms
from smtpd_core.wire.envelope import DeliverBy, MailParameters
from tests.support.clock import FakeClock
from tests.support.parcels import CONTENT, QUICK
from tests.support.peer import ScriptedPeer

HELLO = "S: 220 peer\nC: EHLO\nS: 250-peer\nS: 250 PIPELINING\nC: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\n"
ACCEPTS = HELLO + "S: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 taken\nC: QUIT\nS: 221 bye\n"
REFUSES = HELLO + "S: 550 5.1.1 no such user\nS: 503 nobody\nC: QUIT\nS: 221 bye\n"


class Scene:
    """A queue and its dispatcher, stepped by hand."""

    def __init__(self, agents: Mapping[str, Agent], queue: Queue | None = None, **more: object) -> None:
        self.clock = FakeClock()
        self.queue: Queue = queue or MemoryQueue()
        self.told: list[tuple[str, str]] = []
        self.dispatcher = Dispatcher(
            self.queue,
            agents,
            self.stops,
            hostname="relay.test",
            clock=self.clock,
            chance=lambda: 0.0,
            on_outcome=self._hear,
            **more,  # type: ignore[arg-type]
        )
        self.route: Callable[[str], str] = lambda address: f"mx:{address.rpartition('@')[2]}"

    def _hear(self, parcel: Parcel, one: Outcome) -> None:
        address = next(stop.recipient.address for stop in parcel.stops if stop.number == one.number)
        self.told.append((address, one.result.value))

    def stops(self, envelope: Envelope) -> list[Stop]:
        return [Stop(n, one, self.route(one.address)) for n, one in enumerate(envelope.recipients)]

    def put(self, *addresses: str | Recipient, sender: str = "ann@here.test", id: str = "M1", ret: str = "") -> None:
        recipients = tuple(one if isinstance(one, Recipient) else Recipient(one) for one in addresses)
        envelope = Envelope(sender, recipients, MailParameters(ret=ret, envid="e 1"), arrived=self.clock.now)
        message = Message(id, envelope, b"Received: here\r\n", Body(len(CONTENT), CONTENT))
        self.queue.add([(message, self.stops(envelope))], "test", 1, self.clock.now)

    def run(self) -> None:
        """Steps until nothing is under way and nothing is due."""
        self.dispatcher.announce()
        deadline = time.monotonic() + 20
        letters = []
        while True:
            self.dispatcher.step(letters, self.clock.now)
            if self.dispatcher.is_idle and not self.queue.due(self.clock.now):
                return
            letters = self.dispatcher.wait(5.0)
            assert time.monotonic() < deadline, "the scene does not end"

    def run_until(self, end: float) -> None:
        while (due := self.queue.next_due()) is not None and due <= end:
            self.clock.now = max(self.clock.now, due)
            self.run()


def test_three_domains_accepting_refusing_and_dead_end_as_they_must(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    with ScriptedPeer(ACCEPTS) as accepting, ScriptedPeer(REFUSES) as refusing:
        ports = {"mx:good.test": accepting.port, "mx:bad.test": refusing.port, "mx:dead.test": dead}
        manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=QUICK)
        smtp = SmtpAgent(
            lambda where: Plan((Hop(where[3:], "127.0.0.1", ports[where]),)), lambda where: manners, IdleConnections()
        )
        scene = Scene({"mx": smtp, "maildir": MaildirAgent("relay.test")})
        mail = tmp_path / "mail"
        scene.route = lambda a: f"maildir:{mail}" if a == "ann@here.test" else f"mx:{a.rpartition('@')[2]}"
        start = scene.clock.now
        scene.put("bob@good.test", "cid@bad.test", "dee@dead.test", ret="FULL")
        scene.run()
        # One delivery and one bounce at once.
        assert len(accepting.contents) == 1
        first = letters_in(mail)
        assert [actions(one) for one in first] == [["failed"]]
        assert "cid@bad.test" in str(first[0])
        # The dead domain is tried until its time is over: a warning, then the second bounce.
        scene.run_until(start + 6 * 86_400)
        assert scene.queue.next_due() is None
        smtp.close()
    told = letters_in(mail)
    assert sorted(actions(one) for one in told) == [["delayed"], ["failed"], ["failed"]]
    last = next(one for one in told if actions(one) == ["failed"] and "dee@dead.test" in str(one))
    assert "Status: 4.4.7" in str(last)
    assert scene.told.count(("dee@dead.test", "expired")) == 1
    assert scene.told.count(("bob@good.test", "relayed")) == 1
    assert scene.clock.now - start == pytest.approx(5 * 86_400, abs=60)


def letters_in(mail: Path) -> list[Mime]:
    found = [email.message_from_bytes(path.read_bytes()) for path in sorted((mail / "new").iterdir())]
    assert all(one["Return-Path"] == "<>" and one["Auto-Submitted"] == "auto-replied" for one in found)
    return found


def actions(letter: Mime) -> list[str]:
    status = next(part for part in letter.walk() if part.get_content_type() == "message/delivery-status")
    blocks = status.get_payload()
    assert isinstance(blocks, list)
    return [str(block["Action"]) for block in blocks if block["Action"]]


class Fixed:
    """An agent that has one answer for everybody, and remembers who was tried when."""

    def __init__(self, result: Result, **said: object) -> None:
        self.result = result
        self.said = said
        self.tried: list[tuple[str, float]] = []

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        self.tried.extend((stop.recipient.address, now) for stop in parcel.stops)
        return [outcome(stop, self.result, now, **self.said) for stop in parcel.stops]  # type: ignore[arg-type]

    def close(self) -> None:
        pass


def test_a_message_is_tried_by_the_schedule_and_given_up_at_its_end() -> None:
    agent = Fixed(Result.DEFERRED, code=450, enhanced="4.2.0", text="later")
    terms = Terms(retry=RetryPolicy((60.0, 120.0), expire=600.0, delay_warning=0.0))
    scene = Scene({"mx": agent}, terms_of=lambda _: terms)
    start = scene.clock.now
    scene.put("bob@there.test", sender="")
    scene.run_until(start + 10_000)
    assert [at - start for _, at in agent.tried] == [0, 60, 180, 300, 420, 540, 600]
    assert scene.told[-1] == ("bob@there.test", "expired")
    # Nobody is told: the message was itself a bounce.
    assert {address for address, _ in scene.told} == {"bob@there.test"}


@pytest.mark.parametrize(
    ("notify", "result", "expected"),
    [
        ((), Result.FAILED, ["failed"]),
        (("NEVER",), Result.FAILED, []),
        (("SUCCESS",), Result.FAILED, []),
        (("FAILURE",), Result.FAILED, ["failed"]),
        ((), Result.DELIVERED, []),
        (("SUCCESS",), Result.DELIVERED, ["delivered"]),
        (("SUCCESS", "FAILURE"), Result.RELAYED, ["relayed"]),
    ],
)
def test_notify_says_what_the_sender_hears(
    tmp_path: Path, notify: tuple[str, ...], result: Result, expected: list[str]
) -> None:
    there = Fixed(result, enhanced="5.0.0" if result is Result.FAILED else "2.0.0")
    scene = Scene({"maildir": MaildirAgent("relay.test"), "mx": there})
    mail = tmp_path / "mail"
    scene.route = lambda a: f"maildir:{mail}" if a == "ann@here.test" else "mx:there.test"
    scene.put(Recipient("bob@there.test", notify, "rfc822;Bob@there.test"))
    scene.run()
    told = letters_in(mail) if (mail / "new").exists() else []
    assert [action for letter in told for action in actions(letter)] == expected
    if told:
        text = told[0].as_string()
        assert "Original-Envelope-Id: e 1" in text
        assert "Original-Recipient: rfc822;Bob@there.test" in text


class Gate:
    """An agent that blocks for one destination until it is let go."""

    def __init__(self) -> None:
        self.slow: list[str] = []
        self.done: list[str] = []
        self.left, self.right = socket.socketpair()

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        if parcel.destination == "mx:slow.test":
            self.slow.append(parcel.message_id)
            self.left.recv(1)
        else:
            self.done.append(parcel.destination)
        return [outcome(stop, Result.RELAYED, now, code=250) for stop in parcel.stops]

    def close(self) -> None:
        pass


def test_a_slow_destination_does_not_starve_the_others() -> None:
    gate = Gate()
    scene = Scene({"mx": gate}, couriers=8)
    for number in range(50):
        scene.put("bob@slow.test", id=f"S{number}", sender="")
    scene.clock.advance(1.0)
    for number in range(200):
        scene.put(f"bob@d{number}.test", id=f"D{number}", sender="")
    deadline = time.monotonic() + 20
    letters = []
    while len(gate.done) < 200:
        scene.dispatcher.step(letters, scene.clock.now)
        letters = scene.dispatcher.wait(5.0)
        assert time.monotonic() < deadline, f"only {len(gate.done)} of 200 others were served"
    assert 1 <= len(gate.slow) <= 4
    gate.right.send(b"x" * 60)
    gate.right.shutdown(socket.SHUT_WR)
    scene.dispatcher.step(letters, scene.clock.now)
    scene.run()
    assert len(scene.told) == 250


class Mostly:
    """Takes all but one destination's mail. That one fails at once, or not before `silence` is over."""

    def __init__(self, silence: socket.socket | None) -> None:
        self.silence = silence
        self.tried_dead = 0

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        if parcel.destination != "mx:dead.test":
            return [outcome(stop, Result.RELAYED, now, code=250) for stop in parcel.stops]
        self.tried_dead += 1
        if self.silence is not None:
            self.silence.recv(1)
        said = {"enhanced": "4.4.1", "text": "silent", "scope": "host"}
        return [outcome(stop, Result.DEFERRED, now, **said) for stop in parcel.stops]  # type: ignore[arg-type]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("is_silent", [False, True])
def test_ten_thousand_destinations_with_a_dead_one_among_them(is_silent: bool) -> None:
    ours, theirs = socket.socketpair()
    agent = Mostly(theirs if is_silent else None)
    scene = Scene({"mx": agent})
    for number in range(100):
        scene.put("bob@dead.test", id=f"X{number}", sender="")
    scene.clock.advance(1.0)
    for number in range(10_000):
        scene.put(f"bob@d{number}.test", id=f"D{number}", sender="")
    letters: list[Letter | Wake] = []
    deadline = time.monotonic() + 60
    while sum(result == "relayed" for _, result in scene.told) < 10_000:
        scene.dispatcher.step(letters, scene.clock.now)
        letters = scene.dispatcher.wait(5.0)
        assert time.monotonic() < deadline
    if is_silent:
        # Couriers wait for it all the time; nobody else does.
        assert 1 <= agent.tried_dead <= 5 and not any(address == "bob@dead.test" for address, _ in scene.told)
    ours.close()
    scene.dispatcher.step(letters, scene.clock.now)
    scene.run()
    # After three troubles in a row the rest is put off untried; what had been handed out by then was tried.
    assert agent.tried_dead <= 60
    assert len(scene.told) == 10_100


def test_what_an_agent_raises_is_temporary() -> None:
    class Faulty:
        def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
            raise RuntimeError("a mistake")

        def close(self) -> None:
            pass

    scene = Scene({"mx": Faulty()})
    scene.put("bob@there.test")
    scene.run()
    assert scene.told == [("bob@there.test", "deferred")]
    assert scene.queue.next_due() == scene.clock.now + 300


@pytest.mark.parametrize(("mode", "expected"), [("R", "expired"), ("N", "relayed")])
def test_a_by_time_that_is_over_returns_the_mail_or_lets_it_go_on_as_asked(mode: str, expected: str) -> None:
    scene = Scene({"mx": Fixed(Result.RELAYED, code=250)})
    envelope = Envelope(
        "", (Recipient("bob@there.test"),), MailParameters(by=DeliverBy(60, mode)), arrived=scene.clock.now
    )
    scene.queue.add([(Message("M1", envelope, b"", Body(1, b"x")), scene.stops(envelope))], "t", 1, scene.clock.now)
    scene.clock.advance(61)
    scene.run()
    assert scene.told == [("bob@there.test", expected)]


def test_outcomes_are_kept_while_the_queue_is_down_and_settled_once_it_is_back() -> None:
    class Failing(MemoryQueue):
        is_down = False

        def settle_all(self, settlements: Sequence[Settlement], now: float) -> list[bool]:
            if self.is_down:
                raise OSError("disk full")
            return super().settle_all(settlements, now)

    agent = Fixed(Result.RELAYED, code=250)
    scene = Scene({"mx": agent})
    scene.queue = queue = Failing()
    scene.dispatcher = Dispatcher(queue, {"mx": agent}, scene.stops, clock=scene.clock, on_outcome=scene._hear)
    scene.put("bob@there.test")
    queue.is_down = True
    scene.dispatcher.step([], scene.clock.now)
    letters = scene.dispatcher.wait(5.0)
    with pytest.raises(OSError):
        scene.dispatcher.step(letters, scene.clock.now)
    queue.is_down = False
    scene.dispatcher.step([], scene.clock.now)
    assert queue.next_due() is None
    assert len(agent.tried) == 1


def test_a_destination_in_trouble_is_woken_by_an_operator() -> None:
    agent = Fixed(Result.DEFERRED, enhanced="4.4.1", text="silent", scope="host")
    scene = Scene({"mx": agent})
    for number in range(20):
        scene.put("bob@there.test", id=f"M{number}", sender="")
        scene.run()
    tried = len(agent.tried)
    assert tried < 20
    scene.put("bob@there.test", id="last", sender="")
    scene.run()
    assert len(agent.tried) == tried
    scene.dispatcher.wake("mx:there.test")
    scene.dispatcher.step(scene.dispatcher.wait(1.0), scene.clock.now)
    scene.put("bob@there.test", id="after", sender="")
    scene.run()
    assert len(agent.tried) == tried + 1


def test_a_rate_spaces_the_starts() -> None:
    agent = Fixed(Result.RELAYED, code=250)
    scene = Scene({"mx": agent}, terms_of=lambda _: Terms(interval=2.0))
    start = scene.clock.now
    for number in range(3):
        scene.put("bob@there.test", id=f"M{number}", sender="")
    letters: list[Letter | Wake] = []
    while len(scene.told) < 3:
        pause = scene.dispatcher.step(letters, scene.clock.now)
        letters = scene.dispatcher.wait(5.0) if not scene.dispatcher.is_idle else []
        if not letters and pause:
            scene.clock.advance(pause)
    assert [at - start for _, at in agent.tried] == [0, 2, 4]


def test_starts_that_are_over_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate for all below a domain kept a line for each name there that ever got mail."""
    monkeypatch.setattr("relay.dispatcher.MAX_WINDOWS", 5)
    scene = Scene({"mx": Mostly(None)}, terms_of=lambda destination: Terms(interval=1.0))
    for number in range(20):
        scene.put(f"bob@d{number}.test", id=f"M{number}", sender="")
        scene.run()
        scene.clock.advance(1.0)
    assert len(scene.told) == 20
    assert len(scene.dispatcher._starts) <= 5
