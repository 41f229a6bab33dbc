"""The events of AUTH: the mechanism's question to program and store, the success, the failure.

Order: lock-out, on_authenticate, the store. All of it is one hook of the login share, since any step may block.
Thread: the session's turn.
Not here: what the answers mean (login.py), counting (net/guard.py).
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from smtpd_core.accounts import Account
from smtpd_core.net.conversation import Pause, Turn, Wish
from smtpd_core.server.login import Answer, BadAnswer, Login, account_of, acting, answer_of_program, answer_of_store
from smtpd_core.wire import replies
from smtpd_core.wire.events import Authenticated, AuthFailed, NeedSecret
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.sasl.exchange import NOT_TRIED

if TYPE_CHECKING:
    from smtpd_core.server.dialogue import Dialogue

log = logging.getLogger(__name__)

not_that_identity_535 = Reply(535, "5.7.8", "Not an identity of yours")


def need_secret(dialogue: Dialogue, event: NeedSecret, turn: Turn) -> Wish | None:
    house, session, protocol = dialogue.house, dialogue.session, dialogue.protocol
    if not turn.enter(house.login_meter):
        return Wish.NEED_SLOT
    try:
        if not house.guard.begin_login(session.address, event.user, time.monotonic()):
            # A made-up challenge would differ from the one before the lock-out, and so tell a known user.
            protocol.supply(NOT_TRIED)
            return None
        answer = _find_secret(dialogue, event)
    finally:
        turn.leave(house.login_meter)
    if answer.refusal is not None:
        log.info("%s: a log-in by %s was not judged: %d", session.id, event.mechanism, answer.refusal.code)
        if not answer.refusal.is_permanent:
            house.guard.login_not_judged(session.address, event.user)
        protocol.refuse(answer.refusal)
    else:
        dialogue.login_user, dialogue.account = event.user, answer.account
        protocol.supply(answer.secret)
    return None


def _find_secret(dialogue: Dialogue, event: NeedSecret) -> Answer:
    house = dialogue.house
    hook = house.slots.on_authenticate
    where = "on_authenticate"
    try:
        if hook is not None:
            verdict = hook.function(dialogue.session, Login(event))
            answer = answer_of_program(verdict, event, dialogue.protocol.settings.salt_key)
            if answer is not None:
                return answer
        where = "the account store"
        return answer_of_store(house.accounts, event)
    except BadAnswer as error:
        house.report(dialogue.session, where, error.with_traceback(None))
        return Answer(refusal=replies.login_unavailable_454)
    except BaseException as error:
        house.report(dialogue.session, where, error, secret=True)
        return Answer(refusal=replies.login_unavailable_454)


def authenticated(dialogue: Dialogue, event: Authenticated, turn: Turn) -> Wish | None:
    house, session, protocol = dialogue.house, dialogue.session, dialogue.protocol
    known = dialogue.account
    account: Account | Reply | None = known
    # Who asks to act as the name that he logs in with asks for nothing, however the store spells it.
    acts_as = "" if event.acts_as == dialogue.login_user else event.acts_as
    if known is None or acts_as not in ("", known.user_name):
        if not turn.enter(house.login_meter):
            return Wish.NEED_SLOT
        try:
            account = known or account_of(house.accounts, event.identity)
            if isinstance(account, Account):
                account = acting(house.accounts, account, acts_as)
        except BadAnswer as error:
            house.report(session, "the account store", error.with_traceback(None))
            account = replies.login_unavailable_454
        except BaseException as error:
            house.report(session, "the account store", error, secret=True)
            account = replies.login_unavailable_454
        finally:
            turn.leave(house.login_meter)
    dialogue.account = None
    if isinstance(account, Reply):
        house.guard.login_not_judged(session.address, dialogue.login_user)
        protocol.refuse(account)
        return None
    if account is None or not account.may_log_in:
        protocol.refuse(not_that_identity_535)
        return None
    if event.mechanism == "ANONYMOUS":
        account = replace(account, may_relay=False)  # anybody may be this one, and a relay for anybody is an open one
    house.guard.login_succeeded(session.address, dialogue.login_user)
    session.user = account
    if account.user_name != event.identity:
        log.info("%s: %s acts as %s", session.id, event.identity, account.user_name)
    if dialogue.witness is not None:
        dialogue.witness.note("user", account.user_name)
    protocol.accept()
    return None


def auth_failed(dialogue: Dialogue, event: AuthFailed, turn: Turn) -> Pause | None:
    """The answer waits longer with each failure, so that guessing is slow; no thread waits with it."""
    dialogue.account = None
    if not dialogue.failure_told:
        dialogue.failure_told = True
        delay = dialogue.house.guard.login_delay(dialogue.session.address, event.user, time.monotonic())
        if delay > 0:
            return Pause(delay)
    dialogue.failure_told = False
    dialogue.protocol.refuse()
    return None
