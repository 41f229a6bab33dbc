"""SmtpServer: a mail server in one object, for programs with threads.

    server = SmtpServer(port=0)

    @server.on_message_received
    def keep(session, message):
        print(message.sender, message.addresses, message.headers["subject"])

    with server:
        print(server.address)

Rules: it binds in the caller's thread, so that errors raise there; it installs no signal handler and keeps no global
state, so that a process may run several; hooks run in its threads and may block.
Thread: every method and property from any.
Not here: one session (dialogue.py), sockets and threads (smtpd_core.net, smtpd_core.threads).
"""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Unpack

from smtpd_core.accounts import AccountStore, MemoryStore, UserAccount
from smtpd_core.accounts.callable import CallableStore
from smtpd_core.accounts.senders import SenderRule
from smtpd_core.accounts.store import version_of
from smtpd_core.net import Door, Engine, Guard, GuardSettings, ListenerSettings, Peer
from smtpd_core.net.guard import Networks
from smtpd_core.net.listeners import Listener
from smtpd_core.server import dialects
from smtpd_core.server.commands import CommandTable
from smtpd_core.server.component import PROPERTIES, Component, Properties
from smtpd_core.server.dialogue import Dialogue
from smtpd_core.server.hooks import NAMES, Slots
from smtpd_core.server.house import House
from smtpd_core.server.keeping import Living
from smtpd_core.server.observers import DebugLog, Transcripts
from smtpd_core.server.options import AT_START, NEXT_CONNECTION, Option, unknown_name
from smtpd_core.server.session import Session
from smtpd_core.threads import HookMeter, Lock, Ticket, start_loop

log = logging.getLogger(__name__)

# The longest that stop() waits for a start() that is under way.
_STARTING = 10.0

# Sessions whose transcripts are remembered where debug_log is on and nothing else was said.
_TRANSCRIPTS = 100

# Seconds of a hook without a budget: a day, after which it is worth a line in the log in any case.
_NO_BUDGET = 86_400.0


class SmtpServer(Component):
    """See the module. `handler` is an object with any of the events as methods (server/handler.py); events may also be
    set one by one. Keywords are the properties of component.py; an unknown one is a TypeError."""

    def __init__(self, handler: object | None = None, **properties: Unpack[Properties]) -> None:
        given: dict[str, Any] = dict(properties)
        super().__init__(Slots(SmtpServer.hook_budget.default))
        self._engine: Engine | None = None
        self._lock = Lock()
        self._ended: Ticket | None = None
        self._listeners: list[ListenerSettings] = []
        self._started_keepings: list[Living] = []
        self._is_ending = False
        self._is_made = False
        self._debug_made: tuple[object, str] = (None, "text")
        self._commands = CommandTable(self._slots.budget, self._renew_dialects)
        self._house = House(self._slots, self._commands, Guard())
        self._handler = handler
        if handler is not None:
            self._slots.take_from(handler)
        for name, value in given.items():
            if name not in PROPERTIES and name not in NAMES:
                raise TypeError(unknown_name(name, [*PROPERTIES, *NAMES]))
            setattr(self, name, value)
        self._is_made = True
        self._check_threads()
        self._set_budget()
        self._set_house()

    def __repr__(self) -> str:
        return f"<SmtpServer {', '.join(map(str, self.addresses)) if self.active else 'stopped'}>"

    # -- life

    def start(self) -> SmtpServer:
        """Bind and serve. Returns when clients can connect; `address` is known then.

        Raises OSError (port in use), ValueError (properties that can't work together), CertificateError, and
        RuntimeError where it runs already or is still stopping (wait() first). After a failed start nothing is left
        behind and it may be tried again.
        """
        self._start(())
        return self

    def _start(self, bound: Sequence[Listener]) -> None:
        with self._lock:
            if self._engine is not None and self._engine.is_running:
                raise RuntimeError("this server runs already")
            if self.drafts is not None and not os.path.isdir(self.drafts):
                raise ValueError(f"drafts = {self.drafts!r}: there is no such directory")
            if (self._engine is not None and self._engine.is_stopping) or self._is_ending:
                raise RuntimeError("this server is still stopping; wait() until it has")
            self._set_house()
            self._listeners = listeners = [one.door.settings for one in bound] or dialects.listeners_of(self)
            self._make_dialects()
            guard = self.guard
            self._house.guard = guard if isinstance(guard, Guard) else Guard(guard)
            engine = Engine(
                [one.door for one in bound] or self._doors(listeners),
                self._open,
                timeouts=dialects.timeouts_of(self),
                guard=self._house.guard,
                min_threads=self.min_thread_count,
                max_threads=self.max_thread_count,
                batch_size=self.batch_size,
                listeners=bound,
            )
            started = self._start_keepings()
            try:
                engine.start()
            except BaseException:
                self._stop_keepings(started, 5.0)
                raise
            self._started_keepings += started  # what an earlier run left is still ours to stop
            self._engine = engine
            self._ended = Ticket()
        self._tell("on_start")

    def stop(self, timeout: float | None = 30.0) -> bool:
        """Take no more connections; idle sessions hear 421, others may finish until `timeout` seconds have passed.

        Idempotent, from any thread, also after a failed start. True when everything has ended; False where a hook still
        runs, whose thread ends after it, and from within a hook, where it only begins.
        """
        if timeout is not None:  # what is left of somebody's deadline may be less than nothing
            timeout = max(0.0, timeout) if timeout != math.inf else None
        if not self._lock.acquire(timeout=_STARTING if timeout is None else min(timeout, _STARTING)):
            return False  # it is still starting, perhaps in this very thread, which a signal interrupted
        engine, ended = self._engine, self._ended
        self._lock.release()
        if engine is None or ended is None:
            return True
        if engine.pool.is_mine():
            # A hook can't wait for its own end, and what keeps its message must outlive it.
            if engine.is_running:
                start_loop("smtpd-stop", lambda: _ignore(self._stop(engine, ended, timeout)))
            return False
        return self._stop(engine, ended, timeout)

    def _stop(self, engine: Engine, ended: Ticket, timeout: float | None) -> bool:
        """End this engine, which may not be the server's any more: another thread may have started it again."""
        has_ended = engine.stop(timeout)
        with self._lock:
            is_first = self._ended is ended and not self._is_ending and not ended.is_resolved
            if is_first:
                self._is_ending = True
            elif self._ended is not ended:
                ended.resolve()  # started again in between: the new run has the keepings, and its stop() ends them
        if not is_first:
            return ended.wait(timeout) and has_ended
        try:
            keepings, self._started_keepings = self._started_keepings, []
            has_ended &= self._stop_keepings(keepings, 10.0 if timeout is None else max(1.0, timeout))
            self._close_debug_log()
        finally:
            self._is_ending = False
            ended.resolve()  # not before: who waits may start again, with the same keepings
        self._tell("on_stop")
        return has_ended

    def _start_keepings(self) -> list[Living]:
        """Store and outbox that have a life and were not running."""
        started: list[Living] = []
        try:
            for keeping in self._house.keepings:
                if isinstance(keeping, Living) and keeping.start():
                    started.append(keeping)
        except BaseException:
            self._stop_keepings(started, 5.0)
            raise
        return started

    def _stop_keepings(self, keepings: list[Living], timeout: float) -> bool:
        in_time = True
        for keeping in keepings:
            in_time &= keeping.stop(timeout)
        return in_time

    def pause(self) -> None:
        """Take no newcomers; they wait in the system's backlog. Sessions go on."""
        if self._engine is not None:
            self._engine.pause()

    def resume(self) -> None:
        """Let newcomers in again."""
        if self._engine is not None:
            self._engine.resume()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until stop() was called and all has ended, so that start() may follow; False on time-out."""
        ended = self._ended
        return ended is None or ended.wait(timeout)

    def __enter__(self) -> SmtpServer:
        return self.start() if not self.active else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- facts

    @property
    def active(self) -> bool:
        """Whether it listens. Setting it starts or stops the server."""
        return self._engine is not None and self._engine.is_running

    @active.setter
    def active(self, wanted: bool) -> None:
        if wanted and not self.active:
            self.start()
        elif not wanted:
            self.stop()

    @property
    def address(self) -> Any:
        """(host, port) of the first listener, with the real port; a unix socket's path. RuntimeError before start()."""
        addresses = self.addresses
        if not addresses:
            raise RuntimeError("no address before start()")
        return addresses[0]

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Of all listeners, in their order; empty before start()."""
        return self._engine.addresses if self._engine is not None else []

    @property
    def doors(self) -> list[Door]:
        """What each bound socket serves, from start() on. While running they may be exchanged, one for one and for
        connections from then on. ValueError where they can't be served; then all is as before."""
        return [one.door for one in self._engine.listeners] if self._engine is not None else []

    @doors.setter
    def doors(self, doors: Sequence[Door]) -> None:
        if not self.active or self._engine is None:
            raise RuntimeError("doors are exchanged while the server runs; before, set listeners")
        if [one.settings.bind for one in doors] != [one.settings.bind for one in self.doors]:
            raise ValueError("doors: each stands for a bound socket; the same addresses in the same order are due")
        before, self._listeners = self._listeners, [one.settings for one in doors]
        try:
            self._make_dialects()
        except BaseException:
            self._listeners = before
            raise
        self._engine.exchange(doors)

    @property
    def connections(self) -> list[Session]:
        """The sessions that are open now: state, peer, TLS, user, transaction."""
        engine = self._engine
        return [one.session for one in engine.conversations if isinstance(one, Dialogue)] if engine is not None else []

    @property
    def connection_count(self) -> int:
        return self._engine.connection_count if self._engine is not None else 0

    @property
    def commands(self) -> CommandTable:
        """Look up, add, replace, wrap or remove a verb."""
        return self._commands

    @property
    def engine(self) -> Engine | None:
        """The engine of the last start(), for what is measured there (threads, slots, guard)."""
        return self._engine

    @property
    def meters(self) -> list[HookMeter]:
        """How long each hook that is set takes, and looking up accounts."""
        hooks = [getattr(self._slots, name) for name in NAMES]
        return [hook.meter for hook in hooks if hook is not None] + [self._house.login_meter]

    def transcript(self, session_id: str) -> str | None:
        """The dialogue of a session that is over, secrets masked, while it is remembered (transcript_memory)."""
        transcripts = self._house.transcripts
        return transcripts.get(session_id) if transcripts is not None else None

    @property
    def failed_sessions(self) -> list[str]:
        """Ids of remembered sessions that failed, oldest first."""
        transcripts = self._house.transcripts
        return transcripts.failed if transcripts is not None else []

    # -- changing

    def _change(self, option: Option[Any], value: Any) -> None:
        """A property is set: refused, or taken over; where it can't be, all is as before."""
        name = option.name
        if option.takes is AT_START and self.active:
            raise RuntimeError(f"{name} can't change while the server runs; stop() it first")
        had, before = name in self._values, self._values.get(name)
        self._values[name] = value
        if not self._is_made:
            return
        try:
            if name in ("max_thread_count", "min_thread_count"):
                self._check_threads()
                if self.active and self._engine is not None:
                    self._engine.resize(self.min_thread_count, self.max_thread_count)
            elif name == "guard":
                self._change_guard()
            elif name in ("timeout", "session_timeout", "timeouts"):
                if self.active and self._engine is not None:
                    self._engine.change_timeouts(dialects.timeouts_of(self))
            elif name == "hook_budget":
                self._set_budget()
            elif option.takes is not AT_START:
                if name in ("store", "outbox") and self.active and isinstance(value, Living) and value.start():
                    self._started_keepings.append(value)
                self._set_house(accounts_too=name in ("user_accounts", "case_insensitive"))
                if option.takes is NEXT_CONNECTION:
                    self._renew_dialects()
        except BaseException:
            if had:
                self._values[name] = before
            else:
                del self._values[name]
            raise

    def _set_hook(self, name: str, function: Callable[..., Any] | None) -> None:
        if name == "on_get_certificate" and self.active:
            raise RuntimeError("on_get_certificate can't change while the server runs; stop() it first")
        self._slots.set(name, function)
        self._house.watch()
        if name in ("on_authenticate", "on_expand", "on_etrn"):
            self._renew_dialects()

    def _change_guard(self) -> None:
        """While running: other rules for the guard that counts, which can't be another one."""
        if not self.active:
            return
        guard = self.guard
        if isinstance(guard, Guard):
            raise RuntimeError("guard: a running server keeps its Guard; give it other GuardSettings")
        self._house.guard.change(guard or GuardSettings())

    def _check_threads(self) -> None:
        if self.min_thread_count > self.max_thread_count:
            raise ValueError(
                f"min_thread_count {self.min_thread_count} is above max_thread_count {self.max_thread_count}"
            )

    def _set_budget(self) -> None:
        """For the hooks that are set, and for those to come."""
        budget = self.hook_budget or _NO_BUDGET
        self._slots.budget = self._commands.budget = budget
        for meter in (*self.meters, *(hook.meter for hook in list(self._commands.functions.values()))):
            meter.budget = budget

    def _set_house(self, *, accounts_too: bool = True) -> None:
        """What a session reads. A list of accounts is made a store once: its SCRAM salts are to stay."""
        house = self._house
        house.hostname = self.server_name or platform.node() or "localhost"
        if accounts_too:
            house.accounts = self._account_store()
        store: Any = house.accounts
        self._slots.login_share.at_most = getattr(store, "at_once", 0)
        if self.scram_salt_key and hasattr(store, "salt_key"):
            store.salt_key = self.scram_salt_key
        house.keep_with(self.store, self.outbox, self.drafts)
        house.relay_from = _networks("relay_from", self.relay_from)
        house.sender_rule = SenderRule(self.restrict_senders)
        house.max_received = self.max_received
        self._set_watchers()

    def _account_store(self) -> AccountStore | None:
        given = self.user_accounts
        if given is None:
            return None
        if hasattr(given, "verify") and hasattr(given, "kinds"):
            return given  # type: ignore[return-value]
        if callable(given):
            return CallableStore(given)
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise TypeError(f"user_accounts = {given!r}: a list of UserAccount, a store or a function is due")
        accounts = list(given)
        for one in accounts:
            if not isinstance(one, UserAccount):
                raise TypeError(f"user_accounts: {one!r} is no UserAccount")
        return MemoryStore(accounts, case_insensitive=self.case_insensitive)

    def _set_watchers(self) -> None:
        house = self._house
        wanted = (self.debug_log, self.debug_log_format)
        if wanted != self._debug_made:
            made = DebugLog(self.debug_log, self.debug_log_format) if self.debug_log else None
            old, house.debug = house.debug, made
            self._debug_made = wanted
            if old is not None:
                old.close()
        room = self.transcript_memory or (_TRANSCRIPTS if self.debug_log else 0)
        if room != (house.transcripts.room if house.transcripts is not None else 0):
            house.transcripts = Transcripts(room) if room else None
        house.watch()

    def _close_debug_log(self) -> None:
        """A server that is stopped holds no file; start() makes the log anew."""
        with self._lock:
            debug = self._house.debug
            if debug is None or self.active:
                return
            self._house.debug, self._debug_made = None, (None, "")
        debug.close()

    def _make_dialects(self) -> None:
        version = version_of(self._house.accounts)
        made = {one: dialects.dialect_of(self, one) for one in self._listeners}
        trusted = {one: _networks("xclient_from", one.xclient_from) for one in self._listeners}
        # Who came before the doors were exchanged, and had no turn yet, finds those of its own listener.
        self._house.trusted = self._house.trusted | trusted
        known = self._house.offer.dialects | made
        self._house.offer.begin(known, version, partial(dialects.dialect_of, self, must_all_work=False))

    def _renew_dialects(self) -> None:
        """While running: for connections from now on. Before: start() makes them."""
        if self._is_made and self.active:
            self._make_dialects()

    # -- parts

    def _doors(self, listeners: list[ListenerSettings]) -> list[Door]:
        return dialects.doors_of(self, listeners)

    def _open(self, peer: Peer, listener: ListenerSettings, session_id: str) -> Dialogue:
        return Dialogue(self._house, peer, listener, session_id)

    def _tell(self, name: str) -> None:
        """on_start and on_stop, in the caller's thread."""
        function = self._slots.get(name)
        if function is None:
            return
        try:
            function(self)
        except Exception as error:
            self._house.report(None, name, error)


def _ignore(value: object) -> None:
    """Where a function that returns something is called for what it does."""


def _networks(name: str, texts: Iterable[str]) -> Networks:
    try:
        return Networks(texts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
