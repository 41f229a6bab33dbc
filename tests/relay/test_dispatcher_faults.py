"""What goes wrong around the dispatcher: agents and observers with mistakes, clocks that jump, restarts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import relay.settling
from relay.agents.agent import OpenBody, outcome
from relay.agents.maildir import MaildirAgent
from relay.dispatcher import Dispatcher
from relay.idle import IdleConnections, IdleLimits
from relay.mail import Outcome, Parcel, Result
from relay.queue_sqlite import SqliteQueue
from relay.retry import RetryPolicy
from relay.terms import Terms
from relay.window import Window
from tests.relay.test_dispatcher import Fixed, Scene, actions, letters_in
from tests.support.clock import FakeClock
from tests.support.parcels import agent_for
from tests.support.peer import ScriptedPeer

Deliver = Callable[[Parcel], list[Outcome]]


class Odd:
    """An agent that does what it was given."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        return self._deliver(parcel)

    def close(self) -> None:
        pass


def no_outcome(parcel: Parcel) -> list[Outcome]:
    return []


def strange_numbers(parcel: Parcel) -> list[Outcome]:
    return [Outcome(77, Result.RELAYED), Outcome(0, Result.RELAYED), Outcome(0, Result.RELAYED)]


def nothing_at_all(parcel: Parcel) -> list[Outcome]:
    return None  # type: ignore[return-value]


def no_text(parcel: Parcel) -> list[Outcome]:
    return [Outcome(0, Result.DEFERRED, 451, None), Outcome(1, Result.RELAYED, "250")]  # type: ignore[arg-type]


def leaves(parcel: Parcel) -> list[Outcome]:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("deliver", "expected"),
    [
        (no_outcome, ["deferred", "deferred"]),
        (strange_numbers, ["relayed", "deferred"]),
        (leaves, ["deferred", "deferred"]),
        (nothing_at_all, ["deferred", "deferred"]),
        (no_text, ["deferred", "relayed"]),
    ],
)
def test_an_agent_that_answers_wrongly_leaves_nobody_without_an_outcome(deliver: Deliver, expected: list[str]) -> None:
    scene = Scene({"mx": Odd(deliver)})
    scene.put("a@there.test", "b@there.test", sender="")
    scene.run()
    assert [result for _, result in sorted(scene.told)] == expected
    assert scene.queue.next_due() == scene.clock.now + 300


def test_an_observer_that_raises_holds_up_nothing() -> None:
    def observer(parcel: Parcel, one: Outcome) -> None:
        raise RuntimeError("a mistake")

    scene = Scene({"mx": Fixed(Result.RELAYED, code=250)})
    scene.dispatcher = Dispatcher(
        scene.queue, {"mx": Fixed(Result.RELAYED)}, scene.stops, clock=scene.clock, on_outcome=observer
    )
    for number in range(3):
        scene.put("bob@there.test", id=f"M{number}")
    scene.run()
    assert scene.queue.next_due() is None


def test_a_notification_that_can_not_be_written_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def compose(*arguments: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(relay.settling, "compose", compose)
    scene = Scene({"mx": Fixed(Result.FAILED, code=550)})
    for number in range(3):
        scene.put("bob@there.test", id=f"M{number}")
    scene.run()
    assert scene.queue.next_due() is None
    assert [result for _, result in scene.told] == ["failed"] * 3


def test_what_comes_due_is_tried_although_another_destination_has_more_than_it_can_take() -> None:
    tried: list[str] = []

    def deliver(parcel: Parcel) -> list[Outcome]:
        tried.append(parcel.destination)
        result = Result.DEFERRED if parcel.destination == "mx:again.test" else Result.RELAYED
        return [outcome(stop, result, 0.0, code=450) for stop in parcel.stops]

    # One start a minute: the first destination has a backlog for hours.
    terms = {"mx:slow.test": Terms(interval=60.0)}
    scene = Scene({"mx": Odd(deliver)}, terms_of=lambda where: terms.get(where, Terms()))
    scene.put("bob@again.test", id="A", sender="")
    for number in range(100):
        scene.put("bob@slow.test", id=f"S{number}", sender="")
    end = scene.clock.now + 600
    letters = []
    while scene.clock.now < end:
        pause = scene.dispatcher.step(letters, scene.clock.now)
        letters = [] if scene.dispatcher.is_idle else scene.dispatcher.wait(5.0)
        if not letters:
            assert pause is not None
            scene.clock.advance(pause)
    assert tried.count("mx:again.test") == 2
    assert 10 <= tried.count("mx:slow.test") <= 11


DELAYS = Terms(retry=RetryPolicy((600.0,), expire=86_400.0, delay_warning=3600.0, jitter=0.0))


def delayed(tmp_path: Path) -> Scene:
    scene = Scene(
        {"mx": Fixed(Result.DEFERRED, code=450), "maildir": MaildirAgent("relay.test")}, terms_of=lambda _: DELAYS
    )
    scene.route = lambda a: f"maildir:{tmp_path / 'mail'}" if a == "ann@here.test" else "mx:there.test"
    scene.put("bob@there.test")
    return scene


def restart(scene: Scene) -> None:
    agents = {"mx": Fixed(Result.DEFERRED, code=450), "maildir": MaildirAgent("relay.test")}
    scene.dispatcher = Dispatcher(
        scene.queue, agents, scene.stops, clock=scene.clock, chance=lambda: 0.0, terms_of=lambda _: DELAYS
    )


def test_a_delay_is_told_once_whatever_is_restarted_meanwhile(tmp_path: Path) -> None:
    scene = delayed(tmp_path)
    start = scene.clock.now
    for part in range(1, 20):
        scene.run_until(start + part * 600)
        restart(scene)
    assert [actions(one) for one in letters_in(tmp_path / "mail")] == [["delayed"]]


def test_a_delay_is_told_although_nothing_ran_when_it_was_time(tmp_path: Path) -> None:
    scene = delayed(tmp_path)
    start = scene.clock.now
    scene.run_until(start + 1800)
    scene.clock.now = start + 9 * 3600.0
    restart(scene)
    scene.run_until(start + 12 * 3600)
    assert [actions(one) for one in letters_in(tmp_path / "mail")] == [["delayed"]]


def test_a_destination_is_not_closed_for_as_long_as_a_clock_was_wrong() -> None:
    window = Window()
    for _ in range(3):
        window.had_trouble(1_000_000.0, "silent")
    assert window.is_closed(1_000_010.0)
    assert not window.is_closed(1_000_000.0 - 86_400)
    assert window.room(1_000_000.0 - 86_400) == 1


def test_outcomes_are_told_to_whoever_listens_and_not_to_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="relay")
    scene = Scene({"mx": Fixed(Result.DEFERRED, code=450, enhanced="4.2.0", text="later")})
    scene.clock = FakeClock()
    scene.put("bob@there.test", sender="")
    scene.run()
    told = [record for record in caplog.records if "deferred" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.INFO]


def test_greylisted_mail_is_let_in_at_the_second_try_however_long_the_waits_are() -> None:
    hello = "S: 220 p\nC: EHLO\nS: 250 p\nC: MAIL\nS: 250 ok\nC: RCPT\n"
    first = f"{hello}S: 450 4.7.1 Greylisted, try again later\nC: QUIT\nS: 221 bye\n"
    second = f"{hello}S: 250 ok\nC: DATA\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\nC: QUIT\nS: 221 bye\n"
    with ScriptedPeer(first, second) as peer:
        smtp = agent_for(peer.port, idle=IdleConnections(IdleLimits(rest=0.0)))
        terms = Terms(retry=RetryPolicy((14_400.0,)))
        scene = Scene({"mx": smtp}, terms_of=lambda _: terms)
        start = scene.clock.now
        scene.put("bob@there.test", sender="")
        scene.run_until(start + 3600)
        smtp.close()
    assert scene.told == [("bob@there.test", "deferred"), ("bob@there.test", "relayed")]
    assert scene.clock.now - start == 300


def test_an_outcome_that_no_queue_could_keep_holds_up_nobody(tmp_path: Path) -> None:
    """The queue took none of the settlements that came with it, ever again."""
    queue = SqliteQueue(tmp_path / "queue.db")
    scene = Scene({"mx": Odd(no_text)}, queue=queue)
    scene.put("a@there.test", "b@there.test", sender="")
    scene.run()
    assert queue.next_due() == scene.clock.now + 300
    queue.close()
