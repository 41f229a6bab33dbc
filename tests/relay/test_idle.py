"""Kept connections: lent while they are fresh, closed by rest, age, use and number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.conversation import Conversation
from relay.hop import Hop, Manners, TlsLevel
from relay.idle import IdleConnections, IdleLimits
from tests.support.clock import FakeClock
from tests.support.parcels import QUICK
from tests.support.peer import ScriptedPeer

GREETS = "S: 220 p\nC: EHLO\nS: 250 p\n"
POLITE = GREETS + "C: QUIT\nS: 221 bye\n"
MANNERS = Manners(hello="relay.test", tls=TlsLevel.NONE, times=QUICK)


def opened(peer: ScriptedPeer, clock: FakeClock) -> Conversation:
    conversation = Conversation(Hop("peer", "127.0.0.1", peer.port), MANNERS)
    conversation.open()
    conversation.opened = clock.now
    return conversation


def test_a_connection_is_lent_to_the_same_hop_in_the_same_manners_only() -> None:
    clock = FakeClock()
    with ScriptedPeer(POLITE) as peer:
        idle = IdleConnections(clock=clock)
        one = opened(peer, clock)
        idle.give(one)
        other = Manners(hello="relay.test", tls=TlsLevel.NONE, times=QUICK)
        assert idle.lend(one.hop, other) is None
        assert idle.lend(Hop("other", "127.0.0.1", peer.port), MANNERS) is None
        assert idle.lend(one.hop, MANNERS) is one
        assert idle.lend(one.hop, MANNERS) is None
        idle.give(one)
        idle.close()


def test_rest_and_age_end_a_connection_politely() -> None:
    for limits, seconds in ((IdleLimits(rest=5.0), 6.0), (IdleLimits(rest=100.0, age=50.0), 51.0)):
        clock = FakeClock()
        with ScriptedPeer(POLITE) as peer:
            idle = IdleConnections(limits, clock)
            one = opened(peer, clock)
            idle.give(one)
            assert idle.expire() is not None
            clock.advance(seconds)
            assert idle.expire() is None
            assert one.is_broken
        assert peer.commands[-1] == "QUIT"


def test_what_is_worn_out_or_too_many_is_closed() -> None:
    clock = FakeClock()
    with ScriptedPeer(POLITE) as peer:
        idle = IdleConnections(IdleLimits(uses=2, kept=1), clock)
        worn = opened(peer, clock)
        worn.delivered = 2
        idle.give(worn)
        assert worn.is_broken
        first, second = opened(peer, clock), opened(peer, clock)
        idle.give(first)
        idle.give(second)
        assert not first.is_broken and second.is_broken
        idle.close()


@pytest.mark.parametrize("limits", [IdleLimits(uses=1), IdleLimits(kept=0), IdleLimits(rest=5.0)])
def test_nobody_waits_for_the_answer_to_quit(limits: IdleLimits) -> None:
    """Each message to Exim over a connection of its own took 200 ms longer."""
    clock = FakeClock()
    with ScriptedPeer(GREETS + "C: QUIT\n-- hang") as peer:
        idle = IdleConnections(limits, clock)
        manners = replace(MANNERS, times=replace(QUICK, quit=3600.0))
        one = Conversation(Hop("peer", "127.0.0.1", peer.port), manners)
        one.open()
        one.delivered, one.opened = 1, clock.now
        idle.give(one)
        clock.advance(6.0)
        assert idle.lend(one.hop, manners) is None
        assert one.is_broken
        for thread in peer._threads:
            thread.join(10)
        assert peer.commands[-1] == "QUIT"


def test_a_connection_that_said_something_while_it_rested_is_not_lent() -> None:
    clock = FakeClock()
    with ScriptedPeer(GREETS + "S: 421 4.4.2 idle too long\n-- close") as peer:
        idle = IdleConnections(clock=clock)
        one = opened(peer, clock)
        idle.give(one)
        for thread in peer._threads:
            thread.join(10)
        assert idle.lend(one.hop, MANNERS) is None
