"""The contract between a connection (bytes, TLS, time) and what it carries (the Dialogue of floor 3).

A conversation does no I/O. The connection feeds it plaintext and asks it to go on; it answers with a wish. Every call
comes from within a turn of its connection, so never from two threads at once. Hooks are called between
`turn.enter(meter)` and `turn.leave(meter)`, wherever in advance() they are due.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from certs.facts import TlsFacts
from smtpd_core.threads import HookMeter, Ticket


class Wish(Enum):
    """What a conversation wants after advance()."""

    NEED_BYTES = "flush the output, then park until bytes come"
    GO_ON = "the turn was long enough: flush, and come back at the tail of the ready list"
    NEED_SLOT = "a hook is due and turn.enter() was False: wait in line for a slot, then advance() again"
    UPGRADE = "flush all, start TLS, then tls_is_up() and advance() again"
    CLOSE = "flush, then close"


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Park the connection on `ticket`; when it is resolved, advance() again. Nothing is read meanwhile."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Pause:
    """Advance again after `seconds` (growing login delays); nothing is read meanwhile."""

    seconds: float


# One hook's moving average of its own duration; one per hook and server.
Meter = HookMeter


class Turn(Protocol):
    """The turn of one connection in one thread."""

    def enter(self, meter: Meter) -> bool:
        """Take a slot for the hook; a hook known to be slow makes the thread step down from the lead first.

        False: no slot is free; return Wish.NEED_SLOT and try again when asked to advance.
        """

    def leave(self, meter: Meter) -> None:
        """Give the slot back and note how long the hook took."""


class Conversation(Protocol):
    """One client's dialogue."""

    @property
    def waiting_for(self) -> str:
        """Which deadline applies now: "greeting", "command", "data" or "login"; a key of Timeouts."""

    def receive(self, data: bytes) -> None:
        """Plaintext from the client, appended; nothing happens until advance()."""

    def end_of_input(self, error: BaseException | None) -> None:
        """The client sent its last byte (half-close; error None) or is gone (reset). Replies owed may still be sent."""

    def advance(self, turn: Turn) -> Wish | WaitFor | Pause:
        """Go on until a wish. The first call greets."""

    def take_output(self) -> bytes:
        """All bytes to send, in order; empties them."""

    def tls_is_up(self, facts: TlsFacts) -> None:
        """The handshake is over. Before the first advance() on implicit TLS, else after Wish.UPGRADE."""

    def overdue(self, what: str) -> None:
        """A deadline passed; the next advance() says so. `what` is

        waiting_for's value, "session", "slow" (minimum data rate): 421 4.4.2, then CLOSE;
        "slot": no thread was free in time: 451 4.3.2 and go on, 421 4.3.2 and CLOSE before the greeting;
        "ticket": the draft was withdrawn in time and is not kept: 451, go on;
        "stop": 421 4.3.2 and CLOSE where no transaction is under way, else as soon as it is over;
        "halt": the deadline of stop: 421 4.3.2 and CLOSE at once."""

    def closed(self, turn: Turn, why: str) -> Wish | None:
        """The last call: the connection is gone. Wish.NEED_SLOT where a close hook is due and there is no slot."""
