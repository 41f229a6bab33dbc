"""What the tests of the embeddable server share: a raw client that talks lines, a server around a block, a keeping."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from smtpd_core import Draft, Envelope, GuardSettings, SmtpServer, Ticket
from smtpd_core.wire.replies import Reply

# No growing delays where failures are wanted.
HARMLESS = GuardSettings(login_delay=0.0)


class Line:
    """A client that says what it is told and hears whole replies."""

    def __init__(self, address: Any, greets: bool = True) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if family == socket.AF_INET and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")
        self.greeting = self.hear() if greets else ""

    def hear(self) -> str:
        """One reply, its lines separated by LF; "" at the end of the connection."""
        lines = []
        while line := self.file.readline().decode():
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                break
        return "\n".join(lines)

    def say(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def send(self, sender: str = "a@a.test", to: str = "b@b.test", content: str = "Subject: x\r\n\r\nbody") -> str:
        """A whole transaction; the last reply, or the first that refuses."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in to.split(",")), "DATA"):
            reply = self.ask(line)
            if reply[0] in "45":
                return reply
        return self.ask(content + "\r\n.")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def talking(server: SmtpServer, hello: str = "EHLO probe.test") -> Iterator[Line]:
    with Line(server.address) as line:
        if hello:
            line.ask(hello)
        yield line


class Memory:
    """A keeping that remembers; `domains` are those it holds. A ticket is resolved by release() where `slow`."""

    def __init__(self, *domains: str, slow: bool = False) -> None:
        self.drafts: str | None = None
        self.domains = domains
        self.slow = slow
        self.kept: list[tuple[Envelope, bytes]] = []
        self.tickets: list[Ticket] = []
        self.room: Reply | None = None
        self.trouble: Exception | None = None
        self._handed_in = threading.Condition()

    def wait_for(self, count: int, timeout: float = 20.0) -> None:
        """Until so many messages were handed in."""
        with self._handed_in:
            assert self._handed_in.wait_for(lambda: len(self.tickets) >= count, timeout), f"{len(self.tickets)} came"

    def has_room(self) -> Reply | None:
        return self.room

    def holds(self, address: str) -> bool:
        return not self.domains or address.rpartition("@")[2] in self.domains

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        with draft.open() as file:
            self.kept.append((envelope, draft.trace + file.read()))
        draft.close()
        ticket = Ticket()
        with self._handed_in:
            self.tickets.append(ticket)
            self._handed_in.notify_all()
        if not self.slow:
            ticket.resolve(self.trouble)
        return ticket


class Diary:
    """Things that happen in other threads, awaited instead of slept for."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self._changed = threading.Condition()

    def note(self, entry: Any) -> None:
        with self._changed:
            self.entries.append(entry)
            self._changed.notify_all()

    def wait(self, fact: Callable[[list[Any]], Any], timeout: float = 20.0) -> Any:
        with self._changed:
            assert self._changed.wait_for(lambda: fact(self.entries), timeout), f"in vain; noted: {self.entries}"
            return fact(self.entries)
