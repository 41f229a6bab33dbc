"""What came of a parcel, made final: when each recipient is tried again or given up, and what its sender is told.

settlement() makes one value of it, which the queue stores in one transaction: outcomes and notifications together.
Thread: the dispatcher's only.
Not here: codes (judge.py), the arithmetic of retries (retry.py), the text of a notification (bounce.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import BinaryIO

from relay.bounce import compose, reports_due
from relay.intake import UNROUTABLE
from relay.mail import Envelope, Message, Outcome, Parcel, Result, Settlement, Stop
from relay.queue import Queue
from relay.retry import RetryPolicy, is_time_to_warn, next_attempt
from relay.terms import Terms
from relay.timing import deadline, first_attempt

log = logging.getLogger(__name__)


class Settling:
    """`stops_for(envelope)` routes notifications; `on_outcome(parcel, outcome)` hears of each outcome."""

    def __init__(
        self,
        queue: Queue,
        stops_for: Callable[[Envelope], Sequence[Stop]],
        terms_of: Callable[[str], Terms],
        *,
        hostname: str,
        chance: Callable[[], float],
        on_outcome: Callable[[Parcel, Outcome], None] | None = None,
    ) -> None:
        self._queue = queue
        self._stops_for = stops_for
        self._terms_of = terms_of
        self.hostname = hostname
        self._chance = chance
        self._on_outcome = on_outcome

    def settlement(self, parcel: Parcel, outcomes: Sequence[Outcome], now: float) -> Settlement:
        policy = self._terms_of(parcel.destination).retry
        attempts = {stop.number: stop.attempts + 1 for stop in parcel.stops}
        # Mail that was to wait (FUTURERELEASE) has its time from its release on.
        arrived = first_attempt(parcel.envelope, parcel.envelope.arrived)
        final = [self._timed(one, attempts[one.number], policy, arrived, now) for one in outcomes]
        warned = [
            one.number
            for one in final
            if one.result is Result.DEFERRED and self._warns(parcel, one.number, policy, arrived, one.at or now)
        ]
        for one in final:
            self._tell(parcel, one)
        return Settlement(parcel, tuple(final), self._bounces(parcel, final, warned, arrived + policy.expire, now))

    def _timed(self, outcome: Outcome, attempts: int, policy: RetryPolicy, arrived: float, now: float) -> Outcome:
        if outcome.result is not Result.DEFERRED:
            return outcome
        again = next_attempt(policy, attempts, arrived, now, self._chance(), outcome.kind == "greylisted")
        if again is None:
            return replace(outcome, result=Result.EXPIRED)
        if outcome.next_attempt:
            again = min(max(outcome.next_attempt, now + 1.0), arrived + policy.expire)
        return replace(outcome, next_attempt=again)

    def _warns(self, parcel: Parcel, number: int, policy: RetryPolicy, arrived: float, at: float) -> bool:
        end = deadline(parcel.envelope)
        if at < end and not is_time_to_warn(policy, 0.0, arrived, at):
            return False
        # Once for the delay and once for a BY time, by what the queue knows: a restart changes nothing.
        before = self._queue.last_tried(parcel.message_id, number)
        return is_time_to_warn(policy, before, arrived, at) or before < end <= at

    def _bounces(
        self, parcel: Parcel, outcomes: Sequence[Outcome], warned: Sequence[int], expire: float, now: float
    ) -> tuple[tuple[Message, tuple[Stop, ...]], ...]:
        reports = reports_due(parcel, outcomes, warned, expire)
        if not reports:
            return ()
        try:
            message = compose(parcel, reports, partial(self._body, parcel.message_id), self.hostname, now)
        except Exception:
            # A mistake of ours must not keep this message, or all the others, from being settled.
            log.exception("d-%s: its notification to <%s> is lost", parcel.message_id, parcel.envelope.sender)
            return ()
        sender = parcel.envelope.sender
        log.info("m-%s: notification of what became of d-%s, to <%s>", message.id, parcel.message_id, sender)
        try:
            stops = tuple(self._stops_for(message.envelope))
        except Exception:
            # What came of the message is settled all the same; its notification waits for an operator.
            log.exception("d-%s: no route for its notification, which waits as %s", parcel.message_id, UNROUTABLE)
            stops = tuple(Stop(number, one, UNROUTABLE) for number, one in enumerate(message.envelope.recipients))
        return ((message, stops),)

    def _body(self, message_id: str) -> BinaryIO:
        try:
            return self._queue.open_body(message_id)
        except (KeyError, OSError):
            # Deleted meanwhile, or unreadable: the sender is told all the same, without the headers.
            log.warning("d-%s: no content for its notification", message_id)
            return BytesIO()

    def _tell(self, parcel: Parcel, outcome: Outcome) -> None:
        if log.isEnabledFor(logging.INFO):
            log.info(
                "d-%s: %s to %s by %s: %s %s %s",
                parcel.message_id,
                outcome.result.value,
                next((stop.recipient.address for stop in parcel.stops if stop.number == outcome.number), "?"),
                outcome.remote or parcel.destination,
                outcome.code or "-",
                outcome.enhanced,
                outcome.text,
            )
        if self._on_outcome is None:
            return
        try:
            self._on_outcome(parcel, outcome)
        except Exception:
            log.exception("on_outcome raised; it can't change what became of d-%s", parcel.message_id)
