"""What AUTH offers follows the account store: looked at when a client says EHLO, where the store says that it changed.

The look is one comparison of the store's `version`. Only where that is another one is the store asked what it serves,
as part of the log-in share, since it may block; new offers are made for all listeners at once.
A mechanism that was asked for by name and serves nobody any more is left out, unless no other would be left: then
those offers stay that were, which the accounts that still have the secret can use.
Thread: the session's turn; one at a time makes offers, the others go on with those that there are.
Not here: which mechanisms are usable (login.py), the reply to EHLO (wire).
"""

from __future__ import annotations

import logging
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


class Offer:
    """The dialects of all listeners, and the version of the account store that they were made for."""

    def __init__(self) -> None:
        self.dialects: dict[ListenerSettings, ProtocolSettings] = {}
        self._make: Make | None = None
        self._version: object = None
        self._lock = Lock()

    def begin(self, dialects: dict[ListenerSettings, ProtocolSettings], version: object, make: Make) -> None:
        """`dialects` were made after `version` was read; `make` makes one anew."""
        self.dialects, self._version, self._make = dialects, version, make

    def is_old(self, store: AccountStore | None) -> bool:
        return version_of(store) != self._version

    def renew(self, store: AccountStore | None) -> None:
        """Ask the store, which may block. Where it does not answer, or has nothing, all stays as it was."""
        if self._make is None or not self._lock.acquire(blocking=False):
            return
        try:
            self._version = version_of(store)  # before asking: a change in between is then seen next time
            self.dialects = {one: self._renewed(one, old, self._make) for one, old in self.dialects.items()}
        finally:
            self._lock.release()

    def _renewed(self, listener: ListenerSettings, old: ProtocolSettings, make: Make) -> ProtocolSettings:
        if not old.mechanisms:
            return old
        try:
            new = make(listener)
        except StoreUnavailable:
            return old
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


def follow(dialogue: Dialogue, turn: Turn) -> bool:
    """At EHLO on a listener with AUTH: let the session have what is offered now. False where there is no slot."""
    house = dialogue.house
    if house.offer.is_old(house.accounts):
        if not turn.enter(house.login_meter):
            return False
        try:
            house.offer.renew(house.accounts)
        except BaseException as error:
            house.report(dialogue.session, "the account store", error, secret=True)
        finally:
            turn.leave(house.login_meter)
    dialect = house.offer.dialects[dialogue.session.listener]
    if dialect.mechanisms != dialogue.protocol.settings.mechanisms:
        dialogue.protocol.adopt(dialect)
    return True
