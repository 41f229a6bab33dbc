"""The bookkeeping of the thread pool: who leads, who follows, who holds a slot.

Rule 1: every public method is one lock section; it decides and returns what to do, and the caller does it afterwards.
Rule 2: each reactor has exactly one leader from open() on, vacant only where the system refuses a thread.
Rule 3: a thread that neither leads nor follows holds a slot until it retires. Slots are at most `maximum`, so threads
        are at most `maximum` plus one for each reactor, and one is always left to lead.
Thread: any. tests/threads/test_interleavings.py walks every order of these sections.
Not here: starting, waking and stopping threads (pool.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from smtpd_core.threads.meter import HookMeter

# Looks without a running turn after which the sentinel sleeps until the next turn begins.
_IDLE_LOOKS = 25

# Where the system refused a thread the sentinel deposes nobody for so many looks (a second): the leader that goes on is
# all that there is, and it would come back to a post that a thread which never starts holds.
_REFUSED_LOOKS = 250


class Lead(Protocol):
    """What a pool leads: in practice a reactor of smtpd_core.net."""

    def lead(self, turn: Any, post: Post) -> None:
        """Do the work until the lead is lost or the work is over. Called in the thread that leads."""

    def poke(self) -> None:
        """A slot is free and somebody of this reactor waits for one. From any thread, outside any lock."""


class Post:
    """The place of one leader. `running` is the number of the turn that runs, 0 between turns."""

    __slots__ = ("leader", "number", "running", "seen", "waits", "work")

    def __init__(self, work: Lead) -> None:
        self.work = work
        self.leader: Worker | None = None
        self.number = 0
        self.running = 0
        self.seen = 0
        self.waits = False


class Worker:
    """One thread's line in the books. `post` is the post that it leads, None where it leads nothing."""

    __slots__ = ("entered", "gate", "has_slot", "meter", "name", "post", "reported", "thread", "turn")

    def __init__(self, name: str) -> None:
        self.name = name
        self.post: Post | None = None
        self.has_slot = False
        self.meter: HookMeter | None = None
        self.entered = 0.0
        self.reported = False
        self.gate: Any = None
        self.thread: Any = None
        self.turn: Any = None


class Successor:
    """Who takes the lead: a follower to wake, or a new thread to start."""

    __slots__ = ("is_new", "worker")

    def __init__(self, worker: Worker, is_new: bool) -> None:
        self.worker = worker
        self.is_new = is_new


FOLLOW, LEAD, END = range(3)
Pokes = tuple[Lead, ...]


class Books:
    """See the module. `recruit` makes the line of a new worker, without a thread."""

    def __init__(
        self,
        minimum: int,
        maximum: int,
        recruit: Callable[[], Worker],
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._lock = lock if lock is not None else threading.Lock()
        self._recruit = recruit
        self.minimum = minimum
        self.maximum = maximum
        self.slots_held = 0
        self.posts: list[Post] = []
        self.workers: list[Worker] = []
        self.followers: list[Worker] = []  # last in, first out: the last one's stack is still warm
        self.may_recruit = True
        self.is_stopping = False
        self.sentinel_sleeps = False
        self._idle_looks = 0
        self.refused_looks = 0  # of the sentinel, until it asks for a new thread again
        self.deposed = 0
        self.stepped_down = 0

    # -- the leader's turns

    def begin(self, post: Post) -> bool:
        """A turn begins. True where the sentinel has to be woken."""
        with self._lock:
            post.number += 1
            post.running = post.number
            if self.sentinel_sleeps:
                self.sentinel_sleeps = False
                return True
            return False

    def end(self, worker: Worker) -> bool:
        """The turn is over: do I still lead? If not, post the connection to its reactor and retire()."""
        with self._lock:
            post = worker.post
            if post is None:
                return False
            post.running = 0
            return True

    # -- hooks

    def enter(self, worker: Worker, meter: HookMeter, now: float) -> tuple[bool, Successor | None]:
        """Take a slot for a hook; step down first where the hook is slow. (entered, who is to lead now)."""
        with self._lock:
            share = meter.share
            if share is not None and share.held >= share.limit(self.maximum):
                return False, None
            if not worker.has_slot:
                if self.slots_held >= self.maximum:
                    return False, None
                self.slots_held += 1
                worker.has_slot = True
            if share is not None:
                share.held += 1
            worker.meter = meter
            worker.entered = now
            post = worker.post
            if post is None or not (meter.always_slow or meter.is_slow):
                return True, None
            if not self.followers and not self.may_recruit:
                return True, None  # the interpreter shuts down: a slow hook inline is better than nobody to lead
            self.stepped_down += 1
            return True, self._replace(post, worker)

    def leave(self, worker: Worker, meter: HookMeter, seconds: float) -> Pokes:
        """The hook returned. A leader gives its slot back at once, another thread when it retires."""
        with self._lock:
            meter.note(seconds)
            worker.meter = None
            worker.reported = False
            if meter.share is not None:
                meter.share.held -= 1
            if worker.post is None:
                return self._waiting() if meter.share is not None else ()
            self._give_slot_back(worker)
            return self._waiting()

    def has_room(self, post: Post, meter: HookMeter | None) -> bool:
        """Whether enter() would find a slot now, for the head of a waiting list. Where not, the reactor is poked once
        when one is given back. (Noting that already in enter() lost a wake-up: a leader deposed between entering in
        vain and handing back has a successor that still knows of nobody who waits.)"""
        with self._lock:
            share = meter.share if meter is not None else None
            if self.slots_held < self.maximum and (share is None or share.held < share.limit(self.maximum)):
                return True
            post.waits = True
            return False

    # -- taking and losing the lead

    def open(self, work: Lead) -> tuple[Post, Successor]:
        """A new reactor, with its first leader."""
        with self._lock:
            post = Post(work)
            self.posts.append(post)
            return post, self._appoint(post)

    def retire(self, worker: Worker) -> tuple[int, Pokes]:
        """Nothing left to do for this thread: LEAD a vacant post, FOLLOW at the gate, or END.

        A leader that comes here has finished its reactor, whose post closes.
        """
        with self._lock:
            if worker.post is not None:
                self.posts.remove(worker.post)
                worker.post.leader = None
                worker.post.running = 0
                worker.post = None
            self._give_slot_back(worker)
            pokes = self._waiting()
            for post in self.posts:
                if post.leader is None:
                    post.leader = worker
                    worker.post = post
                    return LEAD, pokes
            if self.is_stopping or len(self.followers) >= self.minimum:
                self.workers.remove(worker)
                return END, pokes
            self.followers.append(worker)
            return FOLLOW, pokes

    def no_thread(self, successor: Worker, worker: Worker | None) -> Post | None:
        """The system refused a thread for `successor`: its post goes to `worker`, which had it, or stays vacant."""
        with self._lock:
            post = successor.post
            self.refused_looks = _REFUSED_LOOKS
            self.workers.remove(successor)
            successor.post = None
            if post is None:
                return None
            post.leader = worker
            if worker is None:
                return post
            worker.post = post
            post.number += 1
            post.running = post.number
            return post

    # -- the sentinel

    def look(self, now: float, every: float) -> tuple[list[Successor], list[Worker], float | None]:
        """Depose every leader whose turn is still the one seen at the last look.

        Returns the successors, the workers whose hook is newly over its budget, and the seconds until the next look
        (None: until a turn begins)."""
        with self._lock:
            self.sentinel_sleeps = False
            successors = []
            is_idle = True
            self.refused_looks = max(0, self.refused_looks - 1)
            for post in self.posts:
                if post.leader is None:
                    is_idle = False  # whoever sleeps now leaves it vacant for ever
                    if self._has_successor():
                        successors.append(self._appoint(post))
                if post.running:
                    is_idle = False
                    if post.running == post.seen:
                        successor = self._depose(post)
                        if successor is not None:
                            successors.append(successor)
                post.seen = post.running
            late = []
            budget_ends: float | None = None
            for worker in self.workers:
                meter = worker.meter
                if meter is None or worker.reported:
                    continue
                ends = worker.entered + meter.budget
                if ends <= now:
                    worker.reported = True
                    meter.over_budget += 1
                    late.append(worker)
                elif budget_ends is None or ends < budget_ends:
                    budget_ends = ends
            self._idle_looks = self._idle_looks + 1 if is_idle else 0
            if self._idle_looks < _IDLE_LOOKS:
                return successors, late, every
            self.sentinel_sleeps = True
            self._idle_looks = 0
            return successors, late, None if budget_ends is None else max(0.0, budget_ends - now)

    def recruit_follower(self) -> Worker | None:
        """A new worker that follows, while fewer than `minimum` do; the caller starts its thread."""
        with self._lock:
            if len(self.followers) >= self.minimum or len(self.workers) > self.maximum or self.is_stopping:
                return None
            worker = self._recruit()
            self.workers.append(worker)
            self.followers.append(worker)
            return worker

    def unfollow(self, worker: Worker) -> None:
        """No thread could be had for this follower."""
        with self._lock:
            if worker in self.followers:
                self.followers.remove(worker)
                self.workers.remove(worker)

    def resize(self, minimum: int, maximum: int) -> tuple[list[Worker], Pokes]:
        """New limits. Returns the followers that are to end, and who may go on now."""
        with self._lock:
            self.minimum = minimum
            self.maximum = maximum
            return self._dismiss(minimum), self._waiting()

    def stop(self) -> list[Worker]:
        """Every thread ends when it retires. Returns the followers, to be woken."""
        with self._lock:
            self.is_stopping = True
            return self._dismiss(0)

    def shut_recruiting(self) -> None:
        """No more threads from now on (the interpreter is shutting down)."""
        with self._lock:
            self.may_recruit = False

    def abandon(self) -> None:
        """In the child after a fork. The only thread there may be one of ours, in the middle of a hook."""
        self._lock = threading.Lock()
        self.is_stopping = True
        self.may_recruit = False
        self.workers = [worker for worker in self.workers if worker.thread is threading.current_thread()]
        self.followers = []
        self.posts = [post for post in self.posts if post.leader in self.workers]

    # -- within the lock

    def _give_slot_back(self, worker: Worker) -> None:
        if worker.has_slot:
            worker.has_slot = False
            self.slots_held -= 1

    def _waiting(self) -> Pokes:
        pokes: Pokes = ()
        for post in self.posts:
            if post.waits:
                post.waits = False
                pokes += (post.work,)
        return pokes

    def _appoint(self, post: Post) -> Successor:
        if self.followers:
            worker, is_new = self.followers.pop(), False
        else:
            worker, is_new = self._recruit(), True
            self.workers.append(worker)
        worker.post = post
        post.leader = worker
        return Successor(worker, is_new)

    def _replace(self, post: Post, worker: Worker) -> Successor:
        worker.post = None
        post.running = 0
        return self._appoint(post)

    def _depose(self, post: Post) -> Successor | None:
        worker = post.leader
        if worker is None or not self._has_successor():
            return None
        if not worker.has_slot:
            if self.slots_held >= self.maximum:
                return None  # rule 3; it is looked at again as soon as a slot is free
            worker.has_slot = True
            self.slots_held += 1
        self.deposed += 1
        return self._replace(post, worker)

    def _has_successor(self) -> bool:
        return bool(self.followers) or (self.may_recruit and not self.refused_looks)

    def _dismiss(self, keep: int) -> list[Worker]:
        dismissed = self.followers[keep:]
        del self.followers[keep:]
        for worker in dismissed:
            self.workers.remove(worker)
        return dismissed
