"""Mailboxes that wake a poll, and tickets that post to them."""

from __future__ import annotations

import threading

from smtpd_core.threads import PollMailbox, Ticket, resolve_all


class Bell:
    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


def test_only_a_reader_that_sleeps_is_woken():
    bell = Bell()
    box: PollMailbox[int] = PollMailbox(bell)
    box.put(1)
    assert bell.rung == 0
    assert box.go_to_sleep() == [1]
    assert box.go_to_sleep() == []
    box.put(2)
    box.put(3)
    assert bell.rung == 1
    assert box.take_all() == [2, 3]


def test_a_batch_of_tickets_wakes_a_reactor_once():
    bell = Bell()
    box: PollMailbox[int] = PollMailbox(bell)
    tickets = [Ticket() for _ in range(100)]
    for number, ticket in enumerate(tickets):
        ticket.post_to(box, number)
    assert box.go_to_sleep() == []
    resolve_all(tickets)
    assert bell.rung == 1
    assert box.take_all() == list(range(100))


def test_a_ticket_resolved_before_it_is_watched_posts_at_once():
    box: PollMailbox[str] = PollMailbox(Bell())
    ticket = Ticket()
    ticket.resolve(OSError("full"))
    ticket.post_to(box, "letter")
    assert box.take_all() == ["letter"]
    assert isinstance(ticket.outcome, OSError)


def test_a_withdrawn_ticket_posts_nothing():
    box: PollMailbox[str] = PollMailbox(Bell())
    ticket = Ticket()
    ticket.post_to(box, "letter")
    assert ticket.withdraw()
    assert not ticket.take()
    resolve_all([ticket])
    ticket.resolve()
    assert box.take_all() == []


def test_a_taken_ticket_can_not_be_withdrawn():
    ticket = Ticket()
    assert ticket.take()
    assert not ticket.withdraw()
    ticket.resolve()
    assert ticket.is_resolved and ticket.outcome is None


def test_a_closed_mailbox_refuses_and_rings_no_bell():
    bell = Bell()
    box: PollMailbox[int] = PollMailbox(bell)
    box.put(1)
    assert box.close() == [1]
    assert not box.put(2)
    assert not box.put_all([3])
    box.poke()
    assert bell.rung == 0 and box.take_all() == []


def test_no_letter_is_lost_between_many_senders_and_a_sleeping_reader():
    rung = threading.Semaphore(0)
    box: PollMailbox[int] = PollMailbox(rung.release)
    senders = [threading.Thread(target=lambda: [box.put(1) for _ in range(2000)]) for _ in range(4)]
    for sender in senders:
        sender.start()
    got = 0
    while got < 8000:
        letters = box.go_to_sleep()
        if not letters:
            assert rung.acquire(timeout=10)
        got += len(letters)
    for sender in senders:
        sender.join()
    assert got == 8000


def test_a_ticket_that_was_withdrawn_before_keeps_nobody_waiting():
    ticket = Ticket()
    assert ticket.withdraw()
    assert ticket.withdraw(), "nothing will be kept"
    assert not ticket.take()


def test_any_number_may_wait_for_a_ticket():
    """Only the last one that asked was told; two that stopped one engine were an example."""
    for settle in (Ticket.resolve, lambda ticket: resolve_all([ticket])):
        ticket, heard = Ticket(), []
        assert not ticket.wait(0.0)
        waiters = [
            threading.Thread(target=lambda ticket=ticket, heard=heard: heard.append(ticket.wait(20))) for _ in range(3)
        ]
        for waiter in waiters:
            waiter.start()
        told = []
        ticket.watch(told.append)
        ticket.watch(told.append)
        settle(ticket)
        for waiter in waiters:
            waiter.join(20)
        assert heard == [True] * 3 and told == [ticket] * 2
