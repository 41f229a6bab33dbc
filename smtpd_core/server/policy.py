"""What is asked of the program and of the server's own rules at each command: one function per event.

Each returns None once the verdict is said, or a wish; then the same event is met again. No slot is NEED_SLOT.
Thread: the session's turn.
Not here: content (reception.py), logging in (logging_in.py).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from smtpd_core.accounts.senders import SenderRule, may_send_as
from smtpd_core.net.conversation import Turn, Wish
from smtpd_core.server import offer
from smtpd_core.server.client_facts import believe
from smtpd_core.server.hooks import Hook
from smtpd_core.server.session import Transaction
from smtpd_core.server.verdicts import Redirect
from smtpd_core.wire import replies
from smtpd_core.wire.envelope import Recipient
from smtpd_core.wire.events import (
    ClientFacts,
    Connected,
    CustomCommand,
    Etrn,
    Expand,
    Hello,
    MailFrom,
    RcptTo,
    Verify,
)
from smtpd_core.wire.parameters import moment
from smtpd_core.wire.replies import Reply

if TYPE_CHECKING:
    from smtpd_core.server.dialogue import Dialogue

log = logging.getLogger(__name__)

_NO_SLOT: Final = Wish.NEED_SLOT

too_many_messages_451 = Reply(451, "4.7.1", "Too many messages from your address; try again later")
not_your_address_553 = Reply(553, "5.7.1", "Not an address of yours")


def connected(dialogue: Dialogue, event: Connected, turn: Turn) -> Wish | None:
    peer = dialogue.session.peer
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s: %r connected to %s %s", dialogue.session.id, peer, dialogue.session.listener.service, peer.local)
    if dialogue.protocol.has_input and dialogue.session.listener.service == "mx" and not peer.is_local:
        dialogue.protocol.refuse(replies.early_talker_554)
        return None
    hook = dialogue.house.slots.on_accept_connection
    if hook is None:
        dialogue.protocol.accept()
        return None
    verdict = dialogue.ask(hook, turn, replies.accept_failed_421)
    if verdict is _NO_SLOT:
        return Wish.NEED_SLOT
    accepted, reply = dialogue.judge(hook, verdict, dialogue.protocol.settings.greeting)
    if accepted:
        dialogue.protocol.accept(reply)
    else:
        dialogue.protocol.refuse(replies.accept_failed_421 if reply is replies.hook_failed_451 else reply)
    return None


def hello(dialogue: Dialogue, event: Hello, turn: Turn) -> Wish | None:
    dialogue.origin = None
    if dialogue.protocol.settings.mechanisms:
        offer.follow(dialogue, turn)
    hook = dialogue.house.slots.on_hello
    if hook is None:
        dialogue.protocol.accept()
        return None
    return dialogue.decide(hook, turn, replies.ok_250, event.domain)


def client_facts(dialogue: Dialogue, event: ClientFacts, turn: Turn) -> None:
    believe(dialogue.session, event)
    dialogue.origin = None
    dialogue.protocol.accept()


def mail_from(dialogue: Dialogue, event: MailFrom, turn: Turn) -> Wish | None:
    house, session, protocol = dialogue.house, dialogue.session, dialogue.protocol
    sender = event.reverse_path
    reply = house.why_no_mail(session)
    if reply is not None:
        protocol.refuse(reply)
        return None
    until = event.parameters.hold_until
    if until and moment(until) > time.time() + protocol.settings.longest_hold:
        protocol.refuse(replies.hold_too_long_501)
        return None
    rule = house.sender_rule
    if rule is not SenderRule.OFF and session.user is not None and not may_send_as(session.user, sender):
        log.warning("%s: user %s sends as <%s>", session.id, session.user.user_name, sender)
        if rule is SenderRule.ENFORCE:
            protocol.refuse(not_your_address_553)
            return None
    hook = house.slots.on_mail_from
    if hook is not None:
        verdict = dialogue.ask(hook, turn, replies.hook_failed_451, sender, event.parameters)
        if verdict is _NO_SLOT:
            return Wish.NEED_SLOT
        if isinstance(verdict, Redirect) and len(verdict.addresses) == 1:
            sender = verdict.addresses[0]
        else:
            accepted, reply = dialogue.judge(hook, verdict, replies.sender_250)
            if not accepted:
                protocol.refuse(reply)
                return None
    if house.guard.settings.messages_per_period and not house.guard.may_send(session.address, time.monotonic()):
        protocol.refuse(too_many_messages_451)
        return None
    session.transaction = Transaction(sender, event.parameters)
    protocol.accept(reply)
    return None


def rcpt_to(dialogue: Dialogue, event: RcptTo, turn: Turn) -> Wish | None:
    session, house = dialogue.session, dialogue.house
    transaction = session.transaction
    assert transaction is not None
    recipient = event.recipient
    hook = house.slots.on_recipient_to
    if hook is not None:
        return _ask_about_recipient(dialogue, hook, transaction, recipient, turn)
    reply = house.why_not_this_recipient(session, recipient.address, False) if house.keepings else None
    if reply is None:
        transaction.recipients.append(recipient)
        dialogue.protocol.accept()
    else:
        dialogue.protocol.refuse(reply)
    return None


def _ask_about_recipient(
    dialogue: Dialogue, hook: Hook, transaction: Transaction, recipient: Recipient, turn: Turn
) -> Wish | None:
    verdict = dialogue.ask(hook, turn, replies.hook_failed_451, recipient)
    if verdict is _NO_SLOT:
        return Wish.NEED_SLOT
    if isinstance(verdict, Redirect) and verdict.addresses:
        accepted, reply = True, None
        wanted = [Recipient(one, recipient.notify, recipient.orcpt) for one in verdict.addresses]
    else:
        accepted, reply = dialogue.judge(hook, verdict, replies.recipient_250)
        wanted = [recipient]
    permitted = verdict is not None  # an explicit yes is the rule that lets a client relay
    if accepted:
        for one in wanted:
            refusal = dialogue.house.why_not_this_recipient(dialogue.session, one.address, permitted)
            if refusal is not None:
                accepted, reply = False, refusal
                break
    if accepted:
        if len(wanted) > 1:
            transaction.redirected[len(transaction.recipients)] = len(wanted)
        transaction.recipients.extend(wanted)
        dialogue.protocol.accept(reply)
    else:
        dialogue.protocol.refuse(reply)
    return None


def verify(dialogue: Dialogue, event: Verify, turn: Turn) -> Wish | None:
    return dialogue.decide(dialogue.house.slots.on_verify, turn, replies.ok_250, event.text)


def expand(dialogue: Dialogue, event: Expand, turn: Turn) -> Wish | None:
    return dialogue.decide(dialogue.house.slots.on_expand, turn, replies.ok_250, event.text)


def etrn(dialogue: Dialogue, event: Etrn, turn: Turn) -> Wish | None:
    return dialogue.decide(dialogue.house.slots.on_etrn, turn, replies.ok_250, event.text)


def custom(dialogue: Dialogue, event: CustomCommand, turn: Turn) -> Wish | None:
    hook = dialogue.house.commands.functions.get(event.verb)
    return dialogue.decide(hook, turn, replies.ok_250, event.argument)
