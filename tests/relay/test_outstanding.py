"""The dispatcher slows down with its queue: less is out where settling takes long, and as much as before once it is
quick again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relay.agents.agent import Agent
from relay.dispatcher import Dispatcher
from relay.mail import Body, Envelope, Message, Outcome, Parcel, Recipient, Result, Settlement, Stop
from relay.outstanding import LEAST, Outstanding
from relay.queue_memory import MemoryQueue
from tests.support.clock import FakeClock

COUNT = 400


class Measured(MemoryQueue):
    """A queue whose settling takes as long as it is told, or fails; it counts what is claimed and not settled."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.seconds = 0.0
        self.fails = self.knows_nothing = False
        self.out = self.settled = 0
        self.peaks: list[int] = []  # what was out at each settlement

    def claim(self, destination: str, room: int, now: float, lease: float) -> list[Parcel]:
        found = super().claim(destination, room, now, lease)
        self.out += len(found)
        return found

    def settle_all(self, settlements: Sequence[Settlement], now: float) -> list[bool]:
        self.peaks.append(self.out)
        self.time += self.seconds
        if self.fails:
            raise OSError("the disk is full")
        self.out -= len(settlements)
        self.settled += len(settlements)
        return super().settle_all(settlements, now)

    def last_tried(self, message_id: str, number: int) -> float:
        if self.knows_nothing:
            raise OSError("I/O error")
        return super().last_tried(message_id, number)


class Taking:
    """Delivers all at once."""

    def deliver(self, parcel: Parcel, open_body: object, now: float) -> list[Outcome]:
        return [Outcome(one.number, Result.DELIVERED, at=now) for one in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""


class Scene:
    def __init__(self, agent: Agent | None = None) -> None:
        self.queue = Measured()
        self.clock = FakeClock()
        self.dispatcher = Dispatcher(
            self.queue,
            {"mx": agent or Taking()},
            lambda envelope: [],
            couriers=40,
            clock=self.clock,
            outstanding=Outstanding(400, lambda: self.queue.time),
        )
        self._number = 0

    def put(self, count: int, destination: str = "mx:d{}.test", arrived: float = 0.0) -> None:
        for _ in range(count):
            self._number += 1
            ann = Recipient("ann@d.test")
            message = Message(
                f"M{self._number}", Envelope("bob@here.test", (ann,), arrived=arrived), b"", Body(1, b"x")
            )
            self.queue.add([(message, [Stop(0, ann, destination.format(self._number % 100))])], "s", 1, self.clock.now)

    def step(self, *, expects: int = 1) -> None:
        """Until so many letters came, and then what the dispatcher makes of them."""
        letters = []
        while len(letters) < expects and (more := self.dispatcher.wait(10.0)):
            letters += more
        self.dispatcher.step(letters, self.clock.now)

    def run(self) -> None:
        self.dispatcher.announce()
        self.dispatcher.step([], self.clock.now)
        while self.queue.out:
            self.step()


def test_a_queue_that_settles_slowly_has_less_and_less_out() -> None:
    scene = Scene()
    scene.queue.seconds = 3.0
    scene.put(COUNT)
    scene.run()
    assert scene.queue.next_due() is None
    peaks = scene.queue.peaks
    assert max(peaks) > 2 * LEAST
    assert max(peaks[-3:]) <= LEAST


def test_a_queue_that_is_quick_again_has_as_much_out_as_before() -> None:
    scene = Scene()
    scene.queue.seconds = 3.0
    scene.put(COUNT)
    scene.run()
    scene.queue.seconds = 0.01
    scene.queue.peaks.clear()
    scene.put(3 * COUNT)
    scene.run()
    assert scene.queue.peaks[0] <= LEAST
    assert max(scene.queue.peaks) > 2 * LEAST


def test_while_a_queue_cant_settle_nothing_more_goes_out() -> None:
    """What was delivered and not settled is delivered again after a crash: it may not become more and more."""
    scene = Scene()
    scene.put(COUNT)
    scene.queue.fails = True
    scene.dispatcher.step([], scene.clock.now)
    with pytest.raises(OSError):
        scene.step()
    for _ in range(20):
        with pytest.raises(OSError):
            scene.dispatcher.step(scene.dispatcher.wait(0.02), scene.clock.now)
    assert scene.queue.out <= 40 * 10
    before = scene.queue.out
    scene.queue.fails = False
    scene.dispatcher.step([], scene.clock.now)
    # One quick settlement lets it grow by what it settled.
    assert scene.queue.out <= LEAST + before
    scene.run()
    assert scene.queue.next_due() is None


class Down:
    """No host of the destination answers."""

    def deliver(self, parcel: Parcel, open_body: object, now: float) -> list[Outcome]:
        return [
            Outcome(one.number, Result.DEFERRED, 0, "4.4.1", "down", at=now, next_attempt=now + 9, scope="destination")
            for one in parcel.stops
        ]

    def close(self) -> None:
        """Holds nothing."""


def test_what_was_put_off_while_the_queue_failed_is_settled_later() -> None:
    """It stayed claimed by nobody until its lease ended, an hour."""
    scene = Scene(Down())
    scene.put(60, "mx:down.test")
    scene.dispatcher.step([], scene.clock.now)
    scene.step(expects=5)  # closed after several troubles
    scene.dispatcher.step(scene.dispatcher.wait(0.5), scene.clock.now)
    scene.queue.fails = True
    scene.put(10, "mx:down.test")
    scene.dispatcher.announce()
    with pytest.raises(OSError):
        scene.dispatcher.step(scene.dispatcher.wait(0.5), scene.clock.now)
    assert scene.queue.out > 0
    scene.queue.fails = False
    scene.dispatcher.step(scene.dispatcher.wait(0.5), scene.clock.now)
    assert scene.queue.out == 0
    assert (scene.queue.next_due() or 0.0) < scene.clock.now + 3600


class Busy:
    """Cannot take it just now."""

    def deliver(self, parcel: Parcel, open_body: object, now: float) -> list[Outcome]:
        return [
            Outcome(one.number, Result.DEFERRED, 451, "4.2.0", "later", at=now, scope="message") for one in parcel.stops
        ]

    def close(self) -> None:
        """Holds nothing."""


def test_what_came_back_while_the_queue_could_not_be_asked_is_settled_later() -> None:
    """The letters at hand were lost: their couriers counted as at work and their mail as claimed until a restart."""
    scene = Scene(Busy())
    late = scene.clock.now - 5 * 3600  # so that it is time to tell of the delay, for which the queue is asked
    scene.put(20, arrived=late)
    scene.dispatcher.step([], scene.clock.now)
    scene.queue.knows_nothing = True
    scene.step(expects=20)
    assert scene.queue.out == 20
    assert scene.dispatcher.is_idle
    scene.queue.knows_nothing = False
    pause = scene.dispatcher.step([], scene.clock.now)
    assert scene.queue.out == 0
    assert pause is not None
    assert scene.queue.settled == 20


def test_what_could_not_be_asked_for_is_tried_again_though_nobody_else_comes() -> None:
    scene = Scene(Busy())
    scene.put(1, arrived=scene.clock.now - 5 * 3600)
    scene.dispatcher.step([], scene.clock.now)
    scene.queue.knows_nothing = True
    pause = scene.dispatcher.step(scene.dispatcher.wait(10.0), scene.clock.now)
    assert pause is not None
    assert pause <= 5.0
