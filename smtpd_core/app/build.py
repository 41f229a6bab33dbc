"""The daemon put together: settings in, a server with its delivery out. The one place where the rooms meet.

    bind()      listening sockets, while the process may still use low ports
    start()     certificates, accounts, spool, queue; recovery; then clients are served
    reload()    what can change while it runs, changes; what can't is told
    stop()      sessions end, what was promised is on disk, deliveries under way end

Rule: everything that can fail for the settings fails in bind() or start(), and leaves nothing behind.
Thread: main.
Not here: signals and privileges (life.py), the command (cmd_serve.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from certs.renewal import Renewal
from certs.stream import TlsStream
from relay.outbox import Outbox
from smtpd_core.accounts import AccountStore, StoreUnavailable
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app.certificates import pair_files, tls_terms, utc_now
from smtpd_core.app.figures import Figure, Figures
from smtpd_core.app.keeping import Logged
from smtpd_core.app.load import BadSettings
from smtpd_core.app.logs import transcript_logger
from smtpd_core.app.relaying import Delivery
from smtpd_core.app.routing import Routing
from smtpd_core.app.salt_key import salt_key
from smtpd_core.app.sanity import system_name
from smtpd_core.app.settings import Listener as ListenerSection
from smtpd_core.app.settings import Settings
from smtpd_core.app.stores import open_accounts
from smtpd_core.app.watch_port import WatchPort
from smtpd_core.net import Door, GuardSettings, ListenerSettings, Timeouts
from smtpd_core.net.listeners import Listener, bind, inherited_descriptors
from smtpd_core.server import SmtpServer
from smtpd_core.server.session import Session
from smtpd_core.server.verdicts import Accept, Verdict
from smtpd_core.wire.envelope import Recipient
from smtpd_core.wire.replies import Reply

log = logging.getLogger(__name__)

_ACCEPT = Accept()

etrn_not_allowed_459 = Reply(459, "4.7.1", "Not allowed to wake the queue of that domain")


class Daemon:
    """See the module."""

    def __init__(self, settings: Settings, faults: Sequence[str] = ()) -> None:
        """`faults` are texts of smtpd_core.testing.faults: how to misbehave on purpose. ValueError names a bad one."""
        self._misbehave = misbehaviour(faults)
        self.settings = settings = complete(settings)
        self.listeners: list[Listener] = []
        self.accounts: AccountStore | None = None
        self.renewal: Renewal | None = None
        self.server: SmtpServer | None = None
        self._doors = [self._door(one) for one in settings.listener]
        self.figures = Figures()
        self._serves = True
        self._is_leaving = False
        self._watching: WatchPort | None = None
        self._delivery: Delivery | None = None
        self._routing: Routing | None = None

    # -- its life

    def bind(self) -> None:
        """Raises OSError (a port is taken, or may not be used) and ValueError."""
        inherited = inherited_descriptors(os.environ, os.getpid())
        try:
            for door in self._doors:
                self.listeners += bind(door, inherited)
            if self.settings.metrics.bind:
                self._watching = WatchPort(self.settings.metrics.bind, self._figures, self.why_not_ready)
        except BaseException:
            self._close_listeners()
            raise

    def adopt(self, other: Daemon) -> None:
        """Serve on the sockets that the other one bound for the same listeners (a master's, in its child)."""
        for listener in other.listeners:
            listener.door = self._doors[other._doors.index(listener.door)]
        self.listeners = other.listeners

    def start(self, *, serves: bool = True, delivers: bool = True) -> None:
        """Raises OSError, ValueError and their like where the settings can't be served.

        One of several processes either serves, and another delivers what it spools, or delivers."""
        try:
            self._start(serves, delivers)
        except BaseException:
            self.stop(1.0)
            self._close_listeners()
            raise

    def _start(self, serves: bool, delivers: bool) -> None:
        settings = self.settings
        self._serves = serves
        if serves and any(one.tls != "none" for one in settings.listener):
            self.renewal = Renewal(pair_files(settings), **tls_terms(settings))
            for file, problem in self.renewal.problems(utc_now()):
                log.warning("%s: %s", file, problem.text)
            self.renewal.warn(utc_now())
        self.accounts = self._open_accounts(settings)
        self._routing = Routing(settings, self._has_account)
        self._delivery = Delivery(settings, self._routing, self.figures.on_outcome, spools_only=not delivers)
        self._delivery.outbox.start()
        if delivers and not self._delivery.outbox.delivers:
            raise OSError(f"state: {settings.state}: another server uses this directory")
        if serves:
            self.server = server = self._make_server(settings)
            server._start(self.listeners)
        if self._watching is not None:
            self._watching.start()

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

    def reload(self, settings: Settings) -> list[str]:
        """Take over what can change; the keys that need a restart and keep their old values.

        Raises what start() raises; then all is as it was.
        """
        assert self._delivery is not None
        settings = complete(settings)
        left = list(needing_restart(self.settings, settings))
        settings = kept(self.settings, settings)
        accounts = self._open_accounts(settings)
        renewal = self.renewal
        if renewal is not None:
            renewal = renewal.successor(pair_files(settings), utc_now(), **tls_terms(settings))
        routing = Routing(settings, self._has_account)
        if self.server is not None:
            wanted = properties(settings) | {
                "guard": guard_of(settings),
                "user_accounts": accounts,
                "scram_salt_key": salt_key(settings.state) if accounts is not None else b"",
                "debug_log": transcript_logger(settings.log),
            }
            take_over(self.server, wanted)
        # From here on nothing fails.
        self.renewal = renewal
        self.accounts = accounts
        self._routing = routing
        self._delivery.reload(settings, routing)
        self.settings = settings
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
    def watch_address(self) -> str:
        """HOST:PORT of the metrics, "" where there are none."""
        return "{}:{}".format(*self._watching.address) if self._watching is not None else ""

    def why_not_ready(self) -> str:
        """ "" where mail is taken."""
        if self._is_leaving:
            return "stopping"
        if self.outbox is None or (self._serves and (self.server is None or not self.server.active)):
            return "not serving"
        refusal = self.outbox.has_room()
        return str(refusal) if refusal is not None else ""

    def _figures(self) -> list[Figure]:
        return self.figures.samples(self)

    # -- parts

    def _make_server(self, settings: Settings) -> SmtpServer:
        assert self._delivery is not None
        server = self._misbehave(
            listeners=[door.settings for door in self._doors],
            timeout=settings.limits.timeouts.command,
            session_timeout=settings.limits.timeouts.session,
            timeouts=timeouts_of(settings),
            hook_budget=settings.limits.hook_budget,
            guard=guard_of(settings),
            user_accounts=self.accounts,
            scram_salt_key=salt_key(settings.state) if self.accounts is not None else b"",
            contexts=self.renewal.contexts if self.renewal is not None else None,
            outbox=Logged(self._delivery.outbox),
            debug_log=transcript_logger(settings.log),
            **properties(settings),
        )
        server.on_recipient_to(self._judge)
        if settings.relay.enabled and self._delivery.outbox.delivers:
            server.on_etrn(self._wake)
        if settings.metrics.bind:
            server.on_receive_command(self.figures.on_receive_command)
            server.on_send_response(self.figures.on_send_response)
            server.on_close_connection(self.figures.on_close_connection)
        return server

    def _judge(self, session: Session, recipient: Recipient) -> Verdict:
        """At RCPT: an accept of ours is the rule that lets the outbox take it."""
        assert self._routing is not None
        refusal = self._routing.judge(recipient.address, session.address, session.relay_user)
        if refusal is None:
            return _ACCEPT
        log.info("%s: <%s> from %s refused: %s", session.id, recipient.address, session.address or "unix", refusal)
        return refusal

    def _wake(self, session: Session, node: str) -> Verdict:
        """ETRN (RFC 1985), for whoever may relay to the domain: what waits for it is tried now."""
        assert self._routing is not None and self._delivery is not None
        domain = node.removeprefix("@")
        if self._routing.judge(f"postmaster@{domain}", session.address, session.relay_user) is not None:
            return etrn_not_allowed_459
        count = self._delivery.outbox.try_now(domain)
        return Accept(Reply(250, "2.0.0", f"Queuing for {domain} started, {count} messages") if count else None)

    def _has_account(self, user: str) -> bool:
        return self.accounts is not None and self.accounts.account(user) is not None

    def _open_accounts(self, settings: Settings) -> AccountStore | None:
        try:
            store = open_accounts(settings.accounts)
            if store is not None:
                _ = store.kinds  # what can be offered is asked of a database, which may be down
            return store
        except (ValueError, OSError, ExtraMissing, StoreUnavailable) as error:
            raise BadSettings([f"accounts.store: {error}"]) from None

    def _door(self, section: ListenerSection) -> Door:
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


def listener_of(section: ListenerSection) -> ListenerSettings:
    return ListenerSettings(
        bind=section.bind,
        service=section.service,
        tls=section.tls,
        auth=section.auth,
        proxy_protocol=section.proxy_protocol,
        proxy_from=section.proxy_from,
        xclient_from=section.xclient_from,
        mechanisms=section.mechanisms,
        without=section.without,
    )


def timeouts_of(settings: Settings) -> Timeouts:
    limits, times = settings.limits, settings.limits.timeouts
    return Timeouts(
        greeting=times.greeting,
        handshake=times.handshake,
        command=times.command,
        data=times.data,
        login=times.login,
        session=times.session,
        hook_wait=times.hook_wait,
        minimum_rate=limits.minimum_rate,
        rate_window=limits.rate_window,
    )


def guard_of(settings: Settings) -> GuardSettings:
    guard, limits = settings.guard, settings.limits
    return GuardSettings(
        max_connections=limits.max_connections,
        max_per_source=limits.max_connections_per_source,
        max_per_prefix=guard.max_per_prefix,
        connections_per_period=guard.connections_per_period,
        messages_per_period=guard.messages_per_period,
        period=guard.period,
        allow=guard.allow,
        block=guard.block,
        allow_only=guard.allow_only,
        exempt=(*guard.exempt, *settings.relay.allow_networks),
        login_delay=guard.login_delay,
        lock_out_after=guard.lock_out_after,
        lock_out_period=guard.lock_out_period,
    )


def properties(settings: Settings) -> dict[str, Any]:
    """The server's properties that may change while it runs."""
    limits, accounts = settings.limits, settings.accounts
    return {
        "server_name": settings.hostname,
        "max_thread_count": settings.threads.max,
        "min_thread_count": settings.threads.min,
        "max_recipients": limits.max_recipients,
        "max_data_size": limits.max_message_size,
        "max_errors": limits.max_errors,
        "max_received": limits.max_received,
        "bare_line_ends": limits.bare_lf,
        "bare_line_ends_in_chunks": limits.bare_lf_in_chunks,
        "keep_nul": limits.keep_nul,
        "strict_lines": limits.strict_lines,
        "auth_mechanisms": accounts.mechanisms,
        "ntlm_version_1": accounts.ntlm_version_1,
        "without_extensions": limits.without,
        "clear_text_without_tls": accounts.cleartext_without_tls,
        "restrict_senders": accounts.sender_rule,
        "case_insensitive": accounts.case_insensitive,
    }


def take_over(server: SmtpServer, wanted: Mapping[str, Any]) -> None:
    """Set all these properties of a running server or, where one is refused, none.

    Some fit each other only in the end: what is refused is tried again as long as another one was taken.
    """
    before = {name: getattr(server, name) for name in wanted}
    left = [name for name, value in wanted.items() if before[name] != value]
    changed = list(left)
    try:
        if "auth_mechanisms" in left and "user_accounts" in left:
            server.auth_mechanisms = ()  # whatever a store serves, until both are there
        while left:
            refused: dict[str, ValueError] = {}
            for name in left:
                try:
                    setattr(server, name, wanted[name])
                except ValueError as error:
                    refused[name] = error
            if len(refused) == len(left):
                raise refused[left[0]]
            left = list(refused)
    except BaseException:
        undone = {name: before[name] for name in changed}
        for _ in range(len(undone)):
            for name in list(undone):
                with suppress(ValueError):
                    setattr(server, name, undone[name])
                    del undone[name]
        raise


# -- what a reload can't change


def needing_restart(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Keys of settings that differ and are read at the start only."""
    for one in fields(old):
        here = f"{key}.{one.name}" if key else one.name
        before, after = getattr(old, one.name), getattr(new, one.name)
        if is_dataclass(before):
            yield from needing_restart(before, after, here)
        elif before != after and (one.metadata["restart"] or one.name == "listener"):
            yield here


def kept(old: Any, new: Any) -> Any:
    """The new settings with the old values of what can't change."""
    values: dict[str, Any] = {}
    for one in fields(old):
        before = getattr(old, one.name)
        if is_dataclass(before):
            values[one.name] = kept(before, getattr(new, one.name))
        elif one.metadata["restart"] or one.name == "listener":
            values[one.name] = before
    return replace(new, **values)
