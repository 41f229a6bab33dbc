"""What a daemon is measured by: counted where it happens, read when somebody asks.

Counters are kept by hooks of the server and by the delivery; everything else (sessions, threads, queue, certificates)
is looked at when it is asked for, so that an unwatched server pays nothing for it.
Thread: count_*() from any (one lock); samples() from the one who serves /metrics.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relay.mail import Outcome, Parcel
from relay.queue_reader import SqliteReader
from smtpd_core.server.session import Session
from smtpd_core.threads import Lock
from smtpd_core.wire.replies import Reply

if TYPE_CHECKING:
    from smtpd_core.app.build import Daemon


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: name, kind (counter or gauge), meaning, labels."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("smtpd_connections_open", "gauge", "connections that are open now"),
    Metric("smtpd_connections_refused_total", "counter", "connections refused by the guard"),
    Metric("smtpd_sessions", "gauge", "sessions by state", ("state",)),
    Metric("smtpd_sessions_ended_total", "counter", "sessions over, by TLS version and by login", ("tls", "login")),
    Metric("smtpd_commands_total", "counter", "commands by verb", ("verb",)),
    Metric("smtpd_replies_total", "counter", "replies by code", ("code",)),
    Metric("smtpd_messages_total", "counter", "messages taken over"),
    Metric("smtpd_promises_total", "counter", "messages by what a 250 meant: synced, written, memory", ("durability",)),
    Metric("smtpd_message_bytes_total", "counter", "their size, records included"),
    Metric("smtpd_spool_commits_total", "counter", "syncs of the spool"),
    Metric("smtpd_spool_sync_seconds_total", "counter", "time in those syncs"),
    Metric("smtpd_spool_sync_seconds_longest", "gauge", "the longest of them"),
    Metric("smtpd_spool_group_largest", "gauge", "the most messages that shared a sync"),
    Metric("smtpd_spool_has_room", "gauge", "1 where mail is taken, 0 where MAIL is answered 452"),
    Metric("smtpd_threads", "gauge", "threads of the pool"),
    Metric("smtpd_threads_busy", "gauge", "slots held by hooks"),
    Metric("smtpd_threads_deposed_total", "counter", "times a stalled leader was deposed"),
    Metric("smtpd_hook_calls_total", "counter", "calls by hook", ("hook",)),
    Metric("smtpd_hook_seconds_average", "gauge", "moving average of a hook's duration", ("hook",)),
    Metric("smtpd_hook_seconds_longest", "gauge", "the longest call of a hook", ("hook",)),
    Metric("smtpd_hook_over_budget_total", "counter", "calls that took longer than limits.hook_budget", ("hook",)),
    Metric("smtpd_queue_messages", "gauge", "messages in the queue"),
    Metric("smtpd_queue_recipients", "gauge", "recipients in the queue by status", ("status",)),
    Metric("smtpd_queue_destination", "gauge", "recipients in the queue, the fullest destinations", ("destination",)),
    Metric("smtpd_deliveries_total", "counter", "delivery attempts by way and result", ("way", "result")),
    Metric("smtpd_certificate_expiry_seconds", "gauge", "seconds until a certificate ends", ("name", "file")),
    Metric("smtpd_up_seconds", "gauge", "seconds since the start"),
)

BY_NAME = {metric.name: metric for metric in METRICS}

# Verbs of the protocol; whatever else a client says is counted as one.
_VERBS = frozenset(("EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "HELP", "VRFY"))
_VERBS |= {"EXPN", "ETRN", "STARTTLS", "AUTH"}

Sample = tuple[Metric, tuple[str, ...], float]


class Figures:
    """Counters of one daemon."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._began = time.monotonic()

    def count(self, name: str, *labels: str) -> None:
        with self._lock:
            self._counts[name, labels] += 1

    # -- hooks of the server and the delivery

    def on_receive_command(self, session: Session, command: str) -> None:
        verb = command.partition(" ")[0].upper()
        self.count("smtpd_commands_total", verb if verb in _VERBS else "other")

    def on_send_response(self, session: Session, reply: Reply) -> None:
        self.count("smtpd_replies_total", str(reply.code))

    def on_close_connection(self, session: Session) -> None:
        tls = session.tls.version if session.tls is not None else "none"
        self.count("smtpd_sessions_ended_total", tls, "yes" if session.user is not None else "no")

    def on_outcome(self, parcel: Parcel, outcome: Outcome) -> None:
        self.count("smtpd_deliveries_total", parcel.destination.partition(":")[0], outcome.result.value)

    # -- reading

    def samples(self, daemon: Daemon) -> list[Sample]:
        """Everything there is to know now."""
        with self._lock:
            counts = dict(self._counts)
        found = [(BY_NAME[name], labels, float(count)) for (name, labels), count in sorted(counts.items())]
        for part in (self._server, self._spool, self._queue, self._certificates):
            found += [(BY_NAME[name], labels, value) for name, labels, value in part(daemon)]
        found.append((BY_NAME["smtpd_up_seconds"], (), time.monotonic() - self._began))
        return found

    def _server(self, daemon: Daemon) -> Iterator[tuple[str, tuple[str, ...], float]]:
        server = daemon.server
        if server is None or server.engine is None:
            return
        engine = server.engine
        yield "smtpd_connections_open", (), engine.connection_count
        yield "smtpd_connections_refused_total", (), engine.guard.refused
        for state, count in Counter(session.state for session in server.connections).items():
            yield "smtpd_sessions", (state,), count
        yield "smtpd_threads", (), engine.pool.thread_count
        yield "smtpd_threads_busy", (), engine.pool.slots_held
        yield "smtpd_threads_deposed_total", (), engine.pool.deposed
        for meter in server.meters:
            yield "smtpd_hook_calls_total", (meter.name,), meter.calls
            yield "smtpd_hook_seconds_average", (meter.name,), meter.average
            yield "smtpd_hook_seconds_longest", (meter.name,), meter.longest
            yield "smtpd_hook_over_budget_total", (meter.name,), meter.over_budget

    def _spool(self, daemon: Daemon) -> Iterator[tuple[str, tuple[str, ...], float]]:
        outbox = daemon.outbox
        if outbox is None:
            return
        figures = outbox.figures
        yield "smtpd_messages_total", (), figures.messages
        for durability, count in list(figures.promised.items()):
            yield "smtpd_promises_total", (durability,), count
        yield "smtpd_message_bytes_total", (), figures.bytes
        yield "smtpd_spool_commits_total", (), figures.commits
        yield "smtpd_spool_sync_seconds_total", (), figures.sync_seconds
        yield "smtpd_spool_sync_seconds_longest", (), figures.longest_sync
        yield "smtpd_spool_group_largest", (), figures.largest_group
        yield "smtpd_spool_has_room", (), float(outbox.has_room() is None)

    def _queue(self, daemon: Daemon) -> Iterator[tuple[str, tuple[str, ...], float]]:
        path = Path(daemon.settings.state) / "queue.db"
        if not path.exists():
            return
        reader = SqliteReader(path)
        try:
            totals = reader.totals(time.time())
        finally:
            reader.close()
        yield "smtpd_queue_messages", (), totals.messages
        for status, count in totals.recipients.items():
            yield "smtpd_queue_recipients", (status,), count
        for destination, count, _ in totals.destinations[:20]:
            yield "smtpd_queue_destination", (destination,), count

    def _certificates(self, daemon: Daemon) -> Iterator[tuple[str, tuple[str, ...], float]]:
        now = datetime.datetime.now(datetime.UTC)
        # By file too: several certificates may be for one host (RSA beside ECDSA), and a series must not come twice.
        for file, pair in daemon.renewal.by_file.items() if daemon.renewal is not None else ():
            left = pair.certificate.not_valid_after_utc - now
            name = pair.hosts[0] if pair.hosts else ""
            yield "smtpd_certificate_expiry_seconds", (name, file), left.total_seconds()


def as_text(samples: Iterable[Sample]) -> str:
    """The Prometheus text format, version 0.0.4."""
    lines: list[str] = []
    by_metric: dict[Metric, list[Sample]] = {}
    for sample in samples:
        by_metric.setdefault(sample[0], []).append(sample)
    for metric, several in by_metric.items():
        lines += [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}"]
        for _, labels, value in several:
            named = ",".join(f'{name}="{_escaped(label)}"' for name, label in zip(metric.labels, labels, strict=True))
            lines.append(f"{metric.name}{{{named}}} {value:g}" if named else f"{metric.name} {value:g}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
