"""One client's dialogue: events of the protocol core go to policy, verdicts go back.

Rule 1: no I/O here. advance() goes on until a wish; an event whose verdict has to wait (for a slot, a ticket, a pause)
        stays in `_event` and is met again by the next advance().
Rule 2: without a hook an event costs one attribute test. Nothing is built, formatted or logged for nobody.
Rule 3: 250 after content means that the hook and every keeping said yes.
Thread: the turn of the connection.
Not here: what is asked at each command (policy.py), logging in (logging_in.py), a message's way to its 250
(reception.py), order and syntax (wire).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from certs.facts import TlsFacts
from smtpd_core.accounts import Account
from smtpd_core.accounts.certificate import certified_identity
from smtpd_core.net import ListenerSettings, Peer
from smtpd_core.net.conversation import Pause, Turn, WaitFor, Wish
from smtpd_core.server import logging_in, policy, reception
from smtpd_core.server.hooks import Hook
from smtpd_core.server.house import House
from smtpd_core.server.observers import Witness
from smtpd_core.server.reception import KnownOrigin, Reception
from smtpd_core.server.session import Session
from smtpd_core.server.verdicts import Accept, Refuse, said_instead
from smtpd_core.wire import replies
from smtpd_core.wire.events import (
    AWAITING_VERDICT,
    ENDED,
    NEED_BYTES,
    OUTPUT_FULL,
    Authenticated,
    AuthFailed,
    BodyChunk,
    ClientFacts,
    Connected,
    ContentBegins,
    ContentDropped,
    ContentEnds,
    CustomCommand,
    Etrn,
    Event,
    Expand,
    Hello,
    MailFrom,
    NeedSecret,
    RcptTo,
    StartTls,
    TransactionReset,
    Upgrade,
    Verify,
)
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Phase
from smtpd_core.wire.server import ServerProtocol
from smtpd_core.wire.settings import ProtocolSettings

log = logging.getLogger(__name__)

# Events of one turn; then the others have theirs.
_TURN = 64

_WAITING_FOR = {
    Phase.GREETING: "greeting",
    Phase.CONNECTED: "greeting",
    Phase.READY: "command",
    Phase.SENDER: "command",
    Phase.RECIPIENTS: "command",
    Phase.CHUNKS: "command",
    Phase.CONTENT: "data",
    Phase.LOGIN: "login",
    Phase.UPGRADE: "command",
    Phase.ENDED: "command",
}

_NO_SLOT: Final = Wish.NEED_SLOT

# Hooks that are shown what a client sends in AUTH, beside on_authenticate: raw bytes, and a verb AUTH of the program's.
_SEE_SECRETS = frozenset({"on_read_connection", "AUTH"})


class Dialogue:
    """Implements smtpd_core.net.conversation.Conversation."""

    __slots__ = (
        "_event",
        "_is_stopping",
        "_late",
        "_steps_left",
        "account",
        "content",
        "failure_told",
        "house",
        "login_user",
        "origin",
        "protocol",
        "session",
        "witness",
    )

    def __init__(
        self,
        house: House,
        peer: Peer,
        listener: ListenerSettings,
        session_id: str,
        core: Callable[[ProtocolSettings], ServerProtocol] = ServerProtocol,
    ) -> None:
        self.house = house
        self.protocol = protocol = core(house.offer.dialects[listener])
        self.session = session = Session(session_id, peer, listener, protocol, time.time())
        self.content: Reception | None = None
        self.witness: Witness | None = None
        self.origin: KnownOrigin | None = None  # until the client's standing changes
        self.account: Account | None = None
        self.login_user = ""
        self._event: Event | None = None
        self._late = ""
        self._is_stopping = False
        self.failure_told = False
        self._steps_left = 2
        if listener.xclient_from and peer.address in house.trusted[listener]:
            protocol.client_is_trusted = True
        if house.is_watched:
            self.witness = protocol.observer = Witness(house, session)

    # -- for the connection

    @property
    def waiting_for(self) -> str:
        return _WAITING_FOR[self.protocol.phase]

    def receive(self, data: bytes) -> None:
        if self.house.slots.on_read_connection is not None:
            self._witness().notes.append(("on_read_connection", data))
        self.protocol.receive(data)

    def end_of_input(self, error: BaseException | None) -> None:
        self.protocol.end_of_input()

    def take_output(self) -> bytes:
        return self.protocol.take_output()

    def tls_is_up(self, facts: TlsFacts) -> None:
        self.protocol.tls_is_up(facts.bindings, certified_identity(facts))
        session = self.session
        session.tls = facts
        self.origin = None
        session.user = None
        if self.witness is not None:
            self.witness.note(
                "tls", f"{facts.version} {facts.cipher}" + (f" for {facts.server_name}" * bool(facts.server_name))
            )

    def overdue(self, what: str) -> None:
        self._late = what

    def advance(self, turn: Turn) -> Wish | WaitFor | Pause:
        try:
            return self._advance(turn)
        except Exception as error:  # a mistake of ours: what is owed goes out, and the client hears of it
            in_login = self.protocol.phase is Phase.LOGIN
            self._event = None
            self.protocol.say_and_end(replies.accept_failed_421)
            self.house.report(self.session, "the dialogue", error, secret=in_login)
            return Wish.CLOSE

    def _advance(self, turn: Turn) -> Wish | WaitFor | Pause:
        if self._late:
            self._be_late()
        protocol = self.protocol
        witness = self.witness
        for _ in range(_TURN):
            if witness is not None and witness.notes and not self._tell(witness, turn):
                return Wish.NEED_SLOT
            event: Any = self._event
            if event is None:
                event = protocol.next_event()
                if event is NEED_BYTES:
                    if witness is not None and witness.notes:
                        continue
                    if self._is_stopping and self.session.transaction is None:
                        protocol.say_and_end(replies.shutting_down_421)
                        return Wish.CLOSE
                    return Wish.NEED_BYTES
                if event is ENDED:
                    if witness is not None and witness.notes:
                        continue
                    return Wish.CLOSE
                if event is OUTPUT_FULL:
                    return Wish.GO_ON
                if event is AWAITING_VERDICT:
                    raise RuntimeError(f"{self.session.id}: a verdict was forgotten in phase {protocol.phase.name}")
                self._event = event
                if witness is not None and witness.notes:
                    continue
            wish = _ACTIONS[type(event)](self, event, turn)
            if wish is not None:
                return wish
            self._event = None
        return Wish.GO_ON

    def closed(self, turn: Turn, why: str) -> Wish | None:
        """Two hooks may be due, each met again where there was no slot."""
        session = self.session
        content = self.content
        if not session.ended_because:
            session.ended_because = why
        slots = self.house.slots
        if self.witness is not None and self.witness.notes and not self._tell(self.witness, turn):
            return Wish.NEED_SLOT
        if content is not None and content.is_partial:
            hook = slots.on_partial_message if self._steps_left == 2 else None
            if hook is not None and not self._observe(hook, turn, content.as_message(self)):
                return Wish.NEED_SLOT
            content.drop()
        self._steps_left = 1
        hook = slots.on_close_connection
        if hook is not None and not self._observe(hook, turn):
            return Wish.NEED_SLOT
        self._steps_left = 0
        if self.witness is not None:
            self.witness.end(why, content is not None)
            self.witness = self.protocol.observer = None
        self.content = None
        level = logging.DEBUG if session.ended_because == "ended" else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "%s: %r is gone: %s; %d messages",
                session.id,
                session.peer,
                session.ended_because,
                session.messages,
            )
        return None

    # -- deadlines

    def _be_late(self) -> None:
        what, self._late = self._late, ""
        protocol = self.protocol
        event = self._event
        if what == "stop":
            self._is_stopping = True
        elif what == "slot":
            self._event = None
            if self.witness is not None:
                self.witness.notes.clear()
            if event is not None:
                self._give_up(event, replies.no_thread_451)
        elif what == "ticket":
            self._event = None
            if event is not None:
                self._give_up(event, reception.too_late_451)
        else:
            self._event = None
            protocol.say_and_end(replies.shutting_down_421 if what == "halt" else replies.time_out_421)

    def _give_up(self, event: Event, reply: Reply) -> None:
        """An event whose hook or ticket did not come to a verdict in time."""
        if isinstance(event, Connected):
            self.protocol.refuse(replies.no_thread_421)
        elif isinstance(event, ContentEnds):
            if self.content is not None:
                self.content.drop()
            self._end_transaction()
            self.protocol.refuse(reply)
        elif not isinstance(event, BodyChunk | TransactionReset | ContentDropped | Upgrade):
            self.protocol.refuse(reply)

    # -- hooks

    def _witness(self) -> Witness:
        if self.witness is None:
            self.witness = Witness(self.house, self.session)
        return self.witness

    def _tell(self, witness: Witness, turn: Turn) -> bool:
        """Call the observers that are due, in order. False where there is no slot."""
        notes = witness.notes
        while notes:
            name, value = notes[0]
            hook = getattr(self.house.slots, name)  # a name of ours, put there by Witness and receive()
            if hook is not None and not self._observe(hook, turn, value):
                return False
            notes.popleft()
        return True

    def _observe(self, hook: Hook, turn: Turn, *arguments: Any) -> bool:
        """Call a hook that decides nothing. False where there is no slot."""
        if not turn.enter(hook.meter):
            return False
        try:
            hook.function(self.session, *arguments)
        except BaseException as error:  # sys.exit() in a hook ends neither a thread of ours nor the session
            self.house.report(self.session, hook.name, error, secret=hook.name in _SEE_SECRETS)
        finally:
            turn.leave(hook.meter)
        return True

    def ask(self, hook: Hook, turn: Turn, failure: Reply, *arguments: Any) -> Any:
        """The verdict of a hook that decides; NEED_SLOT where there is no slot. What it raises becomes `failure`."""
        if not turn.enter(hook.meter):
            return Wish.NEED_SLOT
        try:
            return hook.function(self.session, *arguments)
        except BaseException as error:
            self.house.report(self.session, hook.name, error, secret=hook.name in _SEE_SECRETS)
            return failure
        finally:
            turn.leave(hook.meter)

    def judge(self, hook: Hook, verdict: Any, usual: Reply) -> tuple[bool, Reply | None]:
        """(accepted, the reply instead of the usual one). A verdict of the wrong kind is the program's mistake: 451."""
        if verdict is None:
            return True, None
        if isinstance(verdict, Reply) and verdict.code // 100 != 3:  # 3xx asks for more, and nothing here reads it
            return verdict.is_positive, verdict
        if isinstance(verdict, Accept):
            return True, said_instead(verdict, usual)
        if isinstance(verdict, Refuse):
            return False, verdict.reply
        wrong = type(verdict).__name__ if hook.name in _SEE_SECRETS else repr(verdict)
        error = TypeError(f"{hook.name} returned {wrong}: None, Accept, Refuse, a Reply or a Redirect is due")
        self.house.report(self.session, hook.name, error)
        return False, replies.hook_failed_451

    def decide(self, hook: Hook | None, turn: Turn, usual: Reply, *arguments: Any) -> Wish | None:
        """The whole of an event that only a hook decides."""
        if hook is None:
            self.protocol.accept()
            return None
        verdict = self.ask(hook, turn, replies.hook_failed_451, *arguments)
        if verdict is _NO_SLOT:
            return Wish.NEED_SLOT
        accepted, reply = self.judge(hook, verdict, usual)
        if accepted:
            self.protocol.accept(reply)
        else:
            self.protocol.refuse(reply)
        return None

    # -- events: TLS

    def _start_tls(self, event: StartTls, turn: Turn) -> None:
        self.protocol.accept()

    def _upgrade(self, event: Upgrade, turn: Turn) -> Wish:
        self._event = None
        return Wish.UPGRADE

    def _transaction_reset(self, event: TransactionReset, turn: Turn) -> None:
        if self.content is not None:
            self.content.drop()
        self._end_transaction()

    def _end_transaction(self) -> None:
        self.content = None
        self.session.transaction = None

    # -- events: the transaction's end, content

    def _content_begins(self, event: ContentBegins, turn: Turn) -> None:
        transaction = self.session.transaction
        assert transaction is not None
        self.content = Reception(self.house, transaction)
        self.protocol.accept()

    def _body_chunk(self, event: BodyChunk, turn: Turn) -> None:
        content = self.content
        if content is not None and not content.append(event.data):
            self.protocol.spoil(replies.storage_452)
            self._end_transaction()

    def _content_ends(self, event: ContentEnds, turn: Turn) -> Wish | WaitFor | None:
        content = self.content
        assert content is not None
        return content.end(self, turn)

    def conclude(self, reply: Reply | None, several: list[Reply] | None, kept: bool) -> None:
        """The verdict on the message is there (called by the reception)."""
        session = self.session
        witness = self.witness
        if witness is not None and self.content is not None:
            witness.note("content", f"{self.content.size} octets")
        if kept:
            session.messages += 1
        self.content = None
        session.transaction = None
        if reply is None or reply.is_positive or several is not None:
            self.protocol.accept(reply, several)
        else:
            self.protocol.refuse(reply)

    def _content_dropped(self, event: ContentDropped, turn: Turn) -> None:
        """Refused by the core; or the client is gone, then closed() shows what came."""
        if event.reply is replies.lost_421:
            return
        if self.content is not None:
            self.content.drop()
        self._end_transaction()


_ACTIONS: dict[type, Callable[[Dialogue, Any, Turn], Wish | WaitFor | Pause | None]] = {
    Connected: policy.connected,
    Hello: policy.hello,
    StartTls: Dialogue._start_tls,
    Upgrade: Dialogue._upgrade,
    ClientFacts: policy.client_facts,
    MailFrom: policy.mail_from,
    RcptTo: policy.rcpt_to,
    TransactionReset: Dialogue._transaction_reset,
    ContentBegins: Dialogue._content_begins,
    BodyChunk: Dialogue._body_chunk,
    ContentEnds: Dialogue._content_ends,
    ContentDropped: Dialogue._content_dropped,
    NeedSecret: logging_in.need_secret,
    Authenticated: logging_in.authenticated,
    AuthFailed: logging_in.auth_failed,
    Verify: policy.verify,
    Expand: policy.expand,
    Etrn: policy.etrn,
    CustomCommand: policy.custom,
}
