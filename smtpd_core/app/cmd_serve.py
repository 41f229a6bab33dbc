"""`serve`: the daemon from its settings to its last word; without a configuration on the embedded defaults.

Signals: TERM and INT drain and end with 0, a second one ends at once; HUP reloads settings, certificates, accounts and
aliases, and opens the log file again. sd_notify hears READY, RELOADING, STOPPING and the watchdog's beat.
Thread: main, which only waits.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from certs.trouble import CertificateError
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app import core_dumps
from smtpd_core.app.build import Daemon, complete
from smtpd_core.app.cmd_check import refuse
from smtpd_core.app.first_mail import how_to_send
from smtpd_core.app.life import Signals, drop_privileges, hand_over, pid_file, prepare_state, room_for_connections
from smtpd_core.app.load import BadSettings, from_table, load
from smtpd_core.app.logs import Logbook
from smtpd_core.app.recovery import recovery
from smtpd_core.app.reloading import reload
from smtpd_core.app.sanity import LOOPBACK, warnings
from smtpd_core.app.settings import EMBEDDED, Limits, Listener, Settings
from smtpd_core.app.several import Several
from smtpd_core.app.streams import say
from smtpd_core.app.values import path
from smtpd_core.net.notify import Supervisor

log = logging.getLogger(__name__)

_CERTIFICATES = 30.0  # seconds between looks at the certificates' files


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="F", help="a configuration; without one, the embedded defaults")
    parser.add_argument(
        "--listen", action="append", default=[], metavar="HOST:PORT", help="where to listen instead; may be given again"
    )
    parser.add_argument("--state", type=path, metavar="DIR", help="the directory of spool, queue and mail")
    parser.add_argument("--hostname", metavar="N", help="our name in the banner and to other servers")
    parser.add_argument("--smarthost", metavar="H:P", help="send all mail that is not ours on to this server")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="TEXT",
        help="misbehave on purpose, as in 'RCPT to=*@full.test reply 452 times=2'; may be given again",
    )
    parser.add_argument("--debug-log", action="store_true", help="log every dialogue, secrets masked")


def run(options: argparse.Namespace) -> int:
    name = options.config or "(defaults)"

    def read() -> Settings:
        return fitted(settings_of(options), name)

    try:
        settings = read()
        if options.fault and settings.threads.processes > 1:
            raise ValueError("--fault needs threads.processes = 1")
        prepare_state(settings)
        os.umask(int(settings.umask, 8))
        signals = Signals()
        daemon = Daemon(settings, options.fault)
        daemon.bind()
        with pid_file(settings.pid_file):
            hand_over((one.path for one in daemon.listeners if one.path), settings)
            drop_privileges(settings)
            if not settings.core_dumps:
                core_dumps.forbid()
            if settings.threads.processes > 1:
                return Several(daemon, read, lambda: _announce(daemon)).run()
            book = Logbook(settings.log)
            try:
                with recovery(Supervisor(os.environ).tell) as recovering:
                    daemon.start(recovering=recovering)
                for fault in options.fault:
                    log.warning("misbehaves on purpose: %s", fault)
                return _serve(daemon, read, signals, book)
            finally:
                book.stop()
    except (ValueError, ExtraMissing, CertificateError) as error:
        raise BadSettings([f"{name}: {error}"]) from None


def settings_of(options: argparse.Namespace) -> Settings:
    """File, environment, then what the command line says. Raises BadSettings."""
    name = options.config or "(defaults)"
    settings = load(options.config, os.environ) if options.config else from_table({}, name, os.environ)
    if not options.config and not settings.listener:
        settings = replace(settings, listener=EMBEDDED.listener)
    if options.listen:
        first = settings.listener[0] if settings.listener else Listener()
        settings = replace(settings, listener=tuple(replace(first, bind=bind) for bind in options.listen))
    if options.state:
        settings = replace(settings, state=options.state)
    if options.hostname:
        settings = replace(settings, hostname=options.hostname)
    if options.smarthost:
        relay = settings.relay
        networks = relay.allow_networks or LOOPBACK
        settings = replace(
            settings, relay=replace(relay, enabled=True, smarthost=options.smarthost, allow_networks=networks)
        )
    if options.debug_log:
        settings = replace(settings, log=replace(settings.log, transcript=True, level="debug"))
    refuse(settings, name)
    return complete(settings)


def fitted(settings: Settings, name: str) -> Settings:
    """As many connections as the system has descriptors for; fewer than were asked for is refused."""
    wanted = settings.limits.max_connections
    room = room_for_connections(wanted)
    if room >= wanted:
        return settings
    if wanted != Limits().max_connections or room < 100:
        raise BadSettings(
            [
                f"{name}: limits.max_connections: the system's limit of descriptors holds {room} connections,"
                f" not {wanted}; raise it (LimitNOFILE=, ulimit -Hn) or lower the setting"
            ]
        )
    return replace(settings, limits=replace(settings.limits, max_connections=room))


def _serve(daemon: Daemon, read: Callable[[], Settings], signals: Signals, book: Logbook) -> int:
    supervisor = Supervisor(os.environ)
    for warning in warnings(daemon.settings):
        log.warning("%s", warning)
    _announce(daemon)
    log.info("serving, process %d", os.getpid())
    supervisor.tell("READY=1", f"MAINPID={os.getpid()}")
    # Every look at the certificates' files is one stat each; a change is taken up at the second look.
    beat = min(supervisor.watchdog / 2 or _CERTIFICATES, _CERTIFICATES)
    while True:
        number = signals.wait(beat)
        if number is None:
            if supervisor.watchdog:
                supervisor.tell("WATCHDOG=1")
            daemon.look_after_certificates()
        elif number == signal.SIGHUP:
            supervisor.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            reload(daemon, read, book)
            supervisor.tell("READY=1")
        else:
            break
    signals.end_at_once()
    supervisor.tell("STOPPING=1")
    log.info("stopping: %d sessions may finish", daemon.server.connection_count if daemon.server else 0)
    if not daemon.stop(daemon.settings.limits.timeouts.stop):
        log.warning("not all ended in time; what was promised is on disk")
    log.info("stopped")
    return 0


def _announce(daemon: Daemon) -> None:
    """Where it listens, and how to send a first mail."""
    addresses = [(one.door.settings.service, one.text) for one in daemon.listeners]
    lines = [f"listening {service} {text}" for service, text in addresses]
    if daemon.watch_address:
        lines.append(f"watching http://{daemon.watch_address}/metrics")
    lines += how_to_send(daemon.settings, addresses)
    say("".join(f"{line}\n" for line in lines))
