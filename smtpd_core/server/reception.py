"""One message from its first octet to the verdict: drafted, judged by the program, kept, answered.

    drafted   content is appended to the draft                        nothing is promised
    judged    on_message_received said yes, perhaps by a ticket       nothing is promised
    kept      every keeping resolved its ticket without outcome       250 goes out, and is true

With a store and an outbox the message is kept in both, one after the other; where the second fails the client hears 45x
and comes again, so the first takes it back. One that can't (somebody read it already) has it twice: never lost.
Thread: the session's turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smtpd_core.draft import Draft
from smtpd_core.net.conversation import Turn, WaitFor, Wish
from smtpd_core.server.hooks import Hook
from smtpd_core.server.keeping import Keeping, Withdrawing, drafts_of
from smtpd_core.server.message import Message
from smtpd_core.server.received import loops, missing_headers, origin_line, protocol_name, received_line
from smtpd_core.server.session import Transaction
from smtpd_core.server.verdicts import Redirect
from smtpd_core.threads import Ticket
from smtpd_core.wire import replies
from smtpd_core.wire.envelope import Envelope, Origin, Recipient
from smtpd_core.wire.replies import Reply

if TYPE_CHECKING:
    from smtpd_core.server.dialogue import Dialogue
    from smtpd_core.server.house import House

log = logging.getLogger(__name__)

_DRAFTED, _HOOK_TICKET, _KEEPING = range(3)

too_late_451 = Reply(451, "4.3.0", "It could not be kept in time; try again later")


class Reception:
    """See the module. Made at DATA or the first BDAT, over with Dialogue.conclude() or drop()."""

    __slots__ = (
        "_draft",
        "_envelope",
        "_first",
        "_house",
        "_id",
        "_message",
        "_reply",
        "_several",
        "_stage",
        "_ticket",
        "_to_keep",
        "size",
    )

    def __init__(self, house: House, transaction: Transaction) -> None:
        self._house = house
        self._draft: Draft | None = Draft(house.drafts)
        self._id = self._draft.id
        transaction.draft = self._draft
        self.size = 0
        self._stage = _DRAFTED
        self._envelope: Envelope | None = None
        self._message: Message | None = None
        self._ticket: Ticket | None = None
        self._several: list[Reply] | None = None
        self._reply: Reply | None = None  # the program's own words, said once the message is kept
        self._to_keep: list[tuple[Keeping, Envelope]] = []
        self._first: tuple[Keeping, Envelope, str] | None = None  # keeps its part before the second does

    @property
    def is_partial(self) -> bool:
        """Content began and never ended."""
        return self._draft is not None and self._envelope is None

    def append(self, data: bytes) -> bool:
        """False where the disk has no room: the draft is gone."""
        draft = self._draft
        if draft is None:
            return True
        try:
            draft.append(data)
        except OSError as error:
            log.error("%s: content can't be written: %s", self._id, error)
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Forget the content. What a keeping already has is the keeping's, but for a part without the other."""
        first, self._first = self._first, None
        if first is not None and not self._to_keep:
            self._withdraw(*first)
        if self._message is not None:
            self._message.close()
            self._message = None
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    def _withdraw(self, keeping: Keeping, envelope: Envelope, id: str) -> None:
        if not isinstance(keeping, Withdrawing):
            log.warning("message %s stays where it was kept, and the client sends it again", id)
            return
        try:
            keeping.withdraw(envelope, id)
        except Exception as error:
            self._house.report(None, "withdrawing mail", error)

    def as_message(self, dialogue: Dialogue) -> Message:
        """What came so far, for on_partial_message."""
        assert self._draft is not None
        if self._message is None:
            self._message = Message(_envelope(dialogue), self._draft)
        return self._message

    # -- the end of the content

    def end(self, dialogue: Dialogue, turn: Turn) -> Wish | WaitFor | None:
        """One step; met again after a slot or a ticket."""
        if self._stage == _KEEPING:
            return self._kept(dialogue)
        if self._stage == _HOOK_TICKET:
            return self._hook_ticket_came(dialogue)
        if self._envelope is None:
            try:
                refusal = self._seal(dialogue)
            except OSError as error:  # a large draft's file can't be read
                refusal = self._house.keeping_failed(dialogue.session, error)
            if refusal is not None:
                return self._refuse(dialogue, refusal)
        hook = self._house.slots.on_message_received
        if hook is not None:
            return self._ask(hook, dialogue, turn)
        return self._keep(dialogue)

    def _seal(self, dialogue: Dialogue) -> Reply | None:
        """The content is whole: envelope and trace."""
        house, session, draft = self._house, dialogue.session, self._draft
        assert draft is not None
        self.size = draft.size
        if loops(draft, house.max_received):
            return replies.loop_554
        transaction = session.transaction
        known = _known_origin(dialogue, transaction is not None and transaction.parameters.smtputf8)
        envelope = self._envelope = _envelope(dialogue, known)
        date = house.clock.date(envelope.arrived)
        recipients = envelope.recipients
        draft.trace = received_line(known.line, draft.id, recipients[0].address if len(recipients) == 1 else "", date)
        if session.listener.service == "submission":
            draft.trace += missing_headers(draft, house.hostname, date)
        return None

    # -- the program's verdict

    def _ask(self, hook: Hook, dialogue: Dialogue, turn: Turn) -> Wish | WaitFor | None:
        assert self._envelope is not None and self._draft is not None
        if self._message is None:
            self._message = Message(self._envelope, self._draft)
        verdict = dialogue.ask(hook, turn, replies.hook_failed_451, self._message)
        if verdict is Wish.NEED_SLOT:
            return Wish.NEED_SLOT
        if isinstance(verdict, Ticket):
            self._stage = _HOOK_TICKET
            self._ticket = verdict
            return WaitFor(verdict)
        return self._take_verdict(hook, verdict, dialogue)

    def _hook_ticket_came(self, dialogue: Dialogue) -> WaitFor | None:
        hook, ticket = self._house.slots.on_message_received, self._ticket
        assert ticket is not None
        self._ticket = None
        if ticket.outcome is not None:
            self._house.report(dialogue.session, "on_message_received", ticket.outcome)
            return self._refuse(dialogue, replies.hook_failed_451)
        if hook is None:
            return self._keep(dialogue)
        return self._take_verdict(hook, ticket.value, dialogue)

    def _take_verdict(self, hook: Hook, verdict: Any, dialogue: Dialogue) -> WaitFor | None:
        if self._message is not None:
            self._message.close()
            self._message = None
        envelope = self._envelope
        assert envelope is not None
        if isinstance(verdict, Redirect):
            recipients = tuple(Recipient(one) for one in verdict.addresses)
            self._envelope = Envelope(
                envelope.sender, recipients, envelope.parameters, envelope.origin, envelope.arrived
            )
            return self._keep(dialogue) if recipients else self._accept(dialogue, None)
        if isinstance(verdict, Sequence) and not isinstance(verdict, str):
            return self._take_replies(hook, list(verdict), dialogue)
        accepted, reply = dialogue.judge(hook, verdict, replies.ok_250)
        if not accepted:
            return self._refuse(dialogue, reply or replies.refused_550)
        return self._keep(dialogue, reply)

    def _take_replies(self, hook: Hook, several: list[Reply], dialogue: Dialogue) -> WaitFor | None:
        """LMTP: one reply per recipient; kept is what has a positive one."""
        envelope = self._envelope
        assert envelope is not None
        wrong = ""
        if dialogue.session.listener.service != "lmtp":
            wrong = "a reply per recipient is for LMTP only"
        elif len(several) != len(envelope.recipients) or not all(
            isinstance(one, Reply) and one.code // 100 != 3 for one in several
        ):
            wrong = f"{len(envelope.recipients)} replies are due"
        if wrong:
            self._house.report(dialogue.session, hook.name, TypeError(f"{hook.name} returned {several!r}: {wrong}"))
            return self._refuse(dialogue, replies.hook_failed_451)
        transaction = dialogue.session.transaction
        assert transaction is not None
        self._several = _per_command(several, transaction.redirected)
        left = tuple(one for one, reply in zip(envelope.recipients, several, strict=True) if reply.is_positive)
        if not left:
            return self._refuse(dialogue, several[0])
        self._envelope = Envelope(envelope.sender, left, envelope.parameters, envelope.origin, envelope.arrived)
        return self._keep(dialogue)

    # -- keeping

    def _keep(self, dialogue: Dialogue, reply: Reply | None = None) -> WaitFor | None:
        house, envelope = self._house, self._envelope
        assert envelope is not None
        keepings = house.keepings
        if not keepings:
            return self._accept(dialogue, reply)
        self._reply = reply
        if len(keepings) == 1:
            return self._hand_over(keepings[0], envelope, dialogue)
        store, outbox = keepings
        try:
            local = tuple(one for one in envelope.recipients if store.holds(one.address))
        except Exception as error:
            return self._refuse(dialogue, self._house.keeping_failed(dialogue.session, error))
        away = tuple(one for one in envelope.recipients if one not in local)
        if not away or not local:
            return self._hand_over(store if local else outbox, envelope, dialogue)
        self._to_keep = [(outbox, _with(envelope, away))]
        self._first = store, _with(envelope, local), self._id
        return self._hand_over(store, self._first[1], dialogue)

    def _hand_over(self, keeping: Keeping, envelope: Envelope, dialogue: Dialogue) -> WaitFor | None:
        """The draft is the keeping's from here on; a second keeping gets a copy, made before."""
        draft, self._draft = self._draft, None
        assert draft is not None
        self._stage = _KEEPING
        try:
            if self._to_keep:
                self._draft = _copy(draft, drafts_of(self._to_keep[0][0]))
            ticket = keeping.keep(envelope, draft)
        except Exception as error:
            draft.close()
            return self._refuse(dialogue, self._house.keeping_failed(dialogue.session, error))
        self._ticket = ticket
        if ticket.is_resolved:
            return self._kept(dialogue)
        return WaitFor(ticket)

    def _kept(self, dialogue: Dialogue) -> WaitFor | None:
        ticket, self._ticket = self._ticket, None
        assert ticket is not None
        if ticket.outcome is not None:
            log.error("%s: message %s is not kept: %s", dialogue.session.id, self._id, ticket.outcome)
            return self._refuse(dialogue, _reply_for(ticket.outcome))
        if isinstance(ticket.value, str):
            self._id = ticket.value
        if self._to_keep:
            keeping, envelope = self._to_keep.pop()
            return self._hand_over(keeping, envelope, dialogue)
        return self._accept(dialogue, self._reply)

    # -- the answer

    def _accept(self, dialogue: Dialogue, reply: Reply | None) -> WaitFor | None:
        several = self._several
        self._first = None
        dialogue.conclude(None if several else reply or replies.queued_250(self._id), several, True)
        self.drop()
        return None

    def _refuse(self, dialogue: Dialogue, reply: Reply) -> WaitFor | None:
        self.drop()
        several = self._several
        if several is not None:  # LMTP: what the hook refused keeps its reply
            several = [reply if one.is_positive else one for one in several]
        dialogue.conclude(reply, several, False)
        return None


class KnownOrigin:
    """A session's Origin and the beginning of its Received lines, the same for all messages of its standing."""

    __slots__ = ("address", "line", "origin", "user")

    def __init__(self, dialogue: Dialogue, utf8: bool) -> None:
        session = dialogue.session
        tls, user = session.tls, session.user
        self.user = user
        self.address = session.address
        self.origin = origin = Origin(
            session.address or "unix",
            session.port,
            session.hello,
            protocol_name(session.listener.service, session.esmtp, tls is not None, user is not None, utf8),
            f"{tls.version} {tls.cipher}" if tls is not None else "",
            user.user_name if user is not None else "",
            session.listener_name,
            session.id,
        )
        self.line = origin_line(origin.hello, session.address, dialogue.house.hostname, origin.protocol, origin.tls)


def _known_origin(dialogue: Dialogue, utf8: bool) -> KnownOrigin:
    """Made once; anew where a hook gave the session another user or address."""
    known, session = dialogue.origin, dialogue.session
    if utf8:
        return KnownOrigin(dialogue, True)
    if known is None or known.user is not session.user or known.address is not session.address:
        known = dialogue.origin = KnownOrigin(dialogue, False)
    return known


def _envelope(dialogue: Dialogue, known: KnownOrigin | None = None) -> Envelope:
    transaction = dialogue.session.transaction
    assert transaction is not None
    parameters = transaction.parameters
    if known is None:
        known = _known_origin(dialogue, parameters.smtputf8)
    return Envelope(transaction.sender, tuple(transaction.recipients), parameters, known.origin, time.time())


def _per_command(several: list[Reply], redirected: dict[int, int]) -> list[Reply]:
    """One reply for each RCPT of the client's. Of the recipients that one RCPT became the first refusal counts: the
    client comes again, and nobody is left out."""
    if not redirected:
        return several
    due, at = [], 0
    while at < len(several):
        those = several[at : at + redirected.get(at, 1)]
        due.append(next((one for one in those if not one.is_positive), those[0]))
        at += len(those)
    return due


def _with(envelope: Envelope, recipients: tuple[Recipient, ...]) -> Envelope:
    return Envelope(envelope.sender, recipients, envelope.parameters, envelope.origin, envelope.arrived)


def _copy(draft: Draft, directory: str | None) -> Draft:
    copy = Draft(directory, id=draft.id)
    copy.trace = draft.trace
    for piece in draft.chunks():
        copy.append(piece)
    return copy


def _reply_for(outcome: BaseException) -> Reply:
    """Disk trouble is 452 4.3.1; everything else is our mistake."""
    return replies.storage_452 if isinstance(outcome, OSError) else replies.hook_failed_451
