"""One client's connection: its turn moves bytes between the socket, TLS and the conversation.

Rule 1: a turn touches this connection and nothing of the reactor; what it wants it returns as a value.
Rule 2: output first. While bytes wait to be sent nothing is read, which is all the back-pressure there is.
Rule 3: what the conversation raises ends this connection, never the thread.
Thread: run() in the one thread whose turn it is; the fields under "the reactor's" by its leader only.
Not here: readiness, deadlines, closing the descriptor (reactor.py).
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from certs.side import TlsSide
from certs.trouble import TlsError
from smtpd_core.net import prelude
from smtpd_core.net.conversation import Conversation, Pause, WaitFor, Wish
from smtpd_core.net.settings import Door, Peer
from smtpd_core.net.states import (
    CLOSE,
    CLOSED,
    DONT_WAIT,
    GO_ON,
    LINGER,
    NEED_BYTES,
    NEED_SLOT,
    NEW,
    PROXY,
    READY,
    SEND,
    TALK,
    UPGRADE,
    WRITE,
    Outcome,
)
from smtpd_core.threads import HookMeter, Ticket, Turn

if TYPE_CHECKING:
    from smtpd_core.net.house import House

log = logging.getLogger(__name__)


class Connection:
    """See the module. `house` is what all connections of a reactor share."""

    __slots__ = (
        "after",
        "conversation",
        "counted_as",
        "door",
        "due",
        "fd",
        "half_closed",
        "hello_is_answered",
        "house",
        "is_broken",
        "is_closing",
        "late",
        "mask",
        "pace_from",
        "pace_since",
        "peer",
        "phase",
        "prefix",
        "readable",
        "received",
        "session_due",
        "session_id",
        "socket",
        "spoke",
        "stage",
        "state",
        "stop_told",
        "tick",
        "ticket",
        "tls",
        "unsent",
        "waits_since",
        "wanted",
        "why",
        "wish",
    )

    def __init__(self, house: House, sock: socket.socket, door: Door, peer: Peer, session_id: str) -> None:
        self.house = house
        self.socket = sock
        self.fd = sock.fileno()
        self.door = door
        self.peer = peer
        self.session_id = session_id
        self.conversation: Conversation | None = None
        self.tls: TlsSide | None = None
        self.stage = NEW
        self.prefix = b""  # what came of the PROXY header
        self.unsent: bytes = b""
        self.wish: Wish | WaitFor | Pause | None = None  # what comes once `unsent` is sent
        self.readable = False
        self.received = 0
        self.half_closed = False
        self.hello_is_answered = False  # the heavy step of the TLS handshake is done
        self.is_broken = False
        self.is_closing = False
        self.spoke = False
        self.why = ""
        self.wanted: HookMeter | None = None
        self.late = ""
        # the reactor's
        self.state = READY
        self.after: Outcome = GO_ON
        self.mask = 0
        self.due = 0.0
        self.tick = 0
        self.phase = ""
        self.session_due = 0.0
        self.pace_since = 0.0
        self.pace_from = 0
        self.waits_since = 0.0
        self.ticket: Ticket | None = None
        self.stop_told = False
        self.counted_as: str | None = None  # the source under which the guard counts it

    @property
    def waits_for(self) -> str:
        """What a connection waits for whose conversation has not the word yet; a key of Timeouts."""
        return "proxy" if self.stage == PROXY else "handshake"

    # -- the turn

    def run(self, turn: Turn) -> Outcome:
        """One turn. Never raises."""
        turn.flow_id = self.session_id
        try:
            after = self._run(turn)
        except BaseException:  # SystemExit from a hook too: the thread belongs to the pool
            log.exception("%s: the conversation failed", self.session_id)
            turn.recover()
            after = self._fail(turn)
        if after is NEED_SLOT:
            self.wanted = turn.wanted
        return after

    def end_alone(self, turn: Turn) -> None:
        """The reactor is over and this thread has the connection: close it here."""
        self.is_broken = True
        if not self.is_closing:
            self.is_closing = True
            self.why = "stopped"
            self.run(turn)
        self.socket.close()

    def _run(self, turn: Turn) -> Outcome:
        if self.is_closing:
            return self.finish(turn)
        if self.unsent:
            if self.late == "send":
                self.why = "the client does not read its replies"
                return self.finish(turn)
            if not self._flush():
                return self.finish(turn) if self.is_broken else WRITE
            if self.stage == TALK:
                return self.talk(turn, self.wish)
        if self.readable:
            self.readable = False
            self.read()
        if self.stage != TALK:
            return prelude.go_on(self, turn)
        if self.late:
            self._tell_late()
        return self.talk(turn, None)

    def talk(self, turn: Turn, wish: Wish | WaitFor | Pause | None) -> Outcome:
        conversation = self.conversation
        assert conversation is not None
        if wish is None:
            wish = conversation.advance(turn)
            output = conversation.take_output()
            if output:
                self.spoke = True
            if not (self.send_raw(output) if self.tls is None else self._send_sealed(output, wish is CLOSE)):
                self.wish = wish
                return self.finish(turn) if self.is_broken else WRITE
        if wish is NEED_BYTES:
            if self.half_closed:
                return self.finish(turn)
            return GO_ON if self.readable else NEED_BYTES
        if wish is CLOSE:
            return self.finish(turn)
        if wish is UPGRADE:
            prelude.start_tls(self)
            return NEED_BYTES
        return wish

    def _fail(self, turn: Turn) -> Outcome:
        self.why = "internal error"
        self.is_broken = True
        try:
            return self.finish(turn)
        except BaseException:
            log.exception("%s: the conversation failed while closing", self.session_id)
            turn.recover()
            return CLOSED

    def _tell_late(self) -> None:
        late, self.late = self.late, ""
        assert self.conversation is not None
        self.why = late
        self.conversation.overdue(late)

    def finish(self, turn: Turn) -> Outcome:
        """The last call to the conversation. LINGER where our close could destroy a reply that is under way."""
        self.is_closing = True
        if self.conversation is not None:
            wish = self.conversation.closed(turn, self.why or ("closed by the client" if self.half_closed else "ended"))
            if wish is NEED_SLOT and self.late != "slot":
                return NEED_SLOT
        if self.half_closed or self.is_broken or self.unsent:
            return CLOSED
        return LINGER if self.readable or self.why or not self.received else CLOSED

    # -- bytes

    def read(self) -> None:
        """One recv, through TLS where it is up, into the conversation. `readable` where there is more at once."""
        batch = self.house.batch_size
        try:
            data = self.socket.recv(batch, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._input_ends(error)
            return
        if not data:
            self._input_ends(None)
            return
        size = len(data)
        self.received += size
        if size == batch:
            self.readable = True
        if self.stage == TALK:
            if self.tls is None:
                self.conversation.receive(data)  # type: ignore[union-attr]
            else:
                self.tls.feed(data)
                self.read_plaintext(self.tls)
        else:
            prelude.feed(self, data)

    def read_plaintext(self, tls: TlsSide) -> bool:
        """Whether there was any. What TLS itself has to say to it (key updates, alerts) goes out with the reply."""
        assert self.conversation is not None
        try:
            plaintext = tls.read()
        except TlsError as error:  # nothing that comes after it can be trusted
            self._input_ends(error)
            return False
        if plaintext:
            self.conversation.receive(plaintext)
        if tls.ended:
            self._input_ends(None)
        return bool(plaintext)

    def _input_ends(self, error: BaseException | None) -> None:
        if self.half_closed:
            return
        self.half_closed = True
        if error is not None:
            self.is_broken = True
            self.why = f"connection lost: {error}"
        if self.conversation is not None:
            self.conversation.end_of_input(error)

    def _send_sealed(self, output: bytes, is_last: bool) -> bool:
        """Through TLS, in one send with what TLS itself has to say, its good-bye after the last reply included. (Two
        sends less for a session of one message saved three per cent of its processor time.)"""
        assert self.tls is not None
        try:
            self.tls.write(output)
        except TlsError as error:
            self.is_broken = True
            self.why = f"connection lost: {error}"
            return False
        if is_last:
            self.tls.shutdown()
        return self.send_raw(self.tls.take_output())

    def send_raw(self, output: bytes) -> bool:
        """Send; True where all went out. What did not stays in `unsent`."""
        if self.unsent:
            self.unsent += output
            return False
        if not output:
            return True
        try:
            sent = self.socket.send(output, SEND)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.is_broken = True
            self.why = f"connection lost: {error}"
            return False
        if sent == len(output):
            return True
        self.unsent = output[sent:]
        return False

    def _flush(self) -> bool:
        output, self.unsent = self.unsent, b""
        return self.send_raw(output)
