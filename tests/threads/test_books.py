"""The books of the thread pool, section by section. All their orders are in test_interleavings.py."""

from __future__ import annotations

import itertools

import pytest

from smtpd_core.threads import HookMeter, Share, ThreadPool
from smtpd_core.threads.books import END, FOLLOW, LEAD, Books, Worker
from smtpd_core.threads.meter import SLOW

NUMBERS = itertools.count()


class Reactor:
    def lead(self, turn, post):
        raise AssertionError("nobody runs here")

    def poke(self):
        raise AssertionError("nobody waits here")


def books(minimum=1, maximum=2):
    made = Books(minimum, maximum, lambda: Worker(f"w{next(NUMBERS)}"))
    post, successor = made.open(Reactor())
    return made, post, successor.worker


SLOW_HOOK = HookMeter("slow", always_slow=True)


def test_a_quick_hook_keeps_the_lead_and_its_slot_only_while_it_runs():
    made, post, leader = books()
    made.begin(post)
    meter = HookMeter("quick")
    assert made.enter(leader, meter, 0.0) == (True, None)
    assert made.slots_held == 1
    made.leave(leader, meter, 0.0001)
    assert made.slots_held == 0
    assert made.end(leader)


def test_a_slow_hook_gives_the_lead_away_and_keeps_its_slot_until_it_retires():
    made, post, leader = books()
    made.begin(post)
    entered, successor = made.enter(leader, SLOW_HOOK, 0.0)
    assert entered and successor is not None and successor.is_new
    assert post.leader is successor.worker and leader.post is None
    made.leave(leader, SLOW_HOOK, 0.1)
    assert made.slots_held == 1
    assert not made.end(leader)
    assert made.retire(leader) == (FOLLOW, ())
    assert made.slots_held == 0


def test_followers_are_woken_last_in_first_out_and_surplus_threads_end():
    made, post, first = books(minimum=2, maximum=4)
    workers = [first]
    for _ in range(3):
        made.begin(post)
        _, successor = made.enter(workers[-1], SLOW_HOOK, 0.0)
        workers.append(successor.worker)
    decisions = []
    for worker in workers[:3]:
        made.leave(worker, SLOW_HOOK, 0.1)
        decisions.append(made.retire(worker)[0])
    assert decisions == [FOLLOW, FOLLOW, END]
    made.begin(post)
    _, successor = made.enter(workers[3], SLOW_HOOK, 0.0)
    assert successor.worker is workers[1] and not successor.is_new


def test_the_sentinel_deposes_only_a_turn_that_it_saw_before():
    made, post, leader = books()
    made.begin(post)
    assert made.look(0.0, 0.004)[0] == []
    assert made.end(leader)
    made.begin(post)  # another turn by now
    assert made.look(0.0, 0.004)[0] == []
    successors, _, _ = made.look(0.0, 0.004)
    assert [successor.worker for successor in successors] == [post.leader]
    assert not made.end(leader) and leader.has_slot


def test_without_a_free_slot_nobody_is_deposed_so_that_threads_stay_bounded():
    made, post, first = books(maximum=1)
    made.begin(post)
    _, successor = made.enter(first, SLOW_HOOK, 0.0)
    second = successor.worker
    made.begin(post)
    for _ in range(3):
        assert made.look(0.0, 0.004)[0] == []
    made.leave(first, SLOW_HOOK, 0.1)
    made.retire(first)
    assert len(made.look(0.0, 0.004)[0]) == 1
    assert second.post is None


def test_a_thread_that_the_system_refuses_leaves_the_lead_where_it_was():
    made, post, leader = books(minimum=0)
    made.begin(post)
    _, successor = made.enter(leader, SLOW_HOOK, 0.0)
    made.no_thread(successor.worker, leader)
    assert post.leader is leader and leader.post is post and post.running
    made.leave(leader, SLOW_HOOK, 0.1)
    assert made.end(leader) and made.slots_held == 0


def test_a_vacant_post_is_taken_by_the_next_who_retires():
    made, post, leader = books(minimum=0)
    made.begin(post)
    made.look(0.0, 0.004)
    successors, _, _ = made.look(0.0, 0.004)
    made.no_thread(successors[0].worker, None)
    assert post.leader is None
    assert not made.end(leader)
    assert made.retire(leader)[0] == LEAD
    assert post.leader is leader


def test_the_sentinel_sleeps_when_idle_and_is_woken_by_the_next_turn():
    made, post, leader = books()
    wait = 0.004
    for _ in range(200):
        _, _, wait = made.look(0.0, 0.004)
        if wait is None:
            break
    assert wait is None and made.sentinel_sleeps
    assert made.begin(post)
    assert made.end(leader)
    assert not made.begin(post)


def test_a_sentinel_that_sleeps_still_wakes_for_a_budget():
    made, post, leader = books()
    meter = HookMeter("long", budget=30.0, always_slow=True)
    made.begin(post)
    made.enter(leader, meter, 100.0)
    wait = 0.004
    while wait == 0.004:
        _, late, wait = made.look(101.0, 0.004)
        assert late == []
    assert wait == 29.0
    assert made.look(131.0, 0.004)[1] == [leader]
    assert made.look(132.0, 0.004)[1] == []  # once
    assert meter.over_budget == 1


def test_logins_leave_half_of_the_slots():
    made, post, leader = books(maximum=3)
    share = Share(0.5)
    login = HookMeter("login", share=share, always_slow=True)
    made.begin(post)
    _, successor = made.enter(leader, login, 0.0)
    made.begin(post)
    assert made.enter(successor.worker, login, 0.0) == (False, None)
    assert not made.has_room(post, login) and made.has_room(post, SLOW_HOOK)
    assert made.leave(leader, login, 0.1) == (post.work,)
    assert made.has_room(post, login)


def test_a_share_may_have_a_bound_of_its_own():
    share = Share(0.5)
    assert [share.limit(slots) for slots in (1, 3, 32, 1000)] == [1, 1, 16, 500]
    share.at_most = 16
    assert [share.limit(slots) for slots in (1, 3, 32, 1000)] == [1, 1, 16, 16]


def test_one_hiccup_does_not_make_a_hook_slow_and_a_slow_one_recovers():
    meter = HookMeter("hook")
    meter.note(1.0)
    assert not meter.is_slow
    meter.note(1.0)
    assert meter.is_slow
    for _ in range(10):
        meter.note(0.0)
    assert not meter.is_slow
    for _ in range(30):
        meter.note(SLOW * 1.2)
    assert meter.is_slow


@pytest.mark.parametrize("minimum, maximum", [(0, 0), (-1, 2), (3, 2)])
def test_impossible_thread_counts_are_named(minimum, maximum):
    with pytest.raises(ValueError, match="thread counts"):
        ThreadPool(minimum, maximum)


def test_the_sentinel_never_sleeps_while_a_post_is_vacant_and_asks_for_a_thread_again_after_a_while():
    """Where the system refused every thread the sentinel went to sleep, and nobody ever led the reactor again."""
    made, post, worker = books(minimum=0)
    made.no_thread(worker, None)
    assert post.leader is None
    successors, looks = [], 0
    while not successors:
        successors, _, wait = made.look(0.0, 0.004)
        assert wait is not None
        looks += 1
    assert looks > 100 and post.leader is successors[0].worker
