"""The thread pool, leader and followers: one thread leads each reactor and runs the turns of its connections itself.

Before a hook that is known to be slow the leader steps down: a follower takes the lead and the thread goes on with its
own connection. A leader that stalls unannounced is deposed by the sentinel within milliseconds.
A poller that hands ready connections to workers was half as fast: the interpreter lock rewards one runnable thread.
Thread: ThreadPool from any; a Turn only from the thread whose turn it is.
Not here: who may lead and who gets a slot (books.py), sockets (smtpd_core.net).
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial

from smtpd_core.threads.books import END, FOLLOW, Books, Lead, Pokes, Post, Successor, Worker
from smtpd_core.threads.meter import HookMeter

log = logging.getLogger(__name__)

# The sentinel's look. A leader is deposed after one to two of these.
_LOOK = 0.004

# A reactor whose own code raises again and again must not take the processor while it is reported.
_FAILED = 0.05


class Turn:
    """What a thread shows to the connection whose turn it runs. One per thread.

    `flow_id` is set by the connection, for the watchdog's report. `wanted` is the hook that found no slot.
    `begin(post)` and `end()` enclose each turn of a thread that leads; begin() is True where the pool's sentinel has
    to be woken, end() while the thread still leads.
    """

    __slots__ = ("_books", "_pool", "_worker", "begin", "end", "entered_at", "flow_id", "wanted")

    def __init__(self, pool: ThreadPool, books: Books, worker: Worker) -> None:
        self._pool = pool
        self._books = books
        self._worker = worker
        self.begin = books.begin  # not wrapped: these two are called for every turn
        self.end = partial(books.end, worker)
        self.entered_at = 0.0
        self.flow_id = ""
        self.wanted: HookMeter | None = None

    def enter(self, meter: HookMeter) -> bool:
        """Take a slot for the hook; a slow one makes the thread step down from the lead first. False: no slot."""
        now = time.monotonic()
        entered, successor = self._books.enter(self._worker, meter, now)
        if not entered:
            self.wanted = meter
            return False
        if successor is not None:
            self._pool.install(successor, self._worker)
        self.entered_at = now
        return True

    def leave(self, meter: HookMeter) -> None:
        """Give the slot back and note how long the hook took."""
        pokes = self._books.leave(self._worker, meter, time.monotonic() - self.entered_at)
        for work in pokes:
            work.poke()

    def recover(self) -> None:
        """Leave the hook that was entered and, because of an exception, never left."""
        meter = self._worker.meter
        if meter is not None:
            self.leave(meter)


class ThreadPool:
    """`minimum` idle threads kept ready, `maximum` hooks active at once, for one reactor or several.

    start() may raise RuntimeError where the system refuses the first threads. A pool is used once.
    """

    def __init__(self, minimum: int = 2, maximum: int = 32, name: str = "smtpd") -> None:
        if not maximum >= 1 or not 0 <= minimum <= maximum:
            raise ValueError(f"thread counts: 0 <= min ({minimum}) <= max ({maximum}) and max at least 1")
        self._name = name
        self._numbers = itertools.count(1)
        self._books = Books(minimum, maximum, self._recruit)
        self._sentinel_gate = threading.Lock()
        self._sentinel_gate.acquire()
        self._sentinel: threading.Thread | None = None
        self._is_stopping = False
        self.on_over_budget: Callable[[str, str, str], None] | None = None
        """Called by the watchdog with session, hook and stack; must be quick."""

    # -- life

    def serve(self, work: Lead) -> Post:
        """Give `work` (a reactor) a leader from now until its lead() returns with the lead still held."""
        if self._sentinel is None:
            self._sentinel = threading.Thread(target=self._watch, name=f"{self._name}-sentinel", daemon=True)
            self._sentinel.start()
        post, successor = self._books.open(work)
        if not self.install(successor, None):
            raise RuntimeError("the system refuses a thread to lead the reactor")
        self._fill_up()
        return post

    def stop(self, timeout: float | None) -> bool:
        """Every thread ends as soon as it has nothing to do. True when all have (the caller's own not counted).

        Stop the reactors first. A thread that sits in a hook is waited for until the deadline, then left to itself.
        """
        self._is_stopping = True
        deadline = None if timeout is None else time.monotonic() + timeout
        threads = [worker.thread for worker in list(self._books.workers)]
        for worker in self._books.stop():
            worker.gate.release()
        self.wake_sentinel()
        if self._sentinel is not None:
            threads.append(self._sentinel)
        all_ended = True
        for thread in threads:
            if thread is None or thread is threading.current_thread():
                continue
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            all_ended = all_ended and not thread.is_alive()
        return all_ended

    def resize(self, minimum: int, maximum: int) -> None:
        """New thread counts while running; threads above them end when they have nothing to do."""
        if not maximum >= 1 or not 0 <= minimum <= maximum:
            raise ValueError(f"thread counts: 0 <= min ({minimum}) <= max ({maximum}) and max at least 1")
        dismissed, pokes = self._books.resize(minimum, maximum)
        for worker in dismissed:
            worker.gate.release()
        for work in pokes:
            work.poke()
        if self._books.posts:
            self._fill_up()

    def shut_recruiting(self) -> None:
        """No new threads any more: the interpreter is shutting down."""
        self._books.shut_recruiting()

    def abandon(self) -> None:
        """In the child after a fork: the threads do not exist here, and their locks may be held for ever."""
        self._is_stopping = True
        self._books.abandon()

    # -- facts

    @property
    def minimum(self) -> int:
        return self._books.minimum

    @property
    def maximum(self) -> int:
        return self._books.maximum

    @property
    def thread_count(self) -> int:
        """Threads that lead, follow or run a turn; the sentinel is not counted."""
        return len(self._books.workers)

    @property
    def slots_held(self) -> int:
        return self._books.slots_held

    @property
    def stepped_down(self) -> int:
        """How often a leader gave up the lead before a hook that is known to be slow."""
        return self._books.stepped_down

    @property
    def deposed(self) -> int:
        """How many leaders stalled and were deposed."""
        return self._books.deposed

    def is_mine(self) -> bool:
        """Whether the calling thread belongs to this pool."""
        current = threading.current_thread()
        return any(worker.thread is current for worker in list(self._books.workers))

    def has_room(self, post: Post, meter: HookMeter | None) -> bool:
        """Whether a hook of this meter would find a slot now; if not, the reactor will be poked."""
        return self._books.has_room(post, meter)

    # -- threads

    def _recruit(self) -> Worker:
        worker = Worker(f"{self._name}-{next(self._numbers)}")
        worker.gate = threading.Lock()
        worker.gate.acquire()
        worker.turn = Turn(self, self._books, worker)
        return worker

    def install(self, successor: Successor, former: Worker | None) -> bool:
        """Wake or start the new leader. Where no thread can be had, `former` leads on, or the post stays vacant."""
        worker = successor.worker
        if not successor.is_new:
            worker.gate.release()
            return True
        try:
            self._start(worker, False)
        except RuntimeError:
            log.error("no thread can be started to lead; %d are alive", len(self._books.workers) - 1)
            self._books.no_thread(worker, former)
            return False
        return True

    def _start(self, worker: Worker, follows: bool) -> None:
        worker.thread = threading.Thread(target=self._work, args=(worker, follows), name=worker.name, daemon=True)
        worker.thread.start()

    def _fill_up(self) -> None:
        while (worker := self._books.recruit_follower()) is not None:
            try:
                self._start(worker, True)
            except RuntimeError:
                log.warning("no thread can be started to follow")
                self._books.unfollow(worker)
                return

    def _work(self, worker: Worker, follows: bool) -> None:
        while True:
            if follows:
                worker.gate.acquire()
            post = worker.post
            if post is None:
                return  # dismissed
            try:
                post.work.lead(worker.turn, post)
            except BaseException:  # a thread of the pool survives whatever a reactor does
                log.critical("a reactor failed and goes on", exc_info=True)
                if self._books.end(worker):
                    time.sleep(_FAILED)
                    follows = False
                    continue
            decision, pokes = self._books.retire(worker)
            _poke(pokes)
            if decision == END:
                return
            follows = decision == FOLLOW

    # -- sentinel and watchdog

    def wake_sentinel(self) -> None:
        try:
            self._sentinel_gate.release()
        except RuntimeError:
            pass  # it was woken already and has not slept since

    def _watch(self) -> None:
        wait: float | None = _LOOK
        while not self._is_stopping:
            self._sentinel_gate.acquire(timeout=-1 if wait is None else wait)
            successors, late, wait = self._books.look(time.monotonic(), _LOOK)
            for successor in successors:
                self.install(successor, None)
            for worker in late:
                self._report(worker)

    def _report(self, worker: Worker) -> None:
        meter, thread = worker.meter, worker.thread
        frame = sys._current_frames().get(thread.ident) if thread is not None else None
        if meter is None or frame is None:
            return  # it returned just now
        stack = "".join(traceback.format_stack(frame))
        flow_id = worker.turn.flow_id
        log.warning("%s: hook %s runs longer than %g s\n%s", flow_id, meter.name, meter.budget, stack)
        if self.on_over_budget is not None:
            self.on_over_budget(flow_id, meter.name, stack)


def _poke(pokes: Pokes) -> None:
    for work in pokes:
        work.poke()
