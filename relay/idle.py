"""Connections kept for the next message to the same hop: lent to one courier at a time, closed by age, use or rest.

Thread: any courier; expire() from the dispatcher.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from relay.conversation import Conversation
from relay.hop import Hop, Manners
from smtpd_core.threads import Lock


@dataclass(frozen=True, slots=True)
class IdleLimits:
    """Seconds a connection may rest and live, transactions it may carry, and connections kept in all."""

    rest: float = 5.0
    age: float = 300.0
    uses: int = 1000
    kept: int = 100


@dataclass(slots=True)
class _Kept:
    conversation: Conversation
    opened: float
    since: float


class IdleConnections:
    """lend() what is kept, give() back what is still good. The answer to QUIT is not waited for: Exim keeps it back for
    200 ms, others may for longer, and meanwhile the next message, or the outcome of the last one, would wait too."""

    def __init__(self, limits: IdleLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or IdleLimits()
        self._clock = clock
        self._lock = Lock()
        self._kept: dict[tuple[Hop, int], deque[_Kept]] = {}
        self._count = 0

    def lend(self, hop: Hop, manners: Manners) -> Conversation | None:
        """The most recently used connection to this hop in these manners that is still alive, or None."""
        while True:
            with self._lock:
                line = self._kept.get((hop, id(manners)))
                if not line:
                    return None
                kept = line.pop()
                self._count -= 1
            now = self._clock()
            in_time = now - kept.since <= self.limits.rest and now - kept.opened <= self.limits.age
            if in_time and kept.conversation.is_alive():
                return kept.conversation
            kept.conversation.close(wait=False)

    def give(self, conversation: Conversation) -> None:
        """Keep a connection, or close it where it is of no further use."""
        now = self._clock()
        most = conversation.mail_limit() or self.limits.uses
        if conversation.is_broken or conversation.delivered >= min(most, self.limits.uses):
            conversation.close(wait=False)
            return
        with self._lock:
            room = self._count < self.limits.kept
            if room:
                key = conversation.hop, id(conversation.manners)
                self._kept.setdefault(key, deque()).append(_Kept(conversation, conversation.opened, now))
                self._count += 1
        if not room:
            conversation.close(wait=False)

    def expire(self) -> float | None:
        """Close what rested or lived too long; seconds until the next one is due, None where nothing is kept."""
        now = self._clock()
        over: list[Conversation] = []
        soonest: float | None = None
        with self._lock:
            for key in list(self._kept):
                line = self._kept[key]
                while line and (now - line[0].since > self.limits.rest or now - line[0].opened > self.limits.age):
                    over.append(line.popleft().conversation)
                    self._count -= 1
                if not line:
                    del self._kept[key]
                    continue
                left = line[0].since + self.limits.rest - now
                soonest = left if soonest is None else min(soonest, left)
        for conversation in over:
            conversation.close(wait=False)
        return soonest

    def close(self) -> None:
        with self._lock:
            over = [kept.conversation for line in self._kept.values() for kept in line]
            self._kept.clear()
            self._count = 0
        for conversation in over:
            conversation.close(wait=False)
