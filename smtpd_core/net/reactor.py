"""The reactor: polls, accepts, times out and closes; its leader runs the turns of ready connections itself.

Rule 1: all of this happens between turns, in the thread that leads. Others post to the mailbox.
Rule 2: a descriptor is closed only here and after the batch of events, so that no number is reused within a batch.
Rule 3: a descriptor is armed while the reactor owns its connection. Where a connection goes to a thread, a ticket or
        the waiting list it is taken off the poller when the poll first reports it, not before: most are back before
        anything comes, and two system calls for each message are saved.
Thread: lead() in the leader; poke() and mailbox from any.
Not here: what a turn does (connection.py), newcomers (accepting.py), the line for a thread (waiting.py).
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from smtpd_core.net.accepting import Accepting
from smtpd_core.net.connection import Connection
from smtpd_core.net.conversation import Pause, WaitFor
from smtpd_core.net.deadlines import Alarm, Deadlines
from smtpd_core.net.house import House
from smtpd_core.net.listeners import Listener
from smtpd_core.net.poller import READ, Poller
from smtpd_core.net.poller import WRITE as WRITABLE
from smtpd_core.net.settings import Timeouts
from smtpd_core.net.states import (
    CLOSED,
    DONT_WAIT,
    GO_ON,
    GONE,
    IN_TURN,
    LINGER,
    LINGERING,
    NEED_BYTES,
    NEED_SLOT,
    ON_TICKET,
    PARKED,
    PAUSED,
    READY,
    WAITING,
    WRITE,
    Outcome,
)
from smtpd_core.net.waiting import WaitingList
from smtpd_core.threads import PollMailbox, Post, ThreadPool, Ticket, Turn

log = logging.getLogger(__name__)

# A turn that ended in another thread, a ticket that is resolved (with who parked on it), or something for the leader to
# do. A ticket's letter names the ticket: one that comes late must not be taken for the end of a turn.
Letter = Connection | tuple[Connection, Ticket] | Callable[[], None]

# What a refused client may still send before its connection is closed under it.
_LINGER_BYTES = 262_144
_LINGERERS = 1024

# With a hundred uploads under way a NOOP would wait for a turn of each. So these are at the tail of the ready list, and
# after so many seconds of them it is looked whether anybody else has come.
_BULK = 0.002

# After the deadline of stop: for the 421s and the close hooks.
_LAST_WORDS = 0.2


# What a parked connection may wait for.
_WAITS = ("greeting", "handshake", "command", "data", "login", "proxy")


def _limits_of(timeouts: Timeouts) -> dict[str, float]:
    return {name: getattr(timeouts, name) for name in _WAITS}


class Reactor:
    """See the module. Made and started by the engine; `finished` is resolved when it has stopped for good."""

    def __init__(self, house: House, pool: ThreadPool, poller: Poller, listeners: list[Listener], flow: str) -> None:
        self.house = house
        self.pool = pool
        self.poller = poller
        self.mailbox: PollMailbox[Letter] = PollMailbox(poller.ring)
        self.finished = Ticket()
        self.connections: set[Connection] = set()
        self._at: dict[int, Connection | Listener] = {}
        self._ready: deque[Connection] = deque()
        self._bulk: deque[Connection] = deque()  # the tail of the ready list: content, and turns that were long enough
        self.waiting = WaitingList(pool)
        self._lingerers = 0
        self._deadlines = Deadlines()
        self._now = time.monotonic()
        self._limits = _limits_of(house.timeouts)
        self._is_stopping = False
        self._is_over = False
        self._stop_alarm = Alarm(self._halt)
        self.accepting = Accepting(house, poller, self._deadlines, listeners, self._at, self._welcome, flow)
        self._is_halted = False
        self._draining: list[Connection] = []

    def take_timeouts(self, timeouts: Timeouts) -> None:
        """Other deadlines for the waits that begin from now on. Thread: the leader's, by the mailbox."""
        self.house.timeouts = timeouts
        self._limits = _limits_of(timeouts)

    # -- leading

    def lead(self, turn: Turn, post: Post) -> None:
        """Poll and run turns until the lead is lost or the reactor has stopped."""
        begin, end = turn.begin, turn.end
        while not self._is_over:
            for queue, seconds in ((self._ready, 0.0), (self._bulk, _BULK)):
                if not queue:
                    continue
                ends = time.monotonic() + seconds if seconds else 0.0
                for _ in range(len(queue)):
                    connection = queue.popleft()
                    if connection.state != READY:
                        continue
                    connection.state = IN_TURN
                    if begin(post):
                        self.pool.wake_sentinel()
                    after = connection.run(turn)
                    if not end():
                        self._hand_back(connection, after, turn)
                        return
                    self._settle(connection, after)
                    if ends and time.monotonic() >= ends:
                        break
            self._gather(post)

    def poke(self) -> None:
        """A slot is free and somebody waits for one."""
        self.mailbox.poke()

    def _hand_back(self, connection: Connection, after: Outcome, turn: Turn) -> None:
        """From a thread that led when the turn began and does not any more."""
        connection.after = after
        if not self.mailbox.put(connection):  # the reactor is over; nobody else has this connection
            connection.end_alone(turn)

    def _gather(self, post: Post) -> None:
        """Take letters, then poll: for as long as the next deadline allows where there is nothing to do."""
        is_busy = bool(self._ready or self._bulk)
        letters = self.mailbox.take_all() if is_busy else self.mailbox.go_to_sleep()
        if letters:
            self._now = time.monotonic()
            self._open(letters)
        if self.waiting.count:
            for connection in self.waiting.call(post, time.monotonic()):
                self._make_ready(connection)
        if self._is_over:
            return
        is_busy = is_busy or bool(letters or self._ready)
        timeout = 0.0 if is_busy else self._deadlines.wait(time.monotonic())
        events = self.poller.poll(timeout)
        self._now = now = time.monotonic()
        for descriptor, mask in events:
            found = self._at.get(descriptor)
            if isinstance(found, Connection):
                self._rouse(found, mask)
            elif found is not None:
                self.accepting.accept(found, now)
        if self._draining:
            self._drain_all()
        self._open(self.mailbox.take_all())  # also says that the reader is awake, so that nobody rings in vain
        if self._is_over:
            return
        wait = self._deadlines.wait(now)
        if wait == 0.0:
            self._expire(now)

    def _open(self, letters: list[Letter]) -> None:
        for letter in letters:
            if isinstance(letter, Connection):
                self._settle(letter, letter.after)
            elif isinstance(letter, tuple):
                connection, ticket = letter
                if connection.state == ON_TICKET and connection.ticket is ticket:
                    connection.ticket = None
                    self._make_ready(connection)
            else:
                letter()

    def _rouse(self, connection: Connection, mask: int) -> None:
        state = connection.state
        if state == PARKED:
            connection.state = READY
            if mask & ~WRITABLE:
                connection.readable = not connection.unsent
            (self._bulk if connection.phase == "data" else self._ready).append(connection)
        elif state == LINGERING:
            self._draining.append(connection)
        elif state != READY:
            self._disarm(connection)

    def _make_ready(self, connection: Connection) -> None:
        connection.state = READY
        self._ready.append(connection)

    # -- after a turn

    def _settle(self, connection: Connection, after: Outcome) -> None:
        """What a turn wants, done by the leader."""
        if connection.waits_since and after is not NEED_SLOT:
            connection.waits_since = 0.0
        if self._is_halted and after not in (GO_ON, CLOSED, LINGER):
            self._end_now(connection)
            return
        if after is NEED_BYTES:
            self._park(connection)
        elif after is GO_ON:
            connection.state = READY
            if connection.session_due and connection.session_due <= self._now and connection.why != "session":
                connection.late = "session"  # who never pauses is never parked, and deadlines are for the parked
            self._bulk.append(connection)
        elif isinstance(after, WaitFor):
            connection.state = ON_TICKET
            connection.ticket = after.ticket
            self._set_due(connection, self.house.timeouts.ticket)
            after.ticket.post_to(self.mailbox, (connection, after.ticket))
        elif after is WRITE:
            connection.state = PARKED
            self._arm(connection, WRITABLE)
            connection.phase = "send"
            self._set_due(connection, self.house.timeouts.send)
            if connection.session_due and not 0 < connection.due <= connection.session_due:
                connection.due = connection.session_due
                self._deadlines.arm(connection, self._now)
        elif after is CLOSED:
            self._drop(connection)
        elif after is LINGER:
            self._linger(connection)
        elif after is NEED_SLOT:
            connection.state = WAITING
            if self.waiting.join(connection, self._now):
                self._set_due(connection, self.house.timeouts.hook_wait)
        elif isinstance(after, Pause):
            connection.state = PAUSED
            self._set_due(connection, 0.001 if self._is_stopping else after.seconds or 0.001)
        else:
            log.error("%s: a conversation wished %r", connection.session_id, after)
            self._drop(connection)

    def _park(self, connection: Connection) -> None:
        """Wait for bytes, with the deadline of what the conversation waits for."""
        if self._is_stopping and not connection.stop_told:
            self._tell_stop(connection)
            return
        connection.state = PARKED
        if connection.mask != READ:
            self._arm(connection, READ)
        conversation = connection.conversation
        what = conversation.waiting_for if conversation is not None and not connection.stage else connection.waits_for
        now = self._now
        if what == "data":
            if connection.phase != what:
                connection.pace_since = now
                connection.pace_from = connection.received
            elif now - connection.pace_since >= self.house.timeouts.rate_window and not self._keeps_pace(connection):
                self._make_late(connection, "slow")
                return
        elif what == connection.phase and not connection.spoke:
            # Nothing was completed: the deadline stands. One that came during the turn found nobody parked.
            if connection.due and not connection.tick:
                if connection.due <= now:
                    self._time_out(connection, now)
                else:
                    self._deadlines.arm(connection, now)
            return
        connection.phase = what
        connection.spoke = False
        limit = self._limits[what]
        due = now + limit if limit else connection.session_due
        if connection.session_due and connection.session_due < due:
            due = connection.session_due
        connection.due = due
        # An entry that comes at most a second late is not moved: a kept connection costs one entry for each deadline
        # that it reaches, not for each command.
        if due and (not connection.tick or due * 8 + 9 < connection.tick):
            self._deadlines.arm(connection, now)

    def _keeps_pace(self, connection: Connection) -> bool:
        seconds = self._now - connection.pace_since
        came = connection.received - connection.pace_from
        connection.pace_since = self._now
        connection.pace_from = connection.received
        return came >= self.house.timeouts.minimum_rate * seconds

    def _set_due(self, connection: Connection, seconds: float) -> None:
        connection.due = self._now + seconds if seconds else 0.0
        if connection.due:
            self._deadlines.arm(connection, self._now)

    def _arm(self, connection: Connection, mask: int) -> None:
        if connection.mask:
            if connection.mask != mask:
                self.poller.change(connection.fd, mask)
        else:
            try:
                self.poller.add(connection.fd, mask)
            except OSError as error:  # the system watches no more descriptors for us
                log.error("%s: the connection can't be watched: %s", connection.session_id, error)
                self._drop(connection)
                return
        connection.mask = mask

    def _disarm(self, connection: Connection) -> None:
        if connection.mask:
            self.poller.remove(connection.fd)
            connection.mask = 0

    # -- deadlines

    def _expire(self, now: float) -> None:
        for timed in self._deadlines.overdue(now):
            if isinstance(timed, Alarm):
                timed.act()
            else:
                self._time_out(cast(Connection, timed), now)

    def _time_out(self, connection: Connection, now: float) -> None:
        state = connection.state
        if state == PARKED:
            session_is_over = connection.session_due and connection.session_due <= now
            if connection.phase == "send":
                self._make_late(connection, "send")
            else:
                self._make_late(connection, "session" if session_is_over else connection.phase)
        elif state == PAUSED:
            connection.readable = True  # what came meanwhile is an early talker's, or the next command
            self._make_ready(connection)
        elif state == WAITING:
            self.waiting.leave(connection, now)
            self._make_late(connection, "slot")
        elif state == ON_TICKET:
            if connection.ticket is not None and connection.ticket.withdraw():
                connection.ticket = None
                self._make_late(connection, "ticket")
        elif state == LINGERING:
            self._drop(connection)

    def _make_late(self, connection: Connection, what: str) -> None:
        connection.late = what
        self._make_ready(connection)

    # -- the life of a connection here

    def _welcome(self, connection: Connection) -> None:
        self.connections.add(connection)
        self._at[connection.fd] = connection
        self._ready.append(connection)

    def _drop(self, connection: Connection) -> None:
        """Close for good."""
        if connection.state == LINGERING:
            self._lingerers -= 1
        connection.state = GONE
        connection.due = 0.0
        self._deadlines.forget(connection)
        self._disarm(connection)
        self._at.pop(connection.fd, None)
        connection.socket.close()
        self._forget(connection)
        self.accepting.descriptor_is_free()
        if self._is_stopping and not self._at:
            self._finish()

    def _forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            self.house.guard.release(connection.counted_as)

    def _linger(self, connection: Connection) -> None:
        """Our side is closed; what the client still sends is read and dropped, so that no RST destroys the reply."""
        if self._lingerers >= _LINGERERS or self._is_stopping:
            self._drop(connection)
            return
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)
            return
        self._lingerers += 1
        connection.state = LINGERING
        connection.received = 0
        self._forget(connection)
        self._arm(connection, READ)
        self._set_due(connection, self.house.timeouts.linger)

    def _drain_all(self) -> None:
        draining, self._draining = self._draining, []
        for connection in draining:
            try:
                data = connection.socket.recv(65_536, DONT_WAIT)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            connection.received += len(data)
            if not data or connection.received > _LINGER_BYTES:
                self._drop(connection)

    # -- stopping; all by letters from the engine

    def begin_stop(self, deadline: float | None) -> None:
        """Close the listeners; idle sessions say 421, others finish until `deadline` (monotonic; None: for ever)."""
        if self._is_stopping:
            if deadline is not None and (not self._stop_alarm.due or deadline < self._stop_alarm.due):
                self._set_stop_alarm(deadline)
            return
        self._is_stopping = True
        self.accepting.close()
        if deadline is not None:
            self._set_stop_alarm(deadline)
        for connection in list(self.connections):
            if connection.state == PARKED and connection.phase != "send" and not connection.stop_told:
                self._tell_stop(connection)
            elif connection.state == PAUSED:
                self._time_out(connection, self._now)  # a stop does not wait for a delay that punishes
        if not self._at:
            self._finish()

    def _set_stop_alarm(self, deadline: float) -> None:
        self._stop_alarm.due = deadline
        self._deadlines.arm(self._stop_alarm, self._now)

    def _tell_stop(self, connection: Connection) -> None:
        connection.stop_told = True
        self._make_late(connection, "stop")

    def _halt(self) -> None:
        """The deadline of stop: whoever can still be told is told, then all is closed."""
        if self._is_halted:
            self._finish()
            return
        self._is_halted = True
        for found in list(self._at.values()):
            if isinstance(found, Connection):
                self._halt_one(found)
        self._set_stop_alarm(self._now + _LAST_WORDS)
        if not self._at:
            self._finish()

    def _halt_one(self, connection: Connection) -> None:
        state = connection.state
        if state == LINGERING:
            self._drop(connection)
        elif state == IN_TURN:
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)  # its thread alone may touch the rest
            except OSError:
                pass  # the client was faster
        elif state == READY:
            connection.late = "send" if connection.unsent else "halt"
        else:
            if state == WAITING:
                self.waiting.leave(connection, self._now)
            elif state == ON_TICKET and connection.ticket is not None:
                connection.ticket.withdraw()
                connection.ticket = None
            self._make_late(connection, "send" if connection.unsent else "halt")

    def abandon(self) -> None:
        """In the child after a fork: close what is the parent's, and never lead again."""
        self._is_over = True
        self.mailbox.abandon()
        self.finished = Ticket()
        self.finished.resolve()
        for found in list(self._at.values()):
            found.socket.close()
        self._at.clear()
        self.connections.clear()
        self.poller.close()

    def _end_now(self, connection: Connection) -> None:
        """After the deadline of stop nothing is waited for but the close hook, and that only if it finds a slot."""
        if connection.is_closing:
            self._drop(connection)
        else:
            connection.is_closing = True
            self._make_ready(connection)

    def _finish(self) -> None:
        """Nothing is left, or the deadline has passed. Threads in a hook close their connections themselves."""
        self._is_over = True
        for found in list(self._at.values()):
            if isinstance(found, Connection):
                self._forget(found)
                if found.state != IN_TURN:
                    found.socket.close()
        self._at.clear()
        for letter in self.mailbox.close():
            if isinstance(letter, Connection):
                letter.socket.close()
        self.poller.close()
        self.finished.resolve()
