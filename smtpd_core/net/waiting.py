"""The waiting list: connections whose hook found no slot, first come, first served.

One line for each share of the slots, so that logins that may hold only half of them keep nobody else waiting.
Thread: the reactor's leader, between turns; the figures may be read by any.
Not here: what happens to one that waited too long (reactor.py: 451, the session stays).
"""

from __future__ import annotations

from collections import deque

from smtpd_core.net.connection import Connection
from smtpd_core.threads import Post, Share, ThreadPool


class WaitingList:
    """`count` wait now; `waited` have joined, for `seconds` together, the slowest `longest`."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._lines: dict[Share | None, deque[Connection]] = {}
        self.count = 0
        self.waited = 0
        self.seconds = 0.0
        self.longest = 0.0

    def join(self, connection: Connection, now: float) -> bool:
        """True where it is new; one that was called, and found that another was faster, goes back to the head."""
        line = self._line_of(connection)
        self.count += 1
        if connection.waits_since:
            line.appendleft(connection)
            return False
        connection.waits_since = now
        line.append(connection)
        self.waited += 1
        return True

    def call(self, post: Post, now: float) -> list[Connection]:
        """The head of each line where there is room; they try again.

        Called before every poll, with the mailbox set to ring, so that a slot given back from now on wakes the poll.
        """
        called = []
        for line in self._lines.values():
            if line and self._pool.has_room(post, line[0].wanted):
                called.append(line.popleft())
                self._note(called[-1], now)
        return called

    def leave(self, connection: Connection, now: float) -> None:
        """It waited too long, or the server stops."""
        self._line_of(connection).remove(connection)
        self._note(connection, now)

    def _note(self, connection: Connection, now: float) -> None:
        self.count -= 1
        waited = now - connection.waits_since
        self.seconds += waited
        self.longest = max(self.longest, waited)

    def _line_of(self, connection: Connection) -> deque[Connection]:
        wanted = connection.wanted
        return self._lines.setdefault(wanted.share if wanted is not None else None, deque())
