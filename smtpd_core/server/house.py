"""What all sessions of a server share: slots, keeping, policy, clocks. One attribute look-up away for every turn.

Thread: read by every turn; what may change while the server runs is replaced as a whole, never changed in place.
Not here: the server's properties (server.py), one session's dialogue (dialogue.py).
"""

from __future__ import annotations

import logging

from smtpd_core.accounts import AccountStore
from smtpd_core.accounts.senders import SenderRule
from smtpd_core.net import Guard, ListenerSettings
from smtpd_core.net.guard import Networks
from smtpd_core.server.commands import CommandTable
from smtpd_core.server.hooks import Slots
from smtpd_core.server.keeping import Keeping, drafts_of
from smtpd_core.server.observers import DebugLog, Transcripts
from smtpd_core.server.offer import Offer
from smtpd_core.server.received import Clock
from smtpd_core.server.session import Session
from smtpd_core.server.withheld import WithheldError
from smtpd_core.threads import HookMeter
from smtpd_core.wire.replies import Reply, hook_failed_451, no_such_recipient_550, nothing_keeps_mail_554, storage_452

log = logging.getLogger(__name__)

relaying_denied_550 = Reply(550, "5.7.1", "Relaying needs authentication")


class House:
    """See the module. `offer` has the protocol settings of each listener."""

    def __init__(self, slots: Slots, commands: CommandTable, guard: Guard) -> None:
        self.slots = slots
        self.commands = commands
        self.guard = guard
        self.clock = Clock()
        self.hostname = "localhost"
        self.offer = Offer()
        self.trusted: dict[ListenerSettings, Networks] = {}
        self.accounts: AccountStore | None = None
        self.store: Keeping | None = None
        self.outbox: Keeping | None = None
        self.keepings: tuple[Keeping, ...] = ()
        self.drafts: str | None = None
        self.relay_from = Networks(())
        self.sender_rule = SenderRule.OFF
        self.max_received = 100
        self.login_meter = HookMeter("login", slots.budget, slots.login_share)
        self.debug: DebugLog | None = None
        self.transcripts: Transcripts | None = None
        self.is_watched = False

    def keep_with(self, store: Keeping | None, outbox: Keeping | None, drafts: str | None) -> None:
        """What keeps mail from the next transaction on."""
        self.store, self.outbox = store, outbox
        self.keepings = tuple(one for one in (store, outbox) if one is not None)
        named = [where for where in map(drafts_of, self.keepings) if where]
        self.drafts = drafts or (named[0] if named else None)

    def watch(self) -> None:
        """Decide whether new sessions need an observer; none costs one attribute test per command."""
        slots = self.slots
        self.is_watched = bool(self.debug or self.transcripts or slots.on_receive_command or slots.on_send_response)

    def why_no_mail(self, session: Session) -> Reply | None:
        """Asked at MAIL."""
        if not self.keepings:
            return nothing_keeps_mail_554 if self.slots.on_message_received is None else None
        try:
            for keeping in self.keepings:
                refusal = keeping.has_room()
                if refusal is not None:
                    return refusal
        except Exception as error:
            return self.keeping_failed(session, error)
        return None

    def keeping_failed(self, session: Session, error: Exception) -> Reply:
        """A keeping raised: trouble with the disk is 452 4.3.1, everything else a mistake that is reported."""
        if isinstance(error, OSError):
            log.error("%s: keeping mail: %s", session.id, error)
            return storage_452
        self.report(session, "keeping mail", error)
        return hook_failed_451

    def why_not_this_recipient(self, session: Session, address: str, permitted: bool) -> Reply | None:
        """Store first, then outbox, which is relaying: for users, for trusted networks, or by an explicit rule."""
        if not self.keepings:
            return None
        try:
            if self.store is not None and self.store.holds(address):
                return None
            if self.outbox is None or not self.outbox.holds(address):
                return no_such_recipient_550
        except Exception as error:
            return self.keeping_failed(session, error)
        if permitted or session.relay_user or not session.address or session.address in self.relay_from:
            return None
        return relaying_denied_550

    def report(self, session: Session | None, where: str, error: BaseException, *, secret: bool = False) -> None:
        """An unexpected exception: logged with its flow id and told to on_server_error. Within a slot.

        `secret`: it was raised with a secret at hand, so nobody is told more than its kind and its places.
        """
        who = session.id if session is not None else "server"
        told = WithheldError(where, error) if secret else error
        _log_failure(who, where, told)
        hook = self.slots.on_server_error
        if hook is None:
            return
        try:
            if isinstance(told, WithheldError):
                told.tell(hook.function, session)
            else:
                hook.function(session, told)
        except BaseException as failure:  # the observer of errors has nobody behind it but the log
            # What it raises may quote what it was told of, and is chained to what is being handled here.
            _log_failure(who, "on_server_error", WithheldError("on_server_error", failure) if secret else failure)


def _log_failure(who: str, where: str, told: BaseException) -> None:
    if isinstance(told, WithheldError):
        log.error("%s: %s, by way of\n%s", who, str(told), told.places.rstrip())
    else:
        log.error("%s: %s failed", who, where, exc_info=told)
