"""What AUTH offers follows the account store: looked at when a client says EHLO, where the store says that it changed.

The look is one comparison of the store's `version`. Only where that is another one is the store asked what it serves,
as part of the log-in share, since it may block; new offers are made for all listeners at once.
A mechanism that was asked for by name and serves nobody any more is left out, unless no other would be left: then
those offers stay that were, which the accounts that still have the secret can use.
Thread: the session's turn; one at a time makes offers. The others go on with those that there are, and so do all where
the log-in share is full: who only brings mail does not stand in line behind log-ins.
Not here: which mechanisms are usable (login.py), the reply to EHLO (wire).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpd_core.accounts import AccountStore, StoreUnavailable
from smtpd_core.accounts.store import version_of
from smtpd_core.net import ListenerSettings
from smtpd_core.net.conversation import Turn
from smtpd_core.threads import Lock
from smtpd_core.wire.settings import ProtocolSettings

if TYPE_CHECKING:
    from smtpd_core.server.dialogue import Dialogue

log = logging.getLogger(__name__)

# The protocol settings of a listener with what its store serves now. ValueError where that is nothing.
Make = Callable[[ListenerSettings], ProtocolSettings]

# Seconds after which a store that did not answer is asked again, though it is of the same version.
ASK_AGAIN_AFTER = 10.0


class Offer:
    """The dialects of all listeners, and the version of the account store that they were made for."""

    def __init__(self) -> None:
        self.dialects: dict[ListenerSettings, ProtocolSettings] = {}
        self._make: Make | None = None
        self._version: object = None
        self._ask_again = 0.0  # when; 0 where the store answered
        self._asking = Lock()
        self._changing = Lock()

    def begin(self, dialects: dict[ListenerSettings, ProtocolSettings], version: object, make: Make) -> None:
        """`dialects` were made after `version` was read; `make` makes one anew."""
        with self._changing:
            self.dialects, self._version, self._make, self._ask_again = dialects, version, make, 0.0

    def is_old(self, store: AccountStore | None) -> bool:
        if self._ask_again and time.monotonic() >= self._ask_again:
            return True
        try:
            return version_of(store) != self._version
        except Exception:  # renew() meets it too, and there it is told
            return not self._ask_again

    def renew(self, store: AccountStore | None) -> None:
        """Ask the store, which may block. Where it does not answer, or has nothing, all stays as it was."""
        if self._make is None or not self._asking.acquire(blocking=False):
            return
        try:
            with self._changing:
                before, make, self._ask_again = self.dialects, self._make, 0.0
            self._version = version_of(store)  # before asking: a change in between is then seen next time
            made = {one: self._renewed(one, old, make) for one, old in before.items()}
            with self._changing:
                if self.dialects is before:  # else they were made for other settings meanwhile, and count
                    self.dialects = made
        except BaseException as error:
            self._ask_again = time.monotonic() + ASK_AGAIN_AFTER
            if not isinstance(error, StoreUnavailable):
                raise
        finally:
            self._asking.release()

    def _renewed(self, listener: ListenerSettings, old: ProtocolSettings, make: Make) -> ProtocolSettings:
        if not old.mechanisms:
            return old
        try:
            new = make(listener)
        except ValueError as error:
            log.error("%s; AUTH goes on to offer %s", error, " ".join(old.mechanisms))
            return old
        if new.mechanisms == old.mechanisms:
            return old
        log.info(
            "listener %s: the accounts changed, AUTH offers %s instead of %s",
            listener.bind,
            " ".join(new.mechanisms),
            " ".join(old.mechanisms),
        )
        return new


def follow(dialogue: Dialogue, turn: Turn) -> None:
    """At EHLO on a listener with AUTH: let the session have what is offered now."""
    house = dialogue.house
    if house.offer.is_old(house.accounts) and turn.enter(house.login_meter):
        try:
            house.offer.renew(house.accounts)
        except BaseException as error:
            house.report(dialogue.session, "the account store", error, secret=True)
        finally:
            turn.leave(house.login_meter)
    dialect = house.offer.dialects[dialogue.session.listener]
    if dialect.mechanisms != dialogue.protocol.settings.mechanisms:
        dialogue.protocol.adopt(dialect)
