"""The dispatcher: one thread that decides what may start, and has settled what came back.

Claims only what can start: a destination's window and the couriers must have room. Quick and new destinations come
before slow ones, those with the fewest couriers under way first; while others wait a new one has one courier, a slow
one gets one more at a time, and none more than a quarter of them. Mailboxes of this machine have their own couriers.
Thread: step() runs in the dispatcher's loop (or in a test's thread, never both); announce() and wake() from any.
Not here: what a slow destination may hold (couriers.py), outcomes and notifications (settling.py), codes (judge.py).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

from relay.agents.agent import Agent
from relay.agents.missing import MissingAgent
from relay.courier import Letter, Round, carry
from relay.couriers import Couriers
from relay.idle import IdleConnections
from relay.mail import Envelope, Outcome, Parcel, Result, Settlement, Stop
from relay.outstanding import Outstanding
from relay.queue import Queue
from relay.settling import Settling
from relay.terms import Terms
from relay.window import MAX_WINDOWS, Pace, Window, Windows
from smtpd_core.threads import Loop, Mailbox, start_loop

log = logging.getLogger(__name__)

# Seconds a claim is good for; what is still under way by then is extended.
LEASE = 3600.0
# Parcels one courier takes at a time: it saves a hand-over for each, and bounds how long an outcome waits.
BATCH = 10
# Recipients put off in one step while their destination is closed.
PUT_OFF = 200
# Destinations looked at in one step, those that wait longest first; more where none of these can start (all of them
# are slow, say), up to so many.
LOOK, LOOK_FAR = 1_000, 64_000
# While a destination has more than it can take, seconds after which the others are asked for again.
LOOK_AGAIN = 1.0
# After the queue failed it is tried again so often.
TRY_AGAIN = 5.0

LOCAL = frozenset({"maildir", "mbox", "pipe", "refuse", "expand"})


@dataclass(frozen=True, slots=True)
class Wake:
    """A destination whose troubles are to be forgotten."""

    destination: str


class Dispatcher:
    """`agents` by scheme; `stops_for(envelope)` routes bounces; `terms_of(destination)` is asked at each start.
    `couriers` are at work at once, and `patient` more wait for slow destinations (three times as many where None)."""

    def __init__(
        self,
        queue: Queue,
        agents: Mapping[str, Agent],
        stops_for: Callable[[Envelope], Sequence[Stop]],
        *,
        hostname: str = "localhost",
        terms_of: Callable[[str], Terms] | None = None,
        couriers: int = 64,
        patient: int | None = None,
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
        default = Terms()
        self._terms_of = terms_of or (lambda destination: default)
        self._settling = Settling(
            queue, stops_for, self._terms_of, hostname=hostname, chance=chance, on_outcome=on_outcome
        )
        self._couriers = {
            False: Couriers("courier", couriers, 3 * couriers if patient is None else patient),
            True: Couriers("local-courier", local_couriers, local_couriers),
        }
        self._idle = idle
        self._clock = clock
        self._chance = chance
        self._letters: Mailbox[Letter | Wake] = Mailbox()
        self._came_back: list[tuple[Parcel, list[Outcome]]] = []
        self._unsettled: list[Settlement] = []
        self._given_back: list[Parcel] = []
        self._rounds: set[Round] = set()
        self._windows = Windows(lambda destination: self._terms_of(destination).concurrency)
        self._starts: dict[str, float] = {}
        self._backlog: dict[str, int] = {}
        self._is_stale = True
        self._is_cut_short = self._has_begun = False
        self._reach = LOOK
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
                pause = TRY_AGAIN
        self._finish()

    def _finish(self) -> None:
        for couriers in self._couriers.values():
            couriers.stop(max(0.0, self._deadline - time.monotonic()))
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
        if self._came_back:
            moments.append(TRY_AGAIN)
        if self._idle is not None:
            rest = self._idle.expire()
            if rest is not None:
                moments.append(max(rest, 0.05))
        return min(moments) if moments else None

    def rename(self, hostname: str) -> None:
        """Notifications are this host's from now on. Thread: any."""
        self._settling.hostname = hostname

    # Starting

    def _fill(self, now: float) -> None:
        for couriers in self._couriers.values():
            couriers.look(now)
        if self._is_stale or not self._backlog or abs(now - self._looked_at) >= LOOK_AGAIN:
            self._look(now)
        while self._backlog and self._has_room and not self._start_some(now) and self._is_cut_short:
            # Nobody of those who wait longest can be helped now; others may.
            if not self._has_begun:
                self._reach = min(4 * self._reach, LOOK_FAR)
            self._look(now)

    def _look(self, now: float) -> None:
        self._is_stale = self._has_begun = False
        self._looked_at = now
        self._backlog = dict(self._queue.due(now, self._reach))
        self._is_cut_short = len(self._backlog) >= self._reach < LOOK_FAR
        if len(self._backlog) < LOOK:
            self._reach = LOOK

    def _start_some(self, now: float) -> bool:
        """Whether anything could be begun. First whoever has none under way, those who wait longest before the others;
        then who has some, the fewest first, and the slow ones."""
        others_wait = len(self._backlog) > 1
        rest: list[tuple[tuple[bool, int], str]] = []
        begun = False
        for destination in list(self._backlog):
            window = self._windows.get(destination)
            turn = _turn(window)
            if turn > _FIRST:
                if not (others_wait and window is not None and window.pace is Pace.NEW):
                    rest.append((turn, destination))
            elif self._start(destination, now, others_wait):
                begun = self._has_begun = True
                if not self._has_room:
                    return True
        rest.sort(key=itemgetter(0))
        for _, destination in rest:
            if self._start(destination, now, others_wait):
                begun = self._has_begun = True
                if not self._has_room:
                    return True
        return begun

    @property
    def _has_room(self) -> bool:
        # Where the queue is behind, the next settlement makes room.
        return self._may_claim > 0 and any(couriers.has_room for couriers in self._couriers.values())

    @property
    def _may_claim(self) -> int:
        """What the queue can settle in time. A courier that only waits for its hop brings nothing to settle yet."""
        waiting = sum(couriers.lingering for couriers in self._couriers.values())
        return self._outstanding.room_beside(waiting)

    def _start(self, destination: str, now: float, others_wait: bool) -> bool:
        couriers = self._couriers[destination.partition(":")[0] in LOCAL]
        window = self._windows.get(destination)
        if window is not None and window.is_closed(now):
            self._put_off(destination, window, now)
            return True
        pace = Pace.NEW if window is None else window.pace
        if not couriers.room(pace):
            return False
        window = window or self._windows[destination]
        terms = self._terms_of(destination)
        window.allow(terms.concurrency)
        interval = terms.interval
        if now < self._starts.get(destination, 0.0) <= now + interval:
            return False
        room = min(window.room(now), couriers.room(pace))
        if others_wait:
            most = 1 if pace is Pace.NEW else max(1, couriers.active // 4)
            room = min(room, most - window.busy, 1 if pace is Pace.SLOW else room)
        if room <= 0:
            return False
        if interval:
            room, most = 1, 1
            if len(self._starts) >= MAX_WINDOWS:
                self._starts = {name: at for name, at in self._starts.items() if at > now}
            self._starts[destination] = now + interval
        else:
            waiting = self._backlog[destination]
            # One at a time for those who are not known to be quick: a courier is not theirs for ten time-outs.
            batch = max(1, min(BATCH, waiting // room)) if pace is Pace.QUICK else 1
            most = min(waiting, room * batch)
        most = min(most, self._may_claim)
        parcels = self._queue.claim(destination, most, now, LEASE)
        self._outstanding.claimed(len(parcels))
        if len(parcels) < most or len(parcels) >= self._backlog[destination]:
            del self._backlog[destination]
        else:
            self._backlog[destination] -= len(parcels)
        share = -(-len(parcels) // room) or 1
        for at in range(0, len(parcels), share):
            self._send(destination, parcels[at : at + share], window, couriers, now)
        return True

    def _send(self, destination: str, parcels: list[Parcel], window: Window, couriers: Couriers, now: float) -> None:
        round = Round(destination, parcels, len(parcels))
        agent = self._agents.get(destination.partition(":")[0], _NO_AGENT)
        self._rounds.add(round)
        couriers.send(round, window, now, partial(carry, round, agent, self._queue, self._letters, self._clock))

    def _put_off(self, destination: str, window: Window, now: float) -> None:
        """The destination is closed: what is due there learns that untried, and may expire, as others' turn comes."""
        most = min(PUT_OFF, self._may_claim)
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
            self._came_back.append((parcel, outcomes))
        self._record(now)

    # Settling

    def _settle(self, letters: Sequence[Letter | Wake], now: float) -> None:
        for letter in letters:
            if isinstance(letter, Wake):
                known = self._windows.get(letter.destination)
                if known is not None:
                    known.went_well()
                continue
            self._hear(letter, now)
            if letter.outcomes:
                self._came_back.append((letter.parcel, letter.outcomes))
            else:
                self._given_back.append(letter.parcel)
        self._record(now)

    def _make_final(self, now: float) -> None:
        """What came back becomes settlements. The queue is asked for that; what it can't answer for waits."""
        came_back, self._came_back = self._came_back, []
        for parcel, outcomes in came_back:
            try:
                settlement = self._settling.settlement(parcel, outcomes, now)
            except Exception as error:
                log.error("d-%s: what came of it can't be settled yet: %s", parcel.message_id, error)
                self._came_back.append((parcel, outcomes))
                continue
            self._is_stale |= bool(settlement.new_mail)
            self._unsettled.append(settlement)

    def _record(self, now: float) -> None:
        """Outcomes and what was given back into the queue; what it can't take now is tried with the next ones."""
        self._make_final(now)
        if self._unsettled:
            self._record_outcomes(now)
        while self._given_back:
            self._queue.release(self._given_back[-1], now)
            self._given_back.pop()
            self._outstanding.given_back(1)
            self._is_stale = True

    def _record_outcomes(self, now: float) -> None:
        kept = self._outstanding.settle(self._queue, self._unsettled, now)
        for settlement, is_kept in zip(self._unsettled, kept, strict=True):
            if not is_kept:
                log.warning("d-%s: the claim was lost before its outcome came", settlement.parcel.message_id)
        self._unsettled = []

    def _hear(self, letter: Letter, now: float) -> None:
        """What a letter says of couriers and destination."""
        round = letter.round
        window = self._windows[round.destination]
        couriers = self._couriers[round.destination.partition(":")[0] in LOCAL]
        round.left -= 1
        if round.left == 0:
            self._rounds.discard(round)
            couriers.ended(round, window)
        else:
            couriers.heard(round, now)
        if letter.seconds >= 0:
            window.took(letter.seconds, letter.parcel.size)
        if letter.outcomes:
            self._teach(window, letter.outcomes, now)

    @staticmethod
    def _teach(window: Window, outcomes: Sequence[Outcome], now: float) -> None:
        trouble = next(
            (o for o in outcomes if o.result is Result.DEFERRED and o.scope in ("host", "destination")), None
        )
        if trouble is None:
            window.went_well()
        else:
            window.had_trouble(now, " ".join(part for part in (trouble.enhanced, trouble.text) if part)[:400])

    def _extend(self, now: float) -> None:
        self._extend_at = now + LEASE / 3
        for round in self._rounds:
            for parcel in round.parcels:
                self._queue.extend(parcel, now, LEASE)


def _turn(window: Window | None) -> tuple[bool, int]:
    """Who comes first: the lower."""
    return _FIRST if window is None else (window.pace is Pace.SLOW, window.busy)


_FIRST = (False, 0)
_NO_AGENT = MissingAgent()
