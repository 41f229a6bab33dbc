"""Coarse deadlines: never early, never forgotten, nothing left behind."""

from __future__ import annotations

import random

from smtpd_core.net.deadlines import Deadlines


class Thing:
    def __init__(self, due: float = 0.0) -> None:
        self.due = due
        self.tick = 0


def test_a_deadline_is_reported_after_it_and_within_an_eighth_of_a_second():
    wheel = Deadlines()
    thing = Thing(100.3)
    wheel.arm(thing, 100.0)
    wait = wheel.wait(100.0)
    assert wait is not None and 0.3 <= wait <= 0.3 + 0.126
    assert wheel.overdue(100.3) == []
    assert wheel.overdue(100.0 + wait) == [thing]
    assert wheel.wait(101.0) is None


def test_a_deadline_moved_later_costs_no_entry_and_is_kept():
    wheel = Deadlines()
    thing = Thing(101.0)
    wheel.arm(thing, 100.0)
    tick = thing.tick
    thing.due = 105.0
    wheel.arm(thing, 100.5)
    assert thing.tick == tick
    assert wheel.overdue(101.5) == []
    assert thing.tick > tick
    assert wheel.overdue(105.2) == [thing]


def test_a_deadline_moved_earlier_is_met():
    wheel = Deadlines()
    thing = Thing(400.0)
    wheel.arm(thing, 100.0)
    thing.due = 101.0
    wheel.arm(thing, 100.0)
    assert wheel.overdue(101.2) == [thing]
    assert wheel.overdue(500.0) == []


def test_what_is_forgotten_leaves_nothing_behind():
    wheel = Deadlines()
    things = [Thing(100.0 + number % 7) for number in range(1000)]
    for thing in things:
        wheel.arm(thing, 99.0)
    for thing in things:
        wheel.forget(thing)
    assert wheel.wait(99.0) is None
    assert wheel.overdue(200.0) == []


def test_any_order_of_moves_is_late_by_a_second_at_most():
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    wheel = Deadlines()
    now = 1000.0
    waiting = {}
    for _ in range(5000):
        now += dice.random() * 0.2
        for thing in wheel.overdue(now):
            assert thing.due <= now
            assert now - waiting.pop(thing) <= 1.0 + 0.126 + 0.2
        thing = dice.choice(list(waiting)) if waiting and dice.random() < 0.5 else Thing()
        thing.due = now + dice.choice([0.05, 1.0, 9.0, 11.0, 60.0])
        waiting[thing] = thing.due
        wheel.arm(thing, now)
        if dice.random() < 0.2 and waiting:
            gone = dice.choice(list(waiting))
            wheel.forget(gone)
            del waiting[gone]
