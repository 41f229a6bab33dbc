"""The daemon put together: settings in, a server with its delivery out. The one place where the rooms meet.

    bind()      listening sockets, while the process may still use low ports
    start()     certificates, accounts, spool, queue; recovery; then clients are served
    reload()    what can change while it runs, changes; what can't is told
    stop()      sessions end, what was promised is on disk, deliveries under way end

Rule: everything that can fail for the settings fails in bind() or start(), and leaves nothing behind.
Thread: main.
Not here: what settings mean to the server (serving.py) and to the relay (relaying.py), which of them a running server
takes over (reloading.py), signals and privileges (life.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from certs.renewal import Renewal
from certs.stream import TlsStream
from relay.outbox import Outbox
from relay.relaying import Relaying
from smtpd_core.accounts import AccountStore, StoreUnavailable
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app.certificates import renewal_for, utc_now
from smtpd_core.app.endpoint import system_name
from smtpd_core.app.figures import Figure, Figures
from smtpd_core.app.keeping import Logged
from smtpd_core.app.life import naming
from smtpd_core.app.recovery import Recovering
from smtpd_core.app.relaying import Delivery, relaying_of
from smtpd_core.app.reloading import Restart, left_behind, take_over, within_reach
from smtpd_core.app.routing import Routing
from smtpd_core.app.salt_key import salt_key
from smtpd_core.app.serving import listener_of, properties_of
from smtpd_core.app.settings import Listener as ListenerSection
from smtpd_core.app.settings import Settings
from smtpd_core.app.stores import open_accounts
from smtpd_core.app.sums import Sums
from smtpd_core.app.transcripts import choose_dialogues, transcript_logger
from smtpd_core.app.watch_port import WatchPort
from smtpd_core.net import Door
from smtpd_core.net.listeners import Listener, bind, inherited_descriptors
from smtpd_core.server import SmtpServer
from smtpd_core.server.session import Session
from smtpd_core.server.verdicts import Accept, Verdict
from smtpd_core.wire.envelope import Recipient
from smtpd_core.wire.replies import Reply

log = logging.getLogger(__name__)

_ACCEPT = Accept()

etrn_not_allowed_459 = Reply(459, "4.7.1", "Not allowed to wake the queue of that domain")


@dataclass(frozen=True)
class Ground:
    """What is opened and read for some settings before anything is served by them: all that may fail."""

    settings: Settings
    accounts: AccountStore | None
    renewal: Renewal | None
    routing: Routing
    relaying: Relaying


class Daemon:
    """See the module."""

    def __init__(self, settings: Settings, faults: Sequence[str] = ()) -> None:
        """`faults` are texts of smtpd_core.testing.faults: how to misbehave on purpose. ValueError names a bad one."""
        self._misbehave = misbehaviour(faults)
        self.settings = complete(settings)
        self.listeners: list[Listener] = []
        self.server: SmtpServer | None = None
        self.figures = Figures()
        self.sums: Sums | None = None  # those of the receivers, where there are several processes
        self._doors: dict[ListenerSection, Door] = {}
        self._serves = True
        self._is_leaving = False
        self._watching: WatchPort | None = None
        self._delivery: Delivery | None = None
        self._ground: Ground | None = None

    # -- its life

    def bind(self) -> None:
        """Raises OSError (a port is taken, or may not be used) and ValueError."""
        inherited = inherited_descriptors(os.environ, os.getpid())
        try:
            for section in self.settings.listener:
                self.listeners += bind(self._door(section), inherited)
            if self.settings.metrics.bind:
                self._watching = WatchPort(self.settings.metrics.bind, self._figures, self.why_not_ready)
        except BaseException:
            self._close_listeners()
            raise

    def adopt(self, other: Daemon) -> None:
        """Serve on the sockets that the other one bound for the same addresses (a master's, in its child)."""
        self.listeners = other.listeners
        for listener, door in zip(self.listeners, self._doors_of(self.settings), strict=True):
            listener.belong_to(door)

    def start(
        self,
        *,
        serves: bool = True,
        delivers: bool = True,
        may_serve: Callable[[], bool] = lambda: True,
        recovering: Recovering = lambda done, total: None,
    ) -> bool:
        """Raises OSError, ValueError and their like where the settings can't be served.

        One of several processes either serves, and another delivers what it spools, or delivers. `may_serve` is asked
        when all that may fail is done; where it says no, so does this, and nobody is served."""
        try:
            with naming(self.settings.state):
                return self._start(serves, delivers, may_serve, recovering)
        except BaseException:
            self.stop(1.0)
            self._close_listeners()
            raise

    def _start(self, serves: bool, delivers: bool, may_serve: Callable[[], bool], recovering: Recovering) -> bool:
        settings = self.settings
        self._serves = serves
        self._ground = ground = self._lay(settings)
        self._delivery = Delivery(
            settings,
            ground.routing,
            ground.relaying,
            self.figures.on_outcome,
            spools_only=not delivers,
            recovering=recovering,
        )
        self._delivery.outbox.start()
        if delivers and not self._delivery.outbox.delivers:
            raise OSError(f"state: {settings.state}: another server uses this directory")
        if serves:
            choose_dialogues(settings.log)
            self._warn_of_certificates(ground)
            self.server = server = self._make_server(ground)
            if not may_serve():
                return False
            server._start(self.listeners)
        if self._watching is not None:
            self._watching.start()
        return True

    def stop(self, timeout: float) -> bool:
        """True where all ended in time. Idempotent, also after a failed start."""
        deadline = time.monotonic() + timeout
        ended = True
        self._is_leaving = True
        if self.server is not None:
            ended = self.server.stop(timeout)
        if self._delivery is not None:
            ended &= self._delivery.outbox.stop(max(1.0, deadline - time.monotonic()))
        if self._watching is not None:
            self._watching.stop()
        return ended

    def reload(self, settings: Settings) -> list[Restart]:
        """Take over what can change; what needs a restart and keeps its old value is told.

        Raises what start() raises; then all is as it was.
        """
        assert self._delivery is not None
        settings = complete(settings)
        left = left_behind(self.settings, settings)
        ground = self._lay(within_reach(self.settings, settings))
        if self.server is not None:
            doors = self._doors_of(ground.settings)
            take_over(self.server, self._properties(ground) | {"doors": doors, "on_etrn": self._on_etrn(ground)})
        # From here on nothing fails.
        choose_dialogues(ground.settings.log)
        self._ground = ground
        self.settings = ground.settings
        self._delivery.reload(ground.settings, ground.routing, ground.relaying)
        return left

    def look_after_certificates(self) -> None:
        """Serve with new ones whose files changed, warn of those that expire. To be called every few seconds."""
        if self.renewal is not None:
            self.renewal.look(utc_now())

    # -- what others look at

    @property
    def outbox(self) -> Outbox | None:
        return self._delivery.outbox if self._delivery is not None else None

    @property
    def accounts(self) -> AccountStore | None:
        return self._ground.accounts if self._ground is not None else None

    @property
    def renewal(self) -> Renewal | None:
        """Of the certificates; None where no listener needs one."""
        return self._ground.renewal if self._ground is not None else None

    @property
    def watch_address(self) -> str:
        """HOST:PORT of the metrics, "" where there are none."""
        return "{}:{}".format(*self._watching.address) if self._watching is not None else ""

    def why_not_ready(self) -> str:
        """ "" where mail is taken."""
        if self._is_leaving:
            return "stopping"
        if self.outbox is None or (self._serves and (self.server is None or not self.server.active)):
            return "not serving"
        if self.sums is not None and not self.sums.receivers:
            return "no receiver serves"
        refusal = self.outbox.has_room()
        return str(refusal) if refusal is not None else ""

    def _figures(self) -> list[Figure]:
        own = self.figures.samples(self)
        return self.sums.joined(own) if self.sums is not None else own

    # -- the ground

    def _lay(self, settings: Settings) -> Ground:
        """Raises what start() raises."""
        accounts = opened(settings)
        return Ground(
            settings,
            accounts,
            renewal_for(settings, self.renewal) if self._serves else None,
            Routing(settings, lambda user: accounts is not None and accounts.account(user) is not None),
            relaying_of(settings),
        )

    def _warn_of_certificates(self, ground: Ground) -> None:
        if ground.renewal is not None:
            for file, problem in ground.renewal.problems(utc_now()):
                log.warning("%s: %s", file, problem.text)
            ground.renewal.warn(utc_now())

    # -- the server

    def _properties(self, ground: Ground) -> dict[str, Any]:
        """All that may change while it runs."""
        return properties_of(ground.settings) | {
            "user_accounts": ground.accounts,
            "scram_salt_key": salt_key(ground.settings.state) if ground.accounts is not None else b"",
            "contexts": ground.renewal.contexts if ground.renewal is not None else None,
            "debug_log": transcript_logger(ground.settings.log),
        }

    def _make_server(self, ground: Ground) -> SmtpServer:
        assert self._delivery is not None
        server = self._misbehave(
            listeners=[listener_of(section) for section in ground.settings.listener],
            outbox=Logged(self._delivery.outbox),
            **self._properties(ground),
        )
        server.on_recipient_to(self._judge)
        server.on_etrn = self._on_etrn(ground)
        if ground.settings.metrics.bind:
            server.on_receive_command(self.figures.on_receive_command)
            server.on_send_response(self.figures.on_send_response)
            server.on_close_connection(self.figures.on_close_connection)
        return server

    def _judge(self, session: Session, recipient: Recipient) -> Verdict:
        """At RCPT: an accept of ours is the rule that lets the outbox take it."""
        assert self._ground is not None
        refusal = self._ground.routing.judge(recipient.address, session.address, session.relay_user)
        if refusal is None:
            return _ACCEPT
        log.info("%s: <%s> from %s refused: %s", session.id, recipient.address, session.address or "unix", refusal)
        return refusal

    def _on_etrn(self, ground: Ground) -> Callable[[Session, str], Verdict] | None:
        assert self._delivery is not None
        return self._wake if ground.settings.relay.enabled and self._delivery.outbox.delivers else None

    def _wake(self, session: Session, node: str) -> Verdict:
        """ETRN (RFC 1985), for whoever may relay to the domain: what waits for it is tried now."""
        assert self._ground is not None and self._delivery is not None
        domain = node.removeprefix("@")
        if self._ground.routing.judge(f"postmaster@{domain}", session.address, session.relay_user) is not None:
            return etrn_not_allowed_459
        count = self._delivery.outbox.try_now(domain)
        return Accept(Reply(250, "2.0.0", f"Queuing for {domain} started, {count} messages") if count else None)

    # -- listeners

    def _doors_of(self, settings: Settings) -> list[Door]:
        """One for each bound socket; a host name may have given several."""
        by_address = {section.bind: self._door(section) for section in settings.listener}
        return [by_address[listener.door.settings.bind] for listener in self.listeners]

    def _door(self, section: ListenerSection) -> Door:
        """The same for the same section, so that a reload without a change exchanges none."""
        if section not in self._doors:
            self._doors[section] = self._make_door(section)
        return self._doors[section]

    def _make_door(self, section: ListenerSection) -> Door:
        settings = listener_of(section)
        if section.tls == "none":
            return Door(settings)
        # Channel bindings are for log-ins alone.
        bindings = section.auth != "off"

        def open_tls() -> TlsStream:
            assert self.renewal is not None
            return self.renewal.contexts.stream(bindings=bindings)

        return Door(settings, open_tls=open_tls)

    def _close_listeners(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.listeners = []


def opened(settings: Settings) -> AccountStore | None:
    """The account store. ValueError says why it can't be had."""
    try:
        store = open_accounts(settings.accounts)
        if store is not None:
            _ = store.kinds  # what can be offered is asked of a database, which may be down
        return store
    except (ValueError, OSError, ExtraMissing, StoreUnavailable) as error:
        raise ValueError(f"accounts.store: {error}") from None


def misbehaviour(texts: Sequence[str]) -> Callable[..., SmtpServer]:
    """What makes the server: the real one, or one that plays these faults."""
    if not texts:
        return SmtpServer
    # The testing kit is loaded for whoever asks for it.
    from smtpd_core.testing.faults import Faults
    from smtpd_core.testing.faulty import FaultyServer

    faults = Faults()
    for text in texts:
        faults.add(text)
    return partial(FaultyServer, faults)


def complete(settings: Settings) -> Settings:
    """The settings with the system's name where they have none."""
    if settings.hostname:
        return settings
    return replace(settings, hostname=system_name())
