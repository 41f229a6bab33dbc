"""A courier carries parcels of one destination to its agent, one after the other, and reports each. Where one took so
long that the destination counts as slow, the rest of the round is given back: it would be ten time-outs in a row.

Thread: a worker of the dispatcher's crew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from relay.agents.agent import Agent
from relay.mail import Outcome, Parcel, Result
from relay.queue import Queue
from relay.timing import deadline
from relay.window import patience

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Round:
    """What one courier was given. `begun` is touched by the courier only, the rest by the dispatcher only: how many
    letters are to come, since when the next one is awaited, whether it only waits by now, whether for too long, and
    whether its destination was slow when it began."""

    destination: str
    parcels: list[Parcel]
    left: int = 0
    begun: bool = False
    since: float = 0.0
    lingers: bool = False
    is_slow: bool = False
    was_slow: bool = False


@dataclass(slots=True)
class Letter:
    """A courier's report on one parcel, which took so many seconds; less than 0 where it was not tried. One without
    outcomes gives it back."""

    round: Round
    parcel: Parcel
    outcomes: list[Outcome]
    seconds: float = -1.0


class Post(Protocol):
    """Where letters go: the dispatcher's mailbox."""

    def put(self, letter: Letter) -> None: ...


def carry(round: Round, agent: Agent, queue: Queue, letters: Post, clock: Callable[[], float]) -> None:
    """Deliver the parcels of the round, posting one letter for each, whatever happens."""
    round.begun = True
    is_slow = False
    for parcel in round.parcels:
        if is_slow:
            letters.put(Letter(round, parcel, []))
            continue
        now = clock()
        if _is_too_late(parcel, now):
            text = "the time within which the sender wanted it delivered is over"
            late = [Outcome(stop.number, Result.EXPIRED, 0, "5.4.7", text, at=now) for stop in parcel.stops]
            letters.put(Letter(round, parcel, late))
            continue
        try:
            outcomes = _one_each(parcel, agent.deliver(parcel, partial(queue.open_body, parcel.message_id), now), now)
        except (Exception, SystemExit) as error:
            # A mistake of ours or of the disk: the mail is tried again, and the log says what it was.
            log.exception("d-%s: delivery to %s failed", parcel.message_id, parcel.destination)
            text = f"delivery failed: {type(error).__name__}"
            outcomes = [
                Outcome(stop.number, Result.DEFERRED, 0, "4.3.0", text, at=now, scope="message")
                for stop in parcel.stops
            ]
        seconds = max(0.0, clock() - now)
        is_slow = seconds >= patience(parcel.size)
        letters.put(Letter(round, parcel, outcomes, seconds))


def _one_each(parcel: Parcel, outcomes: list[Outcome], now: float) -> list[Outcome]:
    """One outcome for each recipient that was asked about, of which the queue can keep all: an agent's slip leaves
    nobody claimed for good."""
    outcomes = [_sound(parcel, one, now) for one in outcomes]
    if [one.number for one in outcomes] == [stop.number for stop in parcel.stops]:
        return outcomes
    told = {one.number: one for one in reversed(outcomes)}
    missing = [stop.number for stop in parcel.stops if stop.number not in told]
    if missing:
        log.error(
            "d-%s: the agent for %s said nothing of recipients %s", parcel.message_id, parcel.destination, missing
        )
    text = "delivery failed: the agent did not say what became of it"
    for number in missing:
        told[number] = Outcome(number, Result.DEFERRED, 0, "4.3.0", text, at=now, scope="message")
    return [told[stop.number] for stop in parcel.stops]


def _sound(parcel: Parcel, one: Outcome, now: float) -> Outcome:
    """What an agent of somebody else's making said, without what is no number or no text."""
    numbers = (one.code, one.at, one.next_attempt)
    texts = (one.enhanced, one.text, one.remote, one.scope, one.kind)
    if all(isinstance(value, int | float) for value in numbers) and all(isinstance(value, str) for value in texts):
        return one
    log.error(
        "d-%s: the agent for %s gave an outcome that can't be kept: %s", parcel.message_id, parcel.destination, one
    )
    return Outcome(one.number, Result(one.result), text="its agent did not say it in numbers and text", at=now)


def _is_too_late(parcel: Parcel, now: float) -> bool:
    """BY with mode R: returned, not delivered late (RFC 2852 4.1.4.1)."""
    by = parcel.envelope.parameters.by
    return by is not None and by.mode == "R" and now >= deadline(parcel.envelope)
