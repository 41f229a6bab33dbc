"""The dispatcher: one thread that decides what may start, and settles what came back with its bounces.

Claims only what can start: a destination's window and the crew must have room. Destinations with the fewest couriers
under way come first, and while others wait none holds more than a quarter of the crew, so that a slow one starves
nobody. Mailboxes of this machine have a crew of their own.
Thread: step() runs in the dispatcher's loop (or in a test's thread, never both); announce() and wake() from any.
Not here: when to retry (retry.py), codes (judge.py), the text of bounces (bounce.py).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from typing import BinaryIO

from relay.agents.agent import Agent
from relay.bounce import compose, reports_due
from relay.courier import Letter, Round, carry
from relay.idle import IdleConnections
from relay.intake import UNROUTABLE
from relay.mail import Envelope, Message, Outcome, Parcel, Result, Settlement, Stop
from relay.outstanding import Outstanding
from relay.queue import Queue
from relay.retry import RetryPolicy, is_time_to_warn, next_attempt
from relay.timing import deadline, first_attempt
from relay.window import Window
from smtpd_core.threads import Crew, Loop, Mailbox, start_loop

log = logging.getLogger(__name__)

# Seconds a claim is good for; what is still under way by then is extended.
LEASE = 3600.0
# Parcels one courier takes at a time: it saves a hand-over for each, and bounds how long an outcome waits.
BATCH = 10
# Recipients put off in one step while their destination is closed.
PUT_OFF = 200
# Destinations whose windows are remembered.
MAX_WINDOWS = 20_000
# While a destination has more than it can take, seconds after which the others are asked for again.
LOOK_AGAIN = 1.0

LOCAL = frozenset({"maildir", "mbox", "pipe", "refuse"})


@dataclass(frozen=True, slots=True)
class Terms:
    """How a destination is treated: conversations at once, seconds between two starts (0 for none), retries."""

    concurrency: int = 20
    interval: float = 0.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True)
class Wake:
    """A destination whose troubles are to be forgotten."""

    destination: str


class Dispatcher:
    """`agents` by scheme; `stops_for(envelope)` routes bounces; `terms_of(destination)` is asked once per window."""

    def __init__(
        self,
        queue: Queue,
        agents: Mapping[str, Agent],
        stops_for: Callable[[Envelope], Sequence[Stop]],
        *,
        hostname: str = "localhost",
        terms_of: Callable[[str], Terms] | None = None,
        couriers: int = 64,
        local_couriers: int = 8,
        idle: IdleConnections | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        on_outcome: Callable[[Parcel, Outcome], None] | None = None,
        outstanding: Outstanding | None = None,
    ) -> None:
        self._queue = queue
        self._outstanding = outstanding or Outstanding((couriers + local_couriers) * BATCH)
        self._agents = dict(agents)
        self._stops_for = stops_for
        self._hostname = hostname
        default = Terms()
        self._terms_of = terms_of or (lambda destination: default)
        self._crews = {False: Crew("courier", couriers), True: Crew("local-courier", local_couriers)}
        self._free = {False: couriers, True: local_couriers}
        self._idle = idle
        self._clock = clock
        self._chance = chance
        self._on_outcome = on_outcome
        self._letters: Mailbox[Letter | Wake] = Mailbox()
        self._unsettled: list[Settlement] = []
        self._rounds: set[Round] = set()
        self._windows: dict[str, Window] = {}
        self._starts: dict[str, float] = {}
        self._backlog: dict[str, int] = {}
        self._is_stale = True
        self._looked_at = 0.0
        self._extend_at = 0.0
        self._stopping = False
        self._deadline = 0.0
        self._loop: Loop | None = None

    # Its life

    def start(self) -> None:
        self._loop = start_loop("dispatcher", self._run)

    def stop(self, timeout: float = 10.0) -> bool:
        """Let couriers finish within `timeout`, settle what they bring, give the rest back. Idempotent."""
        self._deadline = time.monotonic() + timeout
        self._stopping = True
        self._letters.poke()
        return self._loop is None or self._loop.join(timeout + 1.0)

    def announce(self) -> None:
        """There is new mail in the queue, or old mail became due."""
        self._is_stale = True
        self._letters.poke()

    def wake(self, destination: str) -> None:
        """Forget that a destination was in trouble (ETRN, an operator)."""
        self._letters.put(Wake(destination))
        self.announce()

    @property
    def is_idle(self) -> bool:
        return not self._rounds

    def _run(self) -> None:
        pause: float | None = 0.0
        while not self._stopping:
            letters = self._letters.wait(pause)
            try:
                pause = self.step(letters, self._clock())
            except Exception:
                # The queue is down (disk full, say). What was to be settled is kept, and tried with the next letters.
                log.exception("the dispatcher could not use the queue; it tries again")
                self._is_stale = True
                pause = 5.0
        self._finish()

    def _finish(self) -> None:
        for crew in self._crews.values():
            crew.stop(max(0.0, self._deadline - time.monotonic()))
        now = self._clock()
        self._settle(self._letters.take_all(), now)
        for round in self._rounds:
            if not round.begun:
                for parcel in round.parcels:
                    self._queue.release(parcel, now)
        for agent in {id(agent): agent for agent in self._agents.values()}.values():
            agent.close()

    def step(self, letters: Sequence[Letter | Wake], now: float) -> float | None:
        """Settle the letters and start what can be; seconds until there is something to do, None for no such time."""
        self._settle(letters, now)
        if now >= self._extend_at:
            self._extend(now)
        self._fill(now)
        return self._pause(now)

    def wait(self, timeout: float) -> list[Letter | Wake]:
        """For whoever drives step() by hand: the next letters."""
        return self._letters.wait(timeout)

    def _pause(self, now: float) -> float | None:
        moments = []
        if not self._backlog:
            due = self._queue.next_due()
            if due is not None:
                # What is due and was not among the backlog is leased or held; it is looked at again, not at once.
                moments.append(max(due - now, 1.0 if due <= now else 0.01))
        else:
            moments.extend(
                window.closed_until - now
                for window in map(self._windows.get, self._backlog)
                if window is not None and window.closed_until > now
            )
            moments.extend(self._starts[one] - now for one in self._backlog if self._starts.get(one, 0.0) > now)
            # Somebody else's mail may come due before these destinations have room again.
            moments.append(LOOK_AGAIN)
        if self._idle is not None:
            rest = self._idle.expire()
            if rest is not None:
                moments.append(max(rest, 0.05))
        return min(moments) if moments else None

    # Starting

    def _fill(self, now: float) -> None:
        if self._is_stale or not self._backlog or abs(now - self._looked_at) >= LOOK_AGAIN:
            self._is_stale = False
            self._looked_at = now
            self._backlog = dict(self._queue.due(now))
        if not self._backlog:
            return
        windows = self._windows
        order = list(self._backlog)
        if len(order) > 1 and self._rounds:
            order.sort(key=lambda one: windows[one].busy if one in windows else 0)
        for destination in order:
            if not self._outstanding.room:
                return  # the queue is behind: the next settlement makes room
            self._start(destination, now, len(order) > 1)

    def _start(self, destination: str, now: float, others_wait: bool) -> None:
        scheme = destination.partition(":")[0]
        is_local = scheme in LOCAL
        window = self._window(destination)
        if window.is_closed(now):
            self._put_off(destination, window, now)
            return
        interval = self._terms_of(destination).interval
        if now < self._starts.get(destination, 0.0) <= now + interval:
            return
        room = min(window.room(now), self._free[is_local])
        if others_wait:
            room = min(room, max(1, self._crews[is_local].max // 4) - window.busy)
        if room <= 0:
            return
        if interval:
            room, most = 1, 1
            self._starts[destination] = now + interval
        else:
            waiting = self._backlog[destination]
            most = min(waiting, room * max(1, min(BATCH, waiting // room)))
        most = min(most, self._outstanding.room)
        parcels = self._queue.claim(destination, most, now, LEASE)
        self._outstanding.claimed(len(parcels))
        if len(parcels) < most or len(parcels) >= self._backlog[destination]:
            del self._backlog[destination]
        else:
            self._backlog[destination] -= len(parcels)
        share = -(-len(parcels) // room) or 1
        for at in range(0, len(parcels), share):
            self._send(destination, parcels[at : at + share], window, is_local)

    def _send(self, destination: str, parcels: list[Parcel], window: Window, is_local: bool) -> None:
        round = Round(destination, parcels, len(parcels))
        agent = self._agents.get(destination.partition(":")[0], _NO_AGENT)
        window.busy += 1
        self._free[is_local] -= 1
        self._rounds.add(round)
        self._crews[is_local].submit(partial(carry, round, agent, self._queue, self._letters, self._clock))

    def _window(self, destination: str) -> Window:
        window = self._windows.get(destination)
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                for name in [name for name, one in self._windows.items() if one.is_forgettable]:
                    del self._windows[name]
            window = self._windows[destination] = Window(self._terms_of(destination).concurrency)
        return window

    def _put_off(self, destination: str, window: Window, now: float) -> None:
        """The destination is closed: what is due there learns that untried, and may expire, as others' turn comes."""
        most = min(PUT_OFF, self._outstanding.room)
        parcels = self._queue.claim(destination, most, now, LEASE)
        self._outstanding.claimed(len(parcels))
        if len(parcels) < most:
            del self._backlog[destination]
        for parcel in parcels:
            again = window.closed_until + 30.0 * self._chance()
            outcomes = [
                Outcome(
                    stop.number,
                    Result.DEFERRED,
                    0,
                    "4.4.1",
                    f"not tried: {window.reason}",
                    at=now,
                    next_attempt=again,
                    scope="destination",
                )
                for stop in parcel.stops
            ]
            self._unsettled.append(self._settlement(parcel, outcomes, now))
        self._record(now)

    # Settling

    def _settle(self, letters: Sequence[Letter | Wake], now: float) -> None:
        for letter in letters:
            if isinstance(letter, Wake):
                if letter.destination in self._windows:
                    self._windows[letter.destination].went_well()
                continue
            round = letter.round
            window = self._window(round.destination)
            round.left -= 1
            if round.left == 0:
                self._rounds.discard(round)
                window.busy -= 1
                self._free[round.destination.partition(":")[0] in LOCAL] += 1
            self._teach(window, letter.outcomes, now)
            self._unsettled.append(self._settlement(letter.parcel, letter.outcomes, now))
        self._record(now)

    def _record(self, now: float) -> None:
        """Outcomes into the queue; what it can't take stays unsettled, and is tried with the next ones."""
        if not self._unsettled:
            return
        kept = self._outstanding.settle(self._queue, self._unsettled, now)
        for settlement, is_kept in zip(self._unsettled, kept, strict=True):
            if not is_kept:
                log.warning("d-%s: the claim was lost before its outcome came", settlement.parcel.message_id)
        self._unsettled = []

    @staticmethod
    def _teach(window: Window, outcomes: Sequence[Outcome], now: float) -> None:
        trouble = next(
            (o for o in outcomes if o.result is Result.DEFERRED and o.scope in ("host", "destination")), None
        )
        if trouble is None:
            window.went_well()
        else:
            window.had_trouble(now, " ".join(part for part in (trouble.enhanced, trouble.text) if part)[:400])

    def _settlement(self, parcel: Parcel, outcomes: Sequence[Outcome], now: float) -> Settlement:
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
        again = next_attempt(policy, attempts, arrived, now, self._chance())
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
            message = compose(parcel, reports, partial(self._body, parcel.message_id), self._hostname, now)
        except Exception:
            # A mistake of ours must not keep this message, or all the others, from being settled.
            log.exception("d-%s: its notification to <%s> is lost", parcel.message_id, parcel.envelope.sender)
            return ()
        self._is_stale = True
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

    def _extend(self, now: float) -> None:
        self._extend_at = now + LEASE / 3
        for round in self._rounds:
            for parcel in round.parcels:
                self._queue.extend(parcel, now, LEASE)


class _NoAgent:
    """A destination that nothing here serves: a mistake in the settings, which time and an operator can mend."""

    def deliver(self, parcel: Parcel, open_body: object, now: float) -> list[Outcome]:
        text = f"no agent for {parcel.destination.partition(':')[0]!r} destinations"
        return [
            Outcome(stop.number, Result.DEFERRED, 451, "4.3.5", text, at=now, scope="destination")
            for stop in parcel.stops
        ]

    def close(self) -> None:
        """Holds nothing."""


_NO_AGENT = _NoAgent()
