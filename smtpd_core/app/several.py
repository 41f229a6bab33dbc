"""`processes = N`: N receivers that take mail and spool it, and one relay that imports, queues and delivers it.

The master (processes.py) has bound the listeners and dropped its privileges. At HUP it reads the settings; a receiver's
reload is a start. One that died comes back with those that are in force, whatever stands in the file by then. Every
limit on connections is divided between the receivers, rounded up. Where the metrics are watched, receivers post their
figures to the relay.
Thread: the main thread of each process.
Not here: the master itself (processes.py), what a receiver is made of (build.py), adding figures up (sums.py).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from certs.renewal import Renewal
from smtpd_core.app.build import Daemon, complete
from smtpd_core.app.certificates import renewal_for
from smtpd_core.app.life import naming
from smtpd_core.app.logs import Logbook
from smtpd_core.app.processes import Master, Role
from smtpd_core.app.recovery import recovery
from smtpd_core.app.reloading import UNUSABLE, reload, tell_refused, within_reach
from smtpd_core.app.sanity import warnings
from smtpd_core.app.settings import Settings
from smtpd_core.app.sums import EVERY, Reports, Sums
from smtpd_core.app.ward import LEAVE, Ward
from smtpd_core.net.notify import Supervisor
from smtpd_core.net.post_box import PostBox

log = logging.getLogger(__name__)

_LEAVING = 1.0  # seconds between looks whether the last session of a receiver that was replaced has ended
_CERTIFICATES = 30.0  # seconds between looks at the certificates' files

# Seconds for children to drain before the master kills them, beyond what their settings give them.
_GRACE = 5.0


class Several:
    """`bound` is the daemon whose listeners all receivers share; `read()` gives the settings as they are now."""

    def __init__(self, bound: Daemon, read: Callable[[], Settings], announce: Callable[[], None]) -> None:
        self._bound = bound
        self._read = read
        self._settings = bound.settings  # in force
        self._candidate = bound.settings  # what successors are begun with
        # Certificates as the master judges them; receivers read them themselves.
        self._renewal: Renewal | None = None
        self._next_renewal: Renewal | None = None
        self._announce = announce
        self._supervisor = Supervisor(os.environ)
        self._is_announced = False
        self._count = bound.settings.threads.processes
        self._figures = PostBox()

    def run(self) -> int:
        """The master's work; the exit code of the daemon."""
        settings = self._bound.settings
        for listener in self._bound.listeners:
            listener.is_shared = True
        with naming(settings.state):
            # A first self-signed certificate is made once, not by each child.
            self._renewal = renewal_for(settings, None)
        self._book = Logbook(settings.log, has_thread=False)
        for warning in warnings(settings):
            log.warning("%s", warning)
        self._master = Master(
            self._roles(),
            may_reload=self._may_reload,
            took_over=self._take_over,
            tell=self._tell,
            patience=settings.limits.timeouts.stop + _GRACE,
            beat=self._supervisor.watchdog / 2,
        )
        try:
            return self._master.run()
        finally:
            for listener in self._bound.listeners:
                listener.is_shared = False
                listener.close()
            self._figures.close()

    def _roles(self) -> list[Role]:
        cores = processors() if self._bound.settings.threads.pin else [None]
        receivers = [
            Role(f"receiver {number + 1}", self._receive, processor=cores[number % len(cores)])
            for number in range(self._count)
        ]
        return [Role("relay", self._relay, reloads_in_place=True), *receivers]

    # -- in the master

    def _tell(self, state: str) -> None:
        if state == "READY=1" and not self._is_announced:
            self._is_announced = True
            self._announce()
            log.info("serving, process %d", os.getpid())
        self._supervisor.tell(state, f"MAINPID={os.getpid()}", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _may_reload(self) -> bool:
        """The settings can be read and make sense, and their certificates can be used. They are in force once a
        receiver is prepared to serve with them, and the relay has taken them over."""
        self._book.reopen()
        try:
            settings = within_reach(self._settings, complete(self._read()))
            self._next_renewal = renewal_for(settings, self._renewal)
        except UNUSABLE as error:
            tell_refused(error)
            return False
        self._candidate = settings
        return True

    def _take_over(self) -> None:
        self._settings = settings = self._candidate
        self._renewal = self._next_renewal
        self._book.follow(settings.log)
        self._master.patience = settings.limits.timeouts.stop + _GRACE

    # -- in the children

    def _receive(self, ward: Ward) -> int:
        settings = share(self._candidate if ward.is_successor else self._settings, self._count)
        os.umask(int(settings.umask, 8))
        book = Logbook(settings.log)
        try:
            daemon = Daemon(settings)
            daemon.adopt(self._bound)
            with recovery(ward.says, has_bar=False) as recovering:
                serves = daemon.start(delivers=False, may_serve=ward.may_serve, recovering=recovering)
            if not serves:
                daemon.stop(1.0)
                return 0
            reports = Reports(self._figures, lambda: daemon.figures.samples(daemon))
            watched = bool(settings.metrics.bind)
            if watched:
                reports.post()
            ward.is_ready()
            _attend(daemon, ward, reports if watched else None)
            has_ended = daemon.stop(settings.limits.timeouts.stop)
            if watched:
                reports.post(ends=True)
            return 0 if has_ended else 1
        except UNUSABLE as error:
            log.critical("%s: %s", ward.name, error)
            ward.failed(error)
            return 1
        finally:
            book.stop()

    def _relay(self, ward: Ward) -> int:
        daemon = self._bound  # the port for metrics is the relay's, and was bound with the others
        for listener in daemon.listeners:
            listener.close(remove_path=False)
        daemon.settings = settings = self._settings
        os.umask(int(settings.umask, 8))
        book = Logbook(settings.log)
        daemon.sums = Sums(self._figures)
        try:
            with recovery(ward.says, has_bar=False) as recovering:
                daemon.start(serves=False, recovering=recovering)
            daemon.sums.start()
            ward.is_ready()
            while ward.wait() == signal.SIGHUP:
                ward.has_reloaded(reload(daemon, self._read, book))
            return 0 if daemon.stop(daemon.settings.limits.timeouts.stop) else 1
        except UNUSABLE as error:
            log.critical("%s: %s", ward.name, error)
            return 1
        finally:
            daemon.sums.stop()
            book.stop()


def _attend(daemon: Daemon, ward: Ward, reports: Reports | None) -> None:
    """A receiver's main thread until it is to end; `reports` where somebody watches."""
    looked = time.monotonic()
    while True:
        number = ward.wait(EVERY if reports is not None else _CERTIFICATES)
        if number == LEAVE:
            _let_sessions_end(daemon, ward, reports)
            return
        if number not in (None, signal.SIGHUP):  # at HUP the master replaces us
            return
        if reports is not None:
            reports.post()
        if time.monotonic() - looked >= _CERTIFICATES:
            looked = time.monotonic()
            daemon.look_after_certificates()


def _let_sessions_end(daemon: Daemon, ward: Ward, reports: Reports | None) -> None:
    """A reload closes no session: they end by themselves, by their deadlines, or with TERM."""
    assert daemon.server is not None
    daemon.server.pause()  # takes those that this process was woken for, so they are counted after a moment
    while ward.wait(_LEAVING) is None and daemon.server.connection_count:
        if reports is not None:
            reports.post()


def processors() -> list[int] | list[None]:
    """The processors that this process may use; [None], which is any, where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]


def share(settings: Settings, count: int) -> Settings:
    """The settings of one of `count` receivers."""
    limits, guard = settings.limits, settings.guard
    return replace(
        settings,
        limits=replace(
            limits,
            max_connections=_part(limits.max_connections, count),
            max_connections_per_source=_part(limits.max_connections_per_source, count),
        ),
        guard=replace(
            guard,
            max_per_prefix=_part(guard.max_per_prefix, count),
            connections_per_period=_part(guard.connections_per_period, count),
            messages_per_period=_part(guard.messages_per_period, count),
        ),
    )


def _part(limit: int, count: int) -> int:
    """Rounded up; 0 stays 0, which is no limit."""
    return -(-limit // count)
