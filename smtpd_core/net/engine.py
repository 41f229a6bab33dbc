"""The engine: listeners, one reactor, its threads; what the server floor starts and stops.

    engine = Engine([Door(ListenerSettings(bind="127.0.0.1:0"))], open_conversation)
    engine.start()            binds in the caller's thread, so that errors raise here; OSError or ValueError
    engine.addresses          the real ones, [("127.0.0.1", 40123)]; a unix socket's is its path
    engine.stop(timeout)      idle sessions hear 421, others finish until the deadline; True when all has ended

Rule: an engine is used once. To start again make another one, which may be given the same Door and Guard objects.
Thread: every method from any thread, hooks included. stop() from a hook does not wait, since it would wait for itself.
Not here: when the interpreter exits or forks (embedding.py), several processes (app/processes.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smtpd_core.net import embedding
from smtpd_core.net.conversation import Conversation
from smtpd_core.net.guard import Guard
from smtpd_core.net.house import House, OpenConversation
from smtpd_core.net.listeners import Listener, bind, inherited_descriptors
from smtpd_core.net.poller import Poller, best_poller
from smtpd_core.net.reactor import Reactor
from smtpd_core.net.settings import Door, Timeouts
from smtpd_core.threads import Lock, ThreadPool

# At exit: the time for sessions to hear 421. Hooks that run longer are cut off with their threads.
_LEAVE = 1.0

_A_MOMENT = 0.25

_NEW, _RUNNING, _STOPPING, _STOPPED, _FORKED = range(5)


@dataclass(frozen=True, slots=True)
class Figures:
    """`waiting` sessions are in line for a thread; `waited` have been, for `waited_seconds` together.

    `deposed` leaders stalled unannounced, `stepped_down` ones knew that their hook is slow."""

    connections: int
    refused: int
    threads: int
    hooks_running: int
    stepped_down: int
    deposed: int
    waiting: int
    waited: int
    waited_seconds: float
    waited_longest: float


class Engine:
    """See the module.

    `open_conversation(peer, listener, session_id)` makes the conversation of a new connection, in its first turn.
    It must not block; what it raises closes the connection.
    `listeners`: sockets that are bound already (a master's, for its children); then nothing is bound here.
    """

    def __init__(
        self,
        doors: Sequence[Door],
        open_conversation: OpenConversation,
        *,
        timeouts: Timeouts | None = None,
        guard: Guard | None = None,
        min_threads: int = 2,
        max_threads: int = 32,
        batch_size: int = 65_536,
        name: str = "smtpd",
        listeners: Sequence[Listener] = (),
        make_poller: Callable[[], Poller] = best_poller,
    ) -> None:
        self._doors = list(doors)
        self.guard = guard if guard is not None else Guard()
        self.pool = ThreadPool(min_threads, max_threads, name)
        self._house = House(open_conversation, timeouts or Timeouts(), self.guard, batch_size)
        self._make_poller = make_poller
        self._given = list(listeners)
        self._listeners: list[Listener] = []
        self._reactor: Reactor | None = None
        self._lock = Lock()
        self._state = _NEW

    # -- life

    def start(self) -> None:
        """Bind, then let the threads run. Where anything fails, nothing is left behind."""
        with self._lock:
            if self._state != _NEW:
                raise RuntimeError("this engine was started already" if self._state == _RUNNING else "it was stopped")
            listeners = self._given or self._bind_all()
            poller = self._make_poller()
            self._listeners = listeners
            # Ids stay unique across restarts and processes without coordination.
            flow = f"s-{time.time_ns() // 1000 & 0xFFFFFFFFFFF:011x}{os.getpid() & 0xFFFF:04x}-"
            self._reactor = Reactor(self._house, self.pool, poller, listeners, flow)
            try:
                self._reactor.accepting.resume()
                self.pool.serve(self._reactor)
            except BaseException:
                self._state = _STOPPED
                for listener in listeners:
                    listener.close()
                poller.close()
                self.pool.stop(0)
                raise
            self._state = _RUNNING
        embedding.embed(self)

    def stop(self, timeout: float | None = 30.0) -> bool:
        """No new connections; sessions end as they can until `timeout` seconds have passed, then all is closed.

        Idempotent: a second call waits with the first, and a shorter timeout counts. True when everything has ended;
        False where a hook still runs, whose thread ends after it (always False from within a hook)."""
        with self._lock:
            if self._state in (_NEW, _STOPPED, _FORKED):
                if self._state == _NEW:
                    self._state = _STOPPED
                return True
            self._state = _STOPPING
            reactor = self._reactor
        assert reactor is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        reactor.mailbox.put(lambda: reactor.begin_stop(deadline))
        if self.pool.is_mine():
            reactor.finished.watch(lambda _: self._end_from_within())
            return False
        has_finished = reactor.finished.wait(None if timeout is None else timeout + 2.0)
        # Where all sessions have ended the threads are idle and end as soon as they run; one in a hook has used up
        # the time, gets a moment more, and is left to itself.
        has_ended = self.pool.stop(None if deadline is None else max(_A_MOMENT, deadline - time.monotonic()))
        self._end()
        return has_finished and has_ended

    def _end_from_within(self) -> None:
        self.pool.stop(0)
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._state = _STOPPED
        embedding.release(self)

    def leave(self) -> None:
        """The interpreter shuts down: stop within a second, with the threads that there are."""
        self.pool.shut_recruiting()
        self.stop(_LEAVE)

    def abandon(self) -> None:
        """In the child after a fork: inactive, with its descriptors closed; no lock is waited for."""
        self._lock = Lock()
        self._state = _FORKED
        self.pool.abandon()
        self.guard.abandon()
        for listener in self._listeners:
            listener.close(remove_path=False)
        if self._reactor is not None:
            self._reactor.abandon()

    def pause(self) -> None:
        """Take no newcomers; they wait in the system's backlog. Sessions go on."""
        self._post(lambda reactor: reactor.accepting.pause(True))

    def resume(self) -> None:
        self._post(lambda reactor: reactor.accepting.pause(False))

    def resize(self, min_threads: int, max_threads: int) -> None:
        """New thread counts, also while running."""
        self.pool.resize(min_threads, max_threads)

    def change_timeouts(self, timeouts: Timeouts) -> None:
        """Other deadlines, also while running: for every wait that begins from then on. The deadline of a whole
        session is that of its beginning."""
        self._house.timeouts = timeouts
        self._post(lambda reactor: reactor.take_timeouts(timeouts))

    def exchange(self, doors: Sequence[Door]) -> None:
        """Other doors for the sockets that are bound, in their order: for connections from then on."""
        for listener, door in zip(self._listeners, doors, strict=True):
            listener.belong_to(door)

    # -- facts

    @property
    def is_running(self) -> bool:
        return self._state == _RUNNING

    @property
    def is_stopping(self) -> bool:
        return self._state == _STOPPING

    @property
    def listeners(self) -> list[Listener]:
        return list(self._listeners)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where it listens, in the order of the doors, from start() on."""
        return [listener.address for listener in self._listeners]

    @property
    def conversations(self) -> list[Conversation]:
        """The sessions that are open now; a snapshot."""
        reactor = self._reactor
        if reactor is None:
            return []
        open_now = [connection.conversation for connection in list(reactor.connections)]
        return [conversation for conversation in open_now if conversation is not None]

    @property
    def connection_count(self) -> int:
        return 0 if self._reactor is None else len(self._reactor.connections)

    @property
    def figures(self) -> Figures:
        """What the engine counts; a snapshot."""
        pool = self.pool
        waiting = self._reactor.waiting if self._reactor is not None else None
        return Figures(
            connections=self.connection_count,
            refused=self.guard.refused,
            threads=pool.thread_count,
            hooks_running=pool.slots_held,
            stepped_down=pool.stepped_down,
            deposed=pool.deposed,
            waiting=waiting.count if waiting else 0,
            waited=waiting.waited if waiting else 0,
            waited_seconds=waiting.seconds if waiting else 0.0,
            waited_longest=waiting.longest if waiting else 0.0,
        )

    # -- parts

    def _bind_all(self) -> list[Listener]:
        inherited = inherited_descriptors(os.environ, os.getpid())
        listeners: list[Listener] = []
        try:
            for door in self._doors:
                if door.settings.tls != "none" and not door.has_tls:
                    raise ValueError(f"listener {door.settings.bind}: tls {door.settings.tls} needs a certificate")
                listeners.extend(bind(door, inherited))
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    def _post(self, act: Callable[[Reactor], None]) -> None:
        reactor = self._reactor
        if reactor is not None:
            reactor.mailbox.put(lambda: act(reactor))
