"""`processes = N`: N receivers that take mail and spool it, and one relay that imports, queues and delivers it.

The master (processes.py) has bound the listeners and dropped its privileges; each child reads the settings itself, so
that a reload is a start. Every limit on connections is divided between the receivers, rounded up.
Thread: the main thread of each process.
Not here: the master itself (processes.py), what a receiver is made of (build.py).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

from certs.trouble import CertificateError
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app.build import Daemon, complete
from smtpd_core.app.certificates import pair_files
from smtpd_core.app.load import BadSettings
from smtpd_core.app.logs import start_log
from smtpd_core.app.processes import LEAVE, Master, Role, Ward
from smtpd_core.app.settings import Settings
from smtpd_core.net.notify import Supervisor

log = logging.getLogger(__name__)

_LEAVING = 1.0  # seconds between looks whether the last session of a receiver that was replaced has ended
_CERTIFICATES = 30.0  # seconds between looks at the certificates' files

# What makes settings unusable; each says what is wrong.
_UNUSABLE = (BadSettings, OSError, ValueError, ExtraMissing, CertificateError)


class Several:
    """`bound` is the daemon whose listeners all receivers share; `read()` gives the settings as they are now."""

    def __init__(self, bound: Daemon, read: Callable[[], Settings], announce: Callable[[], None]) -> None:
        self._bound = bound
        self._read = read
        self._announce = announce
        self._supervisor = Supervisor(os.environ)
        self._is_announced = False
        self._count = bound.settings.threads.processes

    def run(self) -> int:
        """The master's work; the exit code of the daemon."""
        for listener in self._bound.listeners:
            listener.is_shared = True
        roles = [Role("relay", self._relay, reloads_in_place=True)]
        cores = processors() if self._bound.settings.threads.pin else [None]
        roles += [
            Role(f"receiver {number + 1}", self._receive, processor=cores[number % len(cores)])
            for number in range(self._count)
        ]
        patience = self._bound.settings.limits.timeouts.stop + 5.0
        beat = self._supervisor.watchdog / 2
        if any(one.tls != "none" for one in self._bound.settings.listener):
            pair_files(self._bound.settings)  # a first self-signed certificate is made once, not by each child
        try:
            return Master(roles, may_reload=self._may_reload, tell=self._tell, patience=patience, beat=beat).run()
        finally:
            for listener in self._bound.listeners:
                listener.is_shared = False
                listener.close()

    # -- in the master

    def _tell(self, state: str) -> None:
        if state == "READY=1" and not self._is_announced:
            self._is_announced = True
            self._announce()
        self._supervisor.tell(state, f"MAINPID={os.getpid()}")

    def _may_reload(self) -> bool:
        """The settings can be read and make sense; a receiver that can't start with them leaves the old one be."""
        try:
            self._read()
        except _UNUSABLE as error:
            for line in str(error).splitlines():
                print(f"reload refused, everything stays as it was: {line}", file=sys.stderr)
            return False
        return True

    # -- in the children

    def _receive(self, ward: Ward) -> int:
        settings = share(complete(self._read()), self._count)
        writer = start_log(settings.log)
        try:
            daemon = Daemon(settings)
            daemon.adopt(self._bound)
            daemon.start(delivers=False)
            ward.is_ready()
            while (number := ward.wait(_CERTIFICATES)) in (None, signal.SIGHUP):  # at HUP the master replaces us
                if number is None:
                    daemon.look_after_certificates()
            if number == LEAVE:
                _let_sessions_end(daemon, ward)
            return 0 if daemon.stop(settings.limits.timeouts.stop) else 1
        except _UNUSABLE as error:
            log.critical("%s: %s", ward.name, error)
            return 1
        finally:
            writer.stop()

    def _relay(self, ward: Ward) -> int:
        daemon = self._bound  # the port for metrics is the relay's, and was bound with the others
        for listener in daemon.listeners:
            listener.close(remove_path=False)
        writer = start_log(daemon.settings.log)
        try:
            daemon.start(serves=False)
            self._reload_relay(daemon)  # the settings may have changed since the master read them
            ward.is_ready()
            while ward.wait() == signal.SIGHUP:
                writer.reopen()
                self._reload_relay(daemon)
            return 0 if daemon.stop(daemon.settings.limits.timeouts.stop) else 1
        except _UNUSABLE as error:
            log.critical("%s: %s", ward.name, error)
            return 1
        finally:
            writer.stop()

    def _reload_relay(self, daemon: Daemon) -> None:
        try:
            daemon.reload(self._read())
        except _UNUSABLE as error:
            log.error("reload refused, the relay stays as it was: %s", error)


def _let_sessions_end(daemon: Daemon, ward: Ward) -> None:
    """A reload closes no session: they end by themselves, by their deadlines, or with TERM."""
    assert daemon.server is not None
    daemon.server.pause()  # takes those that this process was woken for, so they are counted after a moment
    while ward.wait(_LEAVING) is None and daemon.server.connection_count:
        pass


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
