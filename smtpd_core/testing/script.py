"""The protocol core, bent where the plan of faults says so, and the script of what is still to be played.

What is refused on purpose is refused before the dialogue hears of it, so that nothing of it is kept; the octets of a
reply are bent where it is said. What takes time becomes pieces and pauses of the script.
Thread: the turn of the connection.
Not here: playing the script (faulty.py), handshakes (handshakes.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf

from smtpd_core.testing.fault import CONTENT, Fault
from smtpd_core.testing.faults import Faults
from smtpd_core.wire import events
from smtpd_core.wire.events import NEED_BYTES, ContentDropped, Event, Waiting
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.server import ServerProtocol, WireObserver
from smtpd_core.wire.settings import ProtocolSettings

# A pause of no length: what is ready goes out in a segment of its own, then the script goes on.
FLUSH = 0.0

# No more is said, and what comes is not looked at; the client's leaving, a deadline or stop() end it.
STALLED = inf

# The stage of each event that has a verdict; "" where it is the verb that was said.
_DECIDED: dict[type, str] = {
    events.Connected: "CONNECT",
    events.Hello: "",
    events.MailFrom: "MAIL",
    events.RcptTo: "RCPT",
    events.ContentBegins: "",
    events.ContentEnds: CONTENT,
    events.StartTls: "STARTTLS",
    events.Authenticated: "AUTH",
    events.AuthFailed: "AUTH",
    events.Verify: "VRFY",
    events.Expand: "EXPN",
    events.Etrn: "ETRN",
}

# Verbs that the core answers by itself: they are bent where their reply is said.
_UNDECIDED = frozenset({"NOOP", "RSET", "QUIT", "HELP"})

# Verbs that the core may not know, or not offer; a fault makes them known.
_UNOFFERED = frozenset({"EXPN", "ETRN", "VRFY"})

Piece = bytes | float | None  # octets, a pause, or the end


class Script:
    """Where the dialogue is: the stage, what has been said of the transaction, and what is still to be played.

    It observes the core, and passes on to whoever observed it before.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.stage = "CONNECT"
        self.sender = ""
        self.recipients: list[str] = []
        self.user = ""
        self.hello = ""
        self.pieces: deque[Piece] = deque()
        self.ready = b""
        self.content_left: int | None = None
        self.is_over = False  # after a cut or a stall nothing that came behind is looked at
        self.inner: WireObserver | None = None

    def facts(self) -> dict[str, str]:
        to = "\n".join(self.recipients[-1:] if self.stage == "RCPT" else self.recipients)
        return {"to": to, "sender": self.sender, "user": self.user, "hello": self.hello}

    def take(self) -> Fault | None:
        return self.faults.take(self.stage, self.facts())

    def end(self, *last: Piece) -> None:
        """These pieces, and then the end."""
        self.pieces.extend([*last, None])
        self.is_over = True

    def command(self, text: str) -> None:
        verb, _, argument = text.partition(" ")
        if verb != "****":  # an answer within AUTH
            self.stage = verb.upper()
        path = argument.partition("<")[2].partition(">")[0]
        if self.stage in ("EHLO", "HELO", "LHLO"):
            self.hello = argument.strip()
        elif self.stage == "MAIL":
            self.sender = path
            self.recipients = []
        elif self.stage == "RCPT":
            self.recipients.append(path)
        if self.inner is not None:
            self.inner.command(text)

    def reply(self, reply: Reply) -> None:
        if self.inner is not None:
            self.inner.reply(reply)


class FaultyProtocol(ServerProtocol):
    """The core, bent. `fault` acts on the reply that is said next."""

    __slots__ = ("fault", "script")

    def __init__(self, settings: ProtocolSettings, script: Script) -> None:
        super().__init__(settings)
        self.script = script
        self.fault: Fault | None = None

    def next_event(self) -> Event | Waiting:
        """An event that is refused on purpose is refused before the floor above hears of it."""
        script = self.script
        while True:
            if script.is_over:
                return NEED_BYTES
            event = super().next_event()
            if script.content_left is not None and self._hangs_up(event):
                return NEED_BYTES
            stage = _DECIDED.get(type(event))
            if stage is None:
                return event
            script.stage = stage or script.stage
            script.user = self.identity
            if isinstance(event, events.Authenticated):
                script.user = event.identity
            elif isinstance(event, events.AuthFailed):
                script.user = event.user
            self.fault = fault = script.take()
            if fault is None or fault.says is None or fault.says.is_positive:
                if isinstance(event, events.ContentBegins):
                    script.content_left = script.faults.hang_up_after(script.facts())
                return event
            self.refuse(fault.says)
            if stage == CONTENT:
                return ContentDropped(fault.says)

    def _hangs_up(self, event: Event | Waiting) -> bool:
        """Whether so much content has come that the connection is lost; its end then is never seen."""
        script = self.script
        left = script.content_left or 0
        if isinstance(event, events.BodyChunk):
            script.content_left = left = left - len(event.data)
        elif not isinstance(event, events.ContentEnds):
            return False
        if left > 0:
            if isinstance(event, events.ContentEnds):
                script.content_left = None
            return False
        script.end()
        return True

    def accept(self, reply: Reply | None = None, replies: Sequence[Reply] | None = None) -> None:
        fault = self.fault
        if fault is not None and fault.says is not None:
            reply, replies = fault.says, None
        super().accept(reply, replies)

    def say(self, reply: Reply) -> None:
        script = self.script
        fault, self.fault = self.fault, None
        ends = False
        if fault is None and _is_open(script.stage, reply):
            fault = script.take()
            if fault is not None and fault.says is not None:
                reply = fault.says
            ends = reply.code == 421  # the core does not end by itself here
        if fault is None or not (ends or _bends(fault)):
            super().say(reply)
        else:
            self._bend(reply, fault)
        if reply.code == 354:
            script.stage = CONTENT

    def _bend(self, reply: Reply, fault: Fault) -> None:
        script = self.script
        script.reply(reply)
        wire = fault.raw if fault.raw is not None else _without(reply.wire, fault.without)
        pieces = script.pieces
        pieces.append(self.take_output())
        if fault.wait:
            pieces.append(fault.wait)
        if fault.is_silent:
            script.end(STALLED)
        elif fault.cut_after is not None:
            script.end(wire[: fault.cut_after])
        elif reply.code == 421:
            script.end(wire)
        elif fault.is_split:
            for at in range(len(wire)):
                pieces.extend([wire[at : at + 1], FLUSH])
        else:
            pieces.append(wire)
        if fault.rest:
            pieces.append(fault.rest)


def _is_open(stage: str, reply: Reply) -> bool:
    """Whether this reply is the core's own to a verb for which a fault can be written."""
    if reply.is_positive:
        return stage in _UNDECIDED
    return reply.code in (500, 502) and (stage in _UNOFFERED or stage.startswith("X"))


def _bends(fault: Fault) -> bool:
    """Whether the octets of a reply change, or when they go out."""
    return bool(
        fault.raw is not None
        or fault.wait
        or fault.rest
        or fault.is_split
        or fault.cut_after is not None
        or fault.is_silent
        or fault.without
    )


def _without(wire: bytes, extension: str) -> bytes:
    if not extension:
        return wire
    lines = [one for one in wire.split(b"\r\n") if one]
    kept = [one for one in lines if one[4:].split(b" ")[0].upper() != extension.encode()]
    return b"".join(one[:3] + (b" " if n == len(kept) - 1 else b"-") + one[4:] + b"\r\n" for n, one in enumerate(kept))
