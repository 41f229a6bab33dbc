"""Every interleaving of the thread bookkeeping: three threads, three connections, each lock section one step.

The real Books and the real PollMailbox are driven. What stands around them here is only the order of calls in
ThreadPool._work, Turn and Reactor.lead, with the reactor's lists as plain lists.

Whatever the order of steps: there is exactly one leader, no connection has two owners, none is forgotten, hooks never
exceed the slots, threads never exceed slots plus one, and no wake-up is lost (no state without a next step in which
work is left).
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import pytest

from smtpd_core.threads import books as books_module
from smtpd_core.threads.books import END, FOLLOW, LEAD, Books, Worker
from smtpd_core.threads.mailbox import PollMailbox
from smtpd_core.threads.meter import HookMeter, Share


class NoLock:
    """One step at a time: nothing to exclude."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@dataclass(frozen=True)
class Visit:
    """What one connection does in each of its turns."""

    hook: str = ""  # "" none, "slow" (steps down), "quick" (inline; it may stall)
    until: int = -1  # the hook returns only after this connection has had its turns
    turns: int = 1
    login: bool = False


@dataclass
class Thread:
    """One thread's place in the program: what it does next, and with which connection."""

    worker: Worker
    at: str
    connection: int = -1
    wish: str = ""
    todo: list = field(default_factory=list)  # pokes still to be sent


class World:
    visits: list[Visit] = []  # noqa: RUF012 (of the walk under way; not part of a state, since it never changes)

    def __init__(self, visits, minimum, maximum):
        share = Share(0.5)
        World.visits = visits
        self.meters = [HookMeter(f"h{n}", share=share if visit.login else None) for n, visit in enumerate(visits)]
        for meter, visit in zip(self.meters, visits, strict=True):
            meter.always_slow = visit.hook == "slow"
        self.threads: list[Thread] = []
        self.left = [visit.turns for visit in visits]
        self.away = list(range(len(visits)))  # parked, and bytes have not come yet
        self.arrived: list[int] = []  # parked, the poll would report it
        self.ready: list[int] = []
        self.lines: dict[bool, list[int]] = {False: [], True: []}
        self.bell = False
        self.token = False  # the sentinel's gate
        self.asleep_for_ever = False
        self.recruited = 0
        self.mailbox = PollMailbox(self.ring)
        self.mailbox._lock = NoLock()
        self.books = Books(minimum, maximum, self.recruit, NoLock())
        self.post, successor = self.books.open(self)
        self.install(successor)

    # what the books and the mailbox call

    def recruit(self):
        self.recruited += 1
        return Worker(f"w{self.recruited}")

    def ring(self):
        self.bell = True

    def poke(self):
        self.mailbox.poke()

    # steps

    def install(self, successor):
        if successor.is_new:
            self.threads.append(Thread(successor.worker, "lead"))
        else:
            thread = next(t for t in self.threads if t.worker is successor.worker)
            assert thread.at == "gate", "only a follower is woken"
            thread.at = "lead"

    def steps(self):
        """The names of all steps possible now."""
        possible = [f"t{n}" for n, thread in enumerate(self.threads) if self.can_go(thread)]
        # Of connections that are alike the first one comes first: the others' orders are the same with other names.
        coming = {(self.visits[c], self.left[c]): c for c in sorted(self.away, reverse=True) if self.left[c]}
        possible += [f"arrive{c}" for c in coming.values()]
        if not self.asleep_for_ever or self.token:
            possible.append("sentinel")
        return possible

    def can_go(self, thread):
        if thread.at == "poll":
            return self.bell or bool(self.arrived)
        if thread.at == "hook":
            until = self.visits[thread.connection].until
            return until < 0 or self.left[until] == 0
        return thread.at != "gate"

    def step(self, name):
        if name.startswith("arrive"):
            connection = int(name[6:])
            self.away.remove(connection)
            self.arrived.append(connection)
        elif name == "sentinel":
            self.token = False
            successors, _, wait = self.books.look(0.0, 1.0)
            self.asleep_for_ever = wait is None
            for successor in successors:
                self.install(successor)
        else:
            thread = self.threads[int(name[1:])]
            getattr(self, f"do_{thread.at}")(thread)

    def do_lead(self, thread):
        if self.ready:
            thread.connection = self.ready.pop(0)
            if self.books.begin(self.post):
                self.token = True
            thread.at = "enter" if self.visits[thread.connection].hook else "end"
            thread.wish = "park"
        else:
            letters = self.mailbox.go_to_sleep()
            self.take(letters)
            thread.wish = "no sleep" if letters else ""
            thread.at = "lines"

    def do_lines(self, thread):
        for line in self.lines.values():
            if line and self.books.has_room(self.post, self.meters[line[0]]):
                self.ready.append(line.pop(0))
        thread.at = "lead" if self.ready or thread.wish else "poll"

    def do_poll(self, thread):
        self.bell = False
        self.ready += self.arrived
        self.arrived = []
        thread.at = "lead"

    def do_enter(self, thread):
        entered, successor = self.books.enter(thread.worker, self.meters[thread.connection], 0.0)
        thread.at = "hook" if entered else "end"
        if not entered:
            thread.wish = "slot"
        if successor is not None:
            self.install(successor)

    def do_hook(self, thread):
        thread.todo = list(self.books.leave(thread.worker, self.meters[thread.connection], 0.0))
        thread.at = "end"

    def do_end(self, thread):
        if thread.todo:
            thread.todo.pop().poke()
            return
        if thread.wish == "park":
            self.left[thread.connection] -= 1
        if self.books.end(thread.worker):
            self.settle(thread.connection, thread.wish)
            thread.connection = -1
            thread.at = "lead"
        else:
            thread.at = "hand_back"

    def do_hand_back(self, thread):
        assert self.mailbox.put((thread.connection, thread.wish))
        thread.connection = -1
        thread.at = "retire"

    def do_retire(self, thread):
        decision, pokes = self.books.retire(thread.worker)
        thread.wish = ""
        for work in pokes:
            work.poke()
        thread.at = {FOLLOW: "gate", LEAD: "lead", END: "ended"}[decision]
        if decision == END:
            self.threads.remove(thread)

    def take(self, letters):
        for connection, wish in letters:
            self.settle(connection, wish)

    def settle(self, connection, wish):
        if wish == "slot":
            self.lines[self.visits[connection].login].append(connection)
        else:
            self.away.append(connection)

    # what must hold in every state

    def check(self):
        books = self.books
        leaders = [worker for worker in books.workers if worker.post is not None]
        assert leaders == [self.post.leader], "exactly one leads"
        assert books.slots_held == sum(worker.has_slot for worker in books.workers) <= books.maximum
        assert sum(thread.at == "hook" for thread in self.threads) <= books.maximum
        assert len(books.workers) <= books.maximum + 1
        owned = self.away + self.arrived + self.ready + self.lines[False] + self.lines[True]
        owned += [connection for connection, _ in self.mailbox._letters]
        owned += [thread.connection for thread in self.threads if thread.connection >= 0]
        assert sorted(owned) == list(range(len(self.visits))), "every connection has exactly one owner"
        for follower in books.followers:
            assert follower.post is None and not follower.has_slot

    def is_done(self):
        return not any(self.left)

    def key(self):
        """Two worlds with the same key go on alike. Counters that only count are left out."""
        books, post = self.books, self.post
        running = post.running != 0
        return (
            # Threads are alike, followers too: what counts is how many are where.
            tuple(
                sorted(
                    (t.at, t.connection, t.wish, len(t.todo), t.worker.has_slot, t.worker.post is not None)
                    for t in self.threads
                )
            ),
            tuple(self.left),
            tuple(sorted(self.away)),
            tuple(self.arrived),
            tuple(self.ready),
            tuple(self.lines[False]),
            tuple(self.lines[True]),
            tuple(self.mailbox._letters),
            self.mailbox._sleeps,
            self.bell,
            self.token,
            self.asleep_for_ever,
            books.sentinel_sleeps,
            books._idle_looks,
            running,
            running and post.running == post.seen,
            post.waits,
        )


def explore(visits, minimum, maximum):
    """Walk every order of steps; the number of states seen."""
    start = World(visits, minimum, maximum)
    seen = {start.key()}
    stack = [pickle.dumps(start)]
    finished = 0
    while stack:
        frozen = stack.pop()
        world = pickle.loads(frozen)
        possible = world.steps()
        useful = [name for name in possible if name != "sentinel"]
        if not useful and world.is_done():
            finished += 1
        if not useful and not world.is_done():
            # Only the sentinel can help; it must, within the looks that it has before it sleeps.
            for _ in range(3):
                if "sentinel" in world.steps():
                    world.step("sentinel")
            assert [n for n in world.steps() if n != "sentinel"], f"stuck: {world.key()}"
            world = pickle.loads(frozen)
        for name in possible:
            after = world if name == possible[-1] else pickle.loads(frozen)
            after.step(name)
            after.check()
            key = after.key()
            if key not in seen:
                seen.add(key)
                stack.append(pickle.dumps(after))
    assert finished, "some order comes to an end"
    return len(seen)


SLOW, QUICK, NONE = Visit("slow"), Visit("quick"), Visit()


@pytest.mark.parametrize(
    "name, visits, minimum, maximum",
    [
        ("three slow hooks", [SLOW, SLOW, SLOW], 1, 2),
        ("three hooks that stall unannounced", [QUICK, QUICK, QUICK], 1, 2),
        ("all slots block until the third is served", [Visit("slow", 2), Visit("slow", 2), NONE], 1, 2),
        ("all slots stall until the third is served", [Visit("quick", 2), Visit("quick", 2), NONE], 1, 2),
        ("one blocks, one stalls, until the third is served", [Visit("slow", 2), Visit("quick", 2), NONE], 0, 2),
        ("one slot for three", [SLOW, QUICK, SLOW], 0, 1),
        ("one slot that stalls until the others are served", [Visit("quick", 1), NONE, NONE], 1, 1),
        ("logins leave a slot to others", [Visit("slow", 2, login=True), Visit("slow", login=True), NONE], 0, 2),
        ("turn after turn", [Visit("slow", turns=2), Visit("quick")], 1, 2),
    ],
)
def test_every_order_of_the_lock_sections_is_safe(name, visits, minimum, maximum, monkeypatch):
    monkeypatch.setattr(books_module, "_IDLE_LOOKS", 1)
    states = explore(visits, minimum, maximum)
    print(f"{name}: {states} states")
    assert states > 50


def test_a_lost_wake_up_would_be_found(monkeypatch):
    """The checker checked: where nobody is poked when a slot is given back, some order gets stuck."""
    monkeypatch.setattr(books_module, "_IDLE_LOOKS", 1)
    monkeypatch.setattr(Books, "_waiting", lambda self: ())
    with pytest.raises(AssertionError, match="stuck"):
        explore([SLOW, QUICK, SLOW], 0, 1)
