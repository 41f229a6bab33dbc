"""The server's half of the protocol: bytes in, events and bytes out, moves on the verdict.

    receive(data)          appends, nothing else
    next_event()           an Event, or why there is none: NEED_BYTES, AWAITING_VERDICT, OUTPUT_FULL, ENDED
    accept() refuse() supply()   the verdict; the move happens now
    take_output()          bytes to send

Rules: the same bytes in any pieces give the same events and bytes. Whatever arrives is answered or waited for, never an
exception. ValueError is for a verdict that nobody asked for.
Thread: one at a time, the one that has the connection's turn.
Not here: moves (rules.py), lines (lines.py), syntax (commands.py, transaction.py), AUTH (login.py), BDAT (chunks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from smtpd_core.wire import chunks, events, lines, login, replies
from smtpd_core.wire.command_table import CustomVerb
from smtpd_core.wire.content import ChunkReader, DataReader
from smtpd_core.wire.envelope import MailParameters
from smtpd_core.wire.events import AWAITING_VERDICT, ENDED, NEED_BYTES, OUTPUT_FULL, Event, Waiting
from smtpd_core.wire.extensions import Standing
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import IN_TRANSACTION, Phase
from smtpd_core.wire.settings import ProtocolSettings
from smtpd_core.wire.transaction import NO_PARAMETERS
from smtpd_core.wire.verdict import Verdict

__all__ = ["CustomVerb", "ProtocolSettings", "ServerProtocol", "WireObserver"]

# Replies gather until the core needs bytes or this much waits (RFC 2920 3.2).
MAX_OUTPUT = 16_384

Reading = Callable[["ServerProtocol"], Event | Waiting | None]


class WireObserver(Protocol):
    """Sees the dialogue, secrets masked. Called within next_event() and the verdicts; must not raise."""

    def command(self, text: str) -> None: ...

    def reply(self, reply: Reply) -> None: ...


class ServerProtocol:
    """One dialogue. The attributes without underscore below the first line are for the wire package alone."""

    __slots__ = (
        "_at",
        "_data",
        "_later",
        "_output",
        "_output_size",
        "_scanned",
        "bindings",
        "chunk",
        "client_identity",
        "client_is_trusted",
        "content",
        "drop_is_told",
        "errors",
        "esmtp",
        "hello",
        "identity",
        "input_ended",
        "login",
        "notice",
        "observer",
        "parameters",
        "pending",
        "phase",
        "reading",
        "recipients",
        "secret_may_follow",
        "settings",
        "table",
        "tls_is_on",
        "verdict",
    )

    def __init__(self, settings: ProtocolSettings) -> None:
        self.settings = settings
        self.phase = Phase.GREETING
        self.hello = ""
        self.identity = ""
        self.tls_is_on = False
        self.esmtp = False
        self.client_is_trusted = False  # set before the first event: XCLIENT and XFORWARD are believed
        self.observer: WireObserver | None = None
        self.client_identity = ""
        self.bindings: Mapping[str, bytes] = {}

        self.table = settings.table
        self.reading: Reading = _greet
        self.verdict: Verdict | None = None
        self.pending: Any = None
        self.notice: Event | None = None
        self.parameters: MailParameters = NO_PARAMETERS
        self.recipients = 0
        self.errors = 0
        self.content: DataReader | ChunkReader | None = None
        self.chunk: chunks.Chunk | None = None
        self.drop_is_told = False
        self.login: login.Login | None = None
        self.secret_may_follow = False  # kept for the observer alone
        self.input_ended = False

        self._data = b""
        self._at = 0
        self._scanned = 0
        self._later: list[bytes] = []
        self._output: list[bytes] = []
        self._output_size = 0

    # For the floor above

    def receive(self, data: bytes) -> None:
        """Bytes from the client. They wait until next_event()."""
        if self._at == len(self._data):
            self._data = data
            self._at = self._scanned = 0
        else:
            self._later.append(data)

    def end_of_input(self) -> None:
        """The client sends no more. What it sent is still answered; then next_event() says ENDED."""
        self.input_ended = True

    def next_event(self) -> Event | Waiting:
        """The next thing to decide or to know."""
        if self.notice is not None:
            event, self.notice = self.notice, None
            return event
        if self.verdict is not None:
            return AWAITING_VERDICT
        while self._output_size < MAX_OUTPUT:
            found = self.reading(self)
            if found is not None:
                if found is NEED_BYTES and self.input_ended:
                    return self._abandon()
                return found
        return OUTPUT_FULL

    def accept(self, reply: Reply | None = None, replies: Sequence[Reply] | None = None) -> None:
        """Yes. `reply` instead of the catalogue's; `replies`, one per recipient, at ContentEnds of LMTP."""
        verdict, self.verdict = self.verdict, None
        if verdict is not None:
            verdict.accepted(self, reply, replies)
            if replies is not None and any(one.code == 421 for one in replies):
                self._end()
        elif self.phase is not Phase.ENDED:
            raise ValueError("no verdict is awaited")

    def refuse(self, reply: Reply | None = None) -> None:
        """No, and no move. A 421 ends the dialogue (RFC 5321 3.8)."""
        verdict, self.verdict = self.verdict, None
        if verdict is None:
            if self.phase is not Phase.ENDED:
                raise ValueError("no verdict is awaited")
        else:
            verdict.refused(self, reply)
            if reply is not None and reply.code == 421:
                self._end()

    def supply(self, answer: object) -> None:
        """The answer to NeedSecret; None for an unknown user or a wrong secret."""
        verdict, self.verdict = self.verdict, None
        if verdict is not None and verdict.supplied is not None:
            verdict.supplied(self, answer)
        elif self.phase is not Phase.ENDED:
            self.verdict = verdict
            raise ValueError("no secret was asked for")

    def spoil(self, reply: Reply) -> None:
        """While content comes in: swallow the rest and refuse it once, at its end, with this reply."""
        if self.content is not None and self.content.refusal is None:
            self.content.spoil(reply)
            self.drop_is_told = True

    def say_and_end(self, reply: Reply) -> None:
        """The last reply. An open verdict is void; accept() and refuse() that come late do nothing.

        No event follows: a draft under way is the caller's to forget.
        """
        if self.phase is not Phase.ENDED:
            self.say(reply)
            self._end()

    def tls_is_up(self, bindings: Mapping[str, bytes] | None = None, client_identity: str = "") -> None:
        """The handshake is over, before the greeting or after Upgrade. All that was said before is forgotten."""
        if self.phase not in (Phase.GREETING, Phase.UPGRADE):
            raise ValueError(f"TLS can't come up in phase {self.phase.name}")
        self.tls_is_on = True
        self.bindings = bindings or {}
        self.client_identity = client_identity
        if self.phase is Phase.UPGRADE:
            self.forget_session()

    def adopt(self, settings: ProtocolSettings) -> None:
        """Other settings of the same listener, while the verdict on a hello is awaited: its reply tells them."""
        self.settings = settings
        self.table = settings.table

    def take_output(self) -> bytes:
        """All bytes to send, in order."""
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._output_size = 0
        return data

    @property
    def has_output(self) -> bool:
        return self._output_size > 0

    @property
    def has_input(self) -> bool:
        """Bytes that were received and not looked at yet. Before the greeting: an early talker."""
        return self._at < len(self._data) or bool(self._later)

    # For the wire package

    def say(self, reply: Reply) -> None:
        if not self.settings.enhanced_codes and reply.enhanced:
            reply = Reply(reply.code, "", reply.text)
        if self.observer is not None:
            self.observer.reply(reply)
        wire = reply.wire
        self._output.append(wire)
        self._output_size += len(wire)

    def complain(self, reply: Reply) -> Event | None:
        """A mistake of the client: the reply, or the end where there were too many. No event: a step can return it."""
        self.errors += 1
        limit = self.settings.max_errors
        if limit and self.errors > limit:
            self.say_and_end(replies.too_many_errors_421)
        else:
            self.say(reply)
        return None

    def standing(self) -> Standing:
        return Standing(
            self.tls_is_on,
            bool(self.identity),
            self.client_is_trusted,
            bool(self.bindings),
            bool(self.client_identity),
        )

    def take_notice(self) -> Event | None:
        event, self.notice = self.notice, None
        return event

    def forget_transaction(self) -> None:
        """RSET, a new hello: a transaction in progress is dropped, and the floor above hears of it."""
        if self.phase in IN_TRANSACTION:
            self.notice = events.TransactionReset()
            self.phase = Phase.READY
        self.parameters = NO_PARAMETERS
        self.recipients = 0
        self.content = None

    def forget_session(self) -> None:
        """After TLS came up and after XCLIENT."""
        self.hello = ""
        self.identity = ""
        self.esmtp = False
        self.parameters = NO_PARAMETERS
        self.recipients = 0
        self.content = None
        self.phase = Phase.CONNECTED
        self.read_commands()

    def go_on_with(self, step: Callable[[ServerProtocol, str], Event | Waiting | None], argument: str) -> None:
        """After a wrapping command was accepted: the built-in step, its event as a notice."""
        found = step(self, argument)
        if found is not None and not isinstance(found, Waiting):
            self.notice = found

    def read_commands(self) -> None:
        self.reading = lines.read_command

    def begin_upgrade(self) -> None:
        self.phase = Phase.UPGRADE
        self.reading = _upgrade

    def take_input(self, most: int) -> bytes:
        """Up to `most` of the bytes received; b"" where there are none."""
        data, at = self._data, self._at
        if at == len(data):
            if not self._later:
                return b""
            data = self._data = b"".join(self._later) if len(self._later) > 1 else self._later[0]
            self._later.clear()
            at = 0
        if len(data) - at > most:
            self._at = self._scanned = at + most
            return data[at : at + most]
        # Nothing that was used up is kept: an idle connection after a large message holds no 64 KiB.
        self._data = b""
        self._at = self._scanned = 0
        return data[at:] if at else data

    def give_back(self, data: bytes, used: int) -> None:
        """Of what take_input() gave last, all of it, only the first `used` bytes were due."""
        self._data = data
        self._at = self._scanned = used

    def take_response(self) -> bytes | Event | Waiting | None:
        return lines.read_response(self)

    def forget_what_was_read(self) -> None:
        """A secret was in it: nothing of it stays behind while its judgement, or a delay, takes time."""
        self._data = self._data[self._at :]
        self._scanned -= self._at
        self._at = 0

    def _end(self) -> None:
        self.phase = Phase.ENDED
        self.verdict = None
        self.notice = None
        self.login = None
        self.chunk = None
        self._data = b""
        self._at = self._scanned = 0
        self._later.clear()
        self.reading = _ended

    def _abandon(self) -> Event | Waiting:
        """The input ended: inside content, its draft is to be forgotten."""
        unfinished = self.content is not None and not self.drop_is_told
        self.content = None
        self._end()
        return events.ContentDropped(replies.lost_421) if unfinished else ENDED


# What is read now: one function per way of reading. The others are in lines.py, transaction.py, chunks.py, login.py.


def _greet(p: ServerProtocol) -> Event:
    p.verdict = _GREETING
    return events.Connected()


def _greeted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    p.phase = Phase.CONNECTED
    p.read_commands()
    p.say(reply or p.settings.greeting)


def _not_greeted(p: ServerProtocol, reply: Reply | None) -> None:
    p.say_and_end(reply or replies.blocked_554)


_GREETING = Verdict(_greeted, _not_greeted)


def _upgrade(p: ServerProtocol) -> Event:
    p.reading = _upgrading
    return events.Upgrade()


def _upgrading(p: ServerProtocol) -> Waiting:
    """Between Upgrade and tls_is_up(): plaintext that comes now is an attack (CVE-2011-0411)."""
    if p.has_input:
        p._end()
        return ENDED
    return NEED_BYTES


def _ended(p: ServerProtocol) -> Waiting:
    p._data = b""
    p._at = p._scanned = 0
    p._later.clear()
    return ENDED
