"""A conversation to drive the engine by real sockets: lines in, lines out.

BLOCK n    a hook that takes n seconds      TICKET     answers when the test resolves `tickets[-1]`
DATA       waiting_for becomes "data"       BIG n      n bytes of answer
PAUSE n    Wish Pause                       SAVE       a login hook (half of the slots)
BYE        answers, then closes             RAISE / EXIT   raises, SystemExit
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from smtpd_core.net import Door, Engine, ListenerSettings, Peer
from smtpd_core.net.conversation import Pause, WaitFor, Wish
from smtpd_core.threads import HookMeter, Share, Ticket


class Club:
    """What all echo conversations of one engine share, and what a test looks at."""

    def __init__(self) -> None:
        self.block = HookMeter("block", budget=30.0)
        self.login = HookMeter("login", share=Share(0.5))
        self.close_hook: HookMeter | None = None
        self.tickets: list[Ticket] = []
        self.closed: list[tuple[str, str]] = []
        self.talks: list[Echo] = []
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.on_block: Callable[[], None] | None = None

    def note(self, change: Callable[[], Any]) -> None:
        with self.changed:
            change()
            self.changed.notify_all()

    def wait_until(self, fact: Callable[[], bool], timeout: float = 20.0) -> None:
        with self.changed:
            assert self.changed.wait_for(fact, timeout), "it did not happen in time"

    def open(self, peer: Peer, listener: ListenerSettings, session_id: str) -> Echo:
        talk = Echo(self, peer, session_id)
        self.note(lambda: self.talks.append(talk))
        return talk


class Echo:
    def __init__(self, club: Club, peer: Peer, session_id: str) -> None:
        self.club = club
        self.peer = peer
        self.session_id = session_id
        self.waiting_for = "greeting"
        self.buffer = b""
        self.output = b""
        self.greeted = False
        self.ended = False
        self.told: list[str] = []
        self.ticket: Ticket | None = None
        self.line: bytes | None = None
        self.content = 0
        self.says_bye = False

    def receive(self, data: bytes) -> None:
        self.buffer += data

    def end_of_input(self, error: BaseException | None) -> None:
        self.ended = True

    def overdue(self, what: str) -> None:
        self.told.append(what)
        self.club.note(lambda: None)
        if what == "slot":
            self.line = None
            self.output += b"451 no slot\n"
        elif what == "ticket":
            self.ticket = None
            self.output += b"451 too late\n"
        else:
            self.output += b"421 " + what.encode() + b"\n"
            self.says_bye = True

    def tls_is_up(self, facts: Any) -> None:
        self.output += b""

    def take_output(self) -> bytes:
        output, self.output = self.output, b""
        return output

    def closed(self, turn: Any, why: str) -> Wish | None:
        if self.club.close_hook is not None:
            if not turn.enter(self.club.close_hook):
                return Wish.NEED_SLOT
            turn.leave(self.club.close_hook)
        self.club.note(lambda: self.club.closed.append((self.session_id, why)))
        return None

    def advance(self, turn: Any) -> Wish | WaitFor | Pause:
        if self.says_bye:
            return Wish.CLOSE
        if not self.greeted:
            self.greeted = True
            self.output += b"220 early\n" if self.buffer else b"220 hello\n"
        if self.ticket is not None:
            outcome = self.ticket.outcome
            self.output += b"451 failed\n" if outcome else b"250 kept\n"
            self.ticket = None
        for _ in range(64):
            if self.line is None:
                head, newline, rest = self.buffer.partition(b"\n")
                if not newline:
                    self.waiting_for = "data" if self.waiting_for == "data" else self.waiting_for
                    return Wish.NEED_BYTES
                self.line, self.buffer = head.rstrip(b"\r"), rest
            wish = self.obey(self.line, turn)
            if wish is Wish.NEED_SLOT:
                return wish
            self.line = None
            if wish is not None:
                return wish
        return Wish.GO_ON

    def obey(self, line: bytes, turn: Any) -> Wish | WaitFor | Pause | None:
        verb, _, rest = line.partition(b" ")
        if self.waiting_for == "data" and line != b".":
            self.content += len(line)
            return None
        self.waiting_for = "command"
        if verb in (b"BLOCK", b"SAVE"):
            meter = self.club.block if verb == b"BLOCK" else self.club.login
            if not turn.enter(meter):
                return Wish.NEED_SLOT
            try:
                self.run_hook(float(rest))
            finally:
                turn.leave(meter)
            self.output += b"250 done\n"
        elif verb == b"TICKET":
            self.ticket = Ticket()
            ticket = self.ticket
            self.club.note(lambda: self.club.tickets.append(ticket))
            return WaitFor(ticket)
        elif verb == b"PAUSE":
            self.output += b"250 paused\n"
            return Pause(float(rest))
        elif verb == b"DATA":
            self.waiting_for = "data"
            self.output += b"354 go\n"
        elif verb == b"BIG":
            self.output += b"x" * int(rest) + b"\n"
        elif verb == b"TLS":
            self.output += b"220 tls\n"
            return Wish.UPGRADE
        elif verb == b"BYE":
            self.output += b"221 bye\n"
            return Wish.CLOSE
        elif verb == b"RAISE":
            raise ValueError("as asked")
        elif verb == b"EXIT":
            turn.enter(self.club.block)
            raise SystemExit
        elif verb == b".":
            self.output += b"250 %d\n" % self.content
        else:
            self.output += b"250 " + line + b"\n"
        return None

    def run_hook(self, seconds: float) -> None:
        club = self.club
        with club.changed:
            club.running += 1
            club.most_running = max(club.most_running, club.running)
            club.changed.notify_all()
        try:
            if club.on_block is not None:
                club.on_block()
            if seconds:
                time.sleep(seconds)  # the hook that blocks
        finally:
            club.note(lambda: setattr(club, "running", club.running - 1))


class Client:
    """A blocking client that reads lines."""

    def __init__(self, address: Any, greets: bool = True) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")
        self.greeting = self.read() if greets else ""

    def read(self) -> str:
        return self.file.readline().decode().rstrip("\r\n")

    def send(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\n")

    def ask(self, line: str) -> str:
        self.send(line)
        return self.read()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(club: Club, *doors: Door, stop_timeout: float = 5.0, **options: Any) -> Iterator[Engine]:
    engine = Engine(doors or [Door(ListenerSettings(bind="127.0.0.1:0", tls="none"))], club.open, **options)
    engine.start()
    try:
        yield engine
    finally:
        assert engine.stop(stop_timeout) or stop_timeout < 1
