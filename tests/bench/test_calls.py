"""What a message costs in calls: counts, the same on a busy machine, for what the hot path is said to leave out.

Those of the system come from strace, those of Python from a profile of the server's threads.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from smtpd_core import SmtpServer
from tests.bench.calls import FREE, JOBS, Options, calls, main, order, trace, trace_of_one
from tests.bench.crowd import read_reply
from tests.bench.letters import content, on_the_wire
from tests.bench.rates import scratch, serving
from tests.bench.targets import TARGETS, NotInstalled

ENVELOPE = (b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n", b"DATA\r\n")
LETTER = on_the_wire(content(1024))


class Counted:
    """A server and one client of it. The calls that its threads make are counted while `is_on`.
    Thread: counts from the server's, everything else from the test's; adding to a Counter of one's own thread.
    """

    def __init__(self, server: SmtpServer) -> None:
        self.server = server
        self.is_on = False
        self.found: dict[str, Counter[str]] = {}

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.is_on and event == "call":
            mine = self.found.setdefault(threading.current_thread().name, Counter())
            mine[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    def calls(self, letter: bytes, messages: int = 20) -> dict[str, Counter[str]]:
        """By thread, what `messages` of them cost on a connection that is kept."""
        self.found.clear()
        with socket.create_connection(self.server.address) as sock:
            read_reply(sock)
            for words in (b"HELO a.test\r\n", *5 * (*ENVELOPE, letter)):
                sock.sendall(words)
                read_reply(sock)
            self.is_on = True
            for words in messages * (*ENVELOPE, letter):
                sock.sendall(words)
                read_reply(sock)
            self.is_on = False
        return self.found


@pytest.fixture
def counted() -> Iterator[Counted]:
    server = SmtpServer(port=0)
    server.on_message_received = lambda session, message: None
    found = Counted(server)
    threading.setprofile(found.note)
    try:
        with server:
            yield found
    finally:
        threading.setprofile(None)


Shares = tuple[Counter[str], int]


def shares(counted: Counted, letter: bytes) -> Shares:
    """The calls of the thread that did most, and how many of the dialogue's others made. Of several tries the least: on
    a busy machine a leader that is kept from its processor looks like one that blocks, and another goes on."""
    tries: list[Shares] = []
    while len(tries) < 20 and not any(others == 0 for _, others in tries):
        found = dict(counted.calls(letter))
        leading = max(found, key=lambda name: found[name].total())
        most = found.pop(leading)
        others = sum(count for one in found.values() for name, count in one.items() if "/dialogue.py:" in name)
        tries.append((most, others))
    return min(tries, key=lambda one: one[1])


def test_neither_lines_nor_octets_cost_a_call(counted: Counted) -> None:
    """As long as they come in one piece: 13 lines, 330 lines, and thirty times as many octets."""
    lines = b"Subject: lines\r\n\r\n" + 330 * b"x\r\n" + b".\r\n"
    dotted = b"Subject: dots\r\n\r\n" + 250 * b"..\r\n" + b".\r\n"
    found = [shares(counted, one)[0].total() for one in (LETTER, lines, dotted, on_the_wire(content(30_000)))]
    assert max(found) - min(found) < 60, found  # three a message


def test_one_thread_runs_while_hooks_do_not_block(counted: Counted) -> None:
    """So the interpreter lock is handed to nobody, but for looks by the clock whether it blocks."""
    most, others = shares(counted, LETTER)
    assert most.total() > 0 == others


def test_nobody_who_listens_is_nobody_who_is_called(counted: Counted) -> None:
    """Logging at its default level, the hooks that are not set and the observers that are not there."""
    called = "\n".join(shares(counted, LETTER)[0])
    assert "dialogue.py" in called
    for left_out in ("/logging/", "/server/observers.py", "/server/hooks.py"):
        assert left_out not in called


def test_a_message_costs_no_more_calls_than_it_did(counted: Counted) -> None:
    """194 of Python functions; what adds to them has to be worth it."""
    assert 100 < shares(counted, LETTER)[0].total() / 20 < 215


ALLOWED = {
    "W1": {"sendto": 7, "recvfrom": 6, "accept4": 2, "close": 1, "epoll_ctl": 2, "getsockname": 1, "epoll_wait": 7},
    "W2": {"sendto": 4, "recvfrom": 4, "epoll_wait": 4},
    "W6": {"sendto": 2, "recvfrom": 2, "epoll_wait": 2},
}


@pytest.mark.debian("strace")
@pytest.mark.parametrize("workload", list(JOBS))
def test_a_message_costs_one_receive_and_one_send_a_group_and_little_else(workload: str) -> None:
    """Locks are left out: the thread that watches for a leader that blocks looks by the clock, not by the message."""
    found = calls(next(one for one in TARGETS if one.name == "smtpd_core"), JOBS[workload])
    too_many = {
        name: count
        for name, count in found.items()
        if name not in ("futex", "restart_syscall") and count > ALLOWED[workload].get(name, 0) + 0.2
    }
    assert found["sendto"] > 1.9
    assert not too_many


def synced(sessions: int) -> float:
    """How often a message has the store sync, its spool and the intake behind it together."""
    target = next(one for one in TARGETS if one.name == "smtpd_core durable")
    with scratch() as folder, serving(target, folder, FREE) as running:
        job: Options = {"messages": 300, "sessions": sessions, "size": 4096, "per_connection": 0}
        return len(re.findall(r"sync\(", trace(running, target, job, "-e", "trace=fsync,fdatasync"))) / 300


@pytest.mark.debian("strace")
def test_sessions_share_the_syncs_of_spool_and_intake() -> None:
    """How many share one depends on how the threads are scheduled; that they share does not."""
    alone, together = synced(1), synced(20)
    assert alone >= 1
    assert together < 0.9


@pytest.mark.debian("strace")
def test_the_table_of_system_calls_can_be_had_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smtpd_core", "--workloads", "W2"]) == 0
    head, found = capsys.readouterr().out.splitlines()
    assert head.split() == ["send", "receive", "poll", "locks", "others", "all"]
    assert found.startswith("W2  smtpd_core                4.0      4.0 ")


@pytest.mark.debian("strace")
@pytest.mark.parametrize(
    ("name", "is_synced"),
    [
        ("smtpd_core durable", True),
        ("smtpd_core daemon", True),
        ("aiosmtpd fsync", True),
        ("Postfix", True),
        ("Exim", True),
        ("OpenSMTPD", False),
    ],
)
def test_who_syncs_between_the_content_and_the_promise_is_as_the_page_says(name: str, is_synced: bool) -> None:
    target = next(one for one in TARGETS if one.name == name)
    with scratch() as folder:
        try:
            steps = order(trace_of_one(target, folder))
        except NotInstalled:
            pytest.skip(f"{name} is not installed")
    after = steps[steps.index("content") + 1 :]
    assert ("sync" in after[: after.index("promise")]) is is_synced, steps
