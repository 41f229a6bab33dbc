"""What a daemon is measured by: counted where it happens, read when somebody asks.

Counters are kept by hooks of the server and by the delivery; everything else (sessions, threads, queue, certificates)
is looked at when it is asked for, so that an unwatched server pays nothing for it.
Rule 1: figures are plain data, and can be sent anywhere; sums.py makes those of several processes one server's.
Rule 2: every label has a bounded number of values, whatever clients say.
Thread: on_*() from any (one lock); samples() from the one who serves /metrics.
Not here: the text that Prometheus reads (exposition.py).
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from relay.mail import Outcome, Parcel
from relay.queue_reader import SqliteReader
from relay.spool_figures import GROUP_MESSAGES, SYNC_SECONDS
from smtpd_core.server.session import Session
from smtpd_core.threads import Lock
from smtpd_core.wire.replies import Reply, login_unavailable_454

if TYPE_CHECKING:
    from smtpd_core.app.build import Daemon


# The fullest destinations, which are told apart; a queue may have any number of others.
MAX_DESTINATIONS = 20


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: name, kind (counter, gauge, summary or histogram), meaning, labels."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


class Figure(NamedTuple):
    """One number of a metric. `labels` are values in the order of the metric's labels.

    A summary has the parts "_count" and "_sum"; a histogram has these and, for each upper bound, a "_bucket" whose
    labels end with the bound and whose value counts all that is not above it.
    """

    metric: str
    labels: tuple[str, ...]
    value: float
    part: str = ""


METRICS = (
    Metric("smtpd_connections_open", "gauge", "connections that are open now"),
    Metric("smtpd_connections_refused_total", "counter", "connections refused by the guard"),
    Metric("smtpd_sessions", "gauge", "sessions by state", ("state",)),
    Metric("smtpd_sessions_ended_total", "counter", "sessions over, by TLS version and by login", ("tls", "login")),
    Metric("smtpd_logins_total", "counter", "logins by result: accepted, refused, or unavailable", ("result",)),
    Metric("smtpd_commands_total", "counter", "commands by verb", ("verb",)),
    Metric("smtpd_replies_total", "counter", "replies by code", ("code",)),
    Metric("smtpd_messages_total", "counter", "messages taken over"),
    Metric("smtpd_promises_total", "counter", "messages by what a 250 meant: synced, written, memory", ("durability",)),
    Metric("smtpd_message_bytes_total", "counter", "their size, records included"),
    Metric("smtpd_spool_sync_seconds", "histogram", "time of a commit's sync"),
    Metric("smtpd_spool_sync_seconds_longest", "gauge", "the longest of them"),
    Metric("smtpd_spool_group_messages", "histogram", "messages that shared a commit"),
    Metric("smtpd_spool_group_largest", "gauge", "the most messages that shared one"),
    Metric("smtpd_spool_has_room", "gauge", "1 where mail is taken, 0 where MAIL is answered 452"),
    Metric("smtpd_threads", "gauge", "threads of the pool: active in a hook, or idle", ("state",)),
    Metric("smtpd_threads_deposed_total", "counter", "times a stalled leader was deposed"),
    Metric("smtpd_sessions_waiting", "gauge", "sessions in line for a thread"),
    Metric("smtpd_wait_seconds", "summary", "how long sessions were in line"),
    Metric("smtpd_wait_seconds_longest", "gauge", "the longest wait of a session"),
    Metric("smtpd_hook_seconds", "summary", "time in a hook", ("hook",)),
    Metric("smtpd_hook_seconds_longest", "gauge", "the longest call of a hook", ("hook",)),
    Metric("smtpd_hook_over_budget_total", "counter", "calls that took longer than limits.hook_budget", ("hook",)),
    Metric("smtpd_queue_messages", "gauge", "messages in the queue"),
    Metric("smtpd_queue_recipients", "gauge", "recipients in the queue by status", ("status",)),
    Metric("smtpd_queue_destination", "gauge", "recipients in the queue, the fullest destinations", ("destination",)),
    Metric("smtpd_deliveries_total", "counter", "delivery attempts by way and result", ("way", "result")),
    Metric("smtpd_certificate_expiry_seconds", "gauge", "seconds until a certificate ends", ("name", "file")),
    Metric("smtpd_up_seconds", "gauge", "seconds since the start"),
)

# Verbs of the protocol; whatever else a client says is counted as one.
_VERBS = (
    *("EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "HELP", "VRFY"),
    *("EXPN", "ETRN", "STARTTLS", "AUTH"),
)

# What AUTH is answered in the end. 454 is also said of TLS.
_LOGINS = {235: "accepted", 454: "unavailable", 535: "refused"}


class _Count:
    """One counter of a metric with its labels, found once and kept: counting looks up nothing but a word or a code."""

    __slots__ = ("labels", "metric", "value")

    def __init__(self, metric: str, labels: tuple[str, ...]) -> None:
        self.metric = metric
        self.labels = labels
        self.value = 0


class Figures:
    """Counters of one daemon."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[tuple[str, tuple[str, ...]], _Count] = {}
        self._of_verb = {verb: self._count("smtpd_commands_total", verb) for verb in _VERBS}
        self._of_other = self._count("smtpd_commands_total", "other")
        self._of_code: dict[int, _Count] = {}
        self._of_login = {code: self._count("smtpd_logins_total", result) for code, result in _LOGINS.items()}
        self._began = time.monotonic()

    def _count(self, metric: str, *labels: str) -> _Count:
        with self._lock:
            return self._counts.setdefault((metric, labels), _Count(metric, labels))

    def _add(self, count: _Count) -> None:
        with self._lock:
            count.value += 1

    # -- hooks of the server and the delivery

    def on_receive_command(self, session: Session, command: str) -> None:
        if command != "****":  # that is an answer within a login, or may be one
            self._add(self._of_verb.get(command.partition(" ")[0].upper(), self._of_other))

    def on_send_response(self, session: Session, reply: Reply) -> None:
        code = reply.code
        count = self._of_code.get(code)
        if count is None:
            count = self._of_code[code] = self._count("smtpd_replies_total", str(code))
        self._add(count)
        if code in self._of_login and (code != 454 or reply == login_unavailable_454):
            self._add(self._of_login[code])

    def on_close_connection(self, session: Session) -> None:
        tls = session.tls.version if session.tls is not None else "none"
        self._add(self._count("smtpd_sessions_ended_total", tls, "yes" if session.user is not None else "no"))

    def on_outcome(self, parcel: Parcel, outcome: Outcome) -> None:
        way = parcel.destination.partition(":")[0]
        self._add(self._count("smtpd_deliveries_total", way, outcome.result.value))

    # -- reading

    def samples(self, daemon: Daemon) -> list[Figure]:
        """Everything there is to know now."""
        with self._lock:
            found = [Figure(one.metric, one.labels, one.value) for one in self._counts.values()]
        for part in (self._server, self._spool, self._queue, self._certificates):
            found += part(daemon)
        found.append(Figure("smtpd_up_seconds", (), time.monotonic() - self._began))
        return found

    def _server(self, daemon: Daemon) -> Iterator[Figure]:
        server = daemon.server
        if server is None or server.engine is None:
            return
        engine = server.engine.figures
        yield Figure("smtpd_connections_open", (), engine.connections)
        yield Figure("smtpd_connections_refused_total", (), engine.refused)
        for state, count in Counter(session.state for session in server.connections).items():
            yield Figure("smtpd_sessions", (state,), count)
        yield Figure("smtpd_threads", ("active",), engine.hooks_running)
        yield Figure("smtpd_threads", ("idle",), max(0, engine.threads - engine.hooks_running))
        yield Figure("smtpd_threads_deposed_total", (), engine.deposed)
        yield Figure("smtpd_sessions_waiting", (), engine.waiting)
        yield from _summary("smtpd_wait_seconds", (), engine.waited, engine.waited_seconds)
        yield Figure("smtpd_wait_seconds_longest", (), engine.waited_longest)
        for meter in server.meters:
            yield from _summary("smtpd_hook_seconds", (meter.name,), meter.calls, meter.seconds)
            yield Figure("smtpd_hook_seconds_longest", (meter.name,), meter.longest)
            yield Figure("smtpd_hook_over_budget_total", (meter.name,), meter.over_budget)

    def _spool(self, daemon: Daemon) -> Iterator[Figure]:
        outbox = daemon.outbox
        if outbox is None:
            return
        figures = outbox.figures
        yield Figure("smtpd_messages_total", (), figures.messages)
        for durability, count in list(figures.promised.items()):
            yield Figure("smtpd_promises_total", (durability,), count)
        yield Figure("smtpd_message_bytes_total", (), figures.bytes)
        yield from _histogram("smtpd_spool_sync_seconds", SYNC_SECONDS, figures.sync_classes, figures.sync_seconds)
        yield Figure("smtpd_spool_sync_seconds_longest", (), figures.longest_sync)
        yield from _histogram("smtpd_spool_group_messages", GROUP_MESSAGES, figures.group_classes, figures.messages)
        yield Figure("smtpd_spool_group_largest", (), figures.largest_group)
        yield Figure("smtpd_spool_has_room", (), float(outbox.has_room() is None))

    def _queue(self, daemon: Daemon) -> Iterator[Figure]:
        path = Path(daemon.settings.state) / "queue.db"
        if daemon.outbox is None or not daemon.outbox.delivers or not path.exists():
            return
        reader = SqliteReader(path)
        try:
            totals = reader.totals(time.time())
        finally:
            reader.close()
        yield Figure("smtpd_queue_messages", (), totals.messages)
        for status, count in totals.recipients.items():
            yield Figure("smtpd_queue_recipients", (status,), count)
        for destination, count, _ in totals.destinations[:MAX_DESTINATIONS]:
            yield Figure("smtpd_queue_destination", (destination,), count)

    def _certificates(self, daemon: Daemon) -> Iterator[Figure]:
        now = datetime.datetime.now(datetime.UTC)
        # By file too: several certificates may be for one host (RSA beside ECDSA), and a series must not come twice.
        for file, pair in daemon.renewal.by_file.items() if daemon.renewal is not None else ():
            left = pair.certificate.not_valid_after_utc - now
            name = pair.hosts[0] if pair.hosts else ""
            yield Figure("smtpd_certificate_expiry_seconds", (name, file), left.total_seconds())


def _summary(name: str, labels: tuple[str, ...], count: float, total: float) -> Iterator[Figure]:
    yield Figure(name, labels, count, "_count")
    yield Figure(name, labels, total, "_sum")


def _histogram(name: str, bounds: Sequence[float], classes: Sequence[int], total: float) -> Iterator[Figure]:
    """`classes` has one more than `bounds`: what is above all of them."""
    counts = list(accumulate(classes))
    for bound, count in zip((*(str(float(bound)) for bound in bounds), "+Inf"), counts, strict=True):
        yield Figure(name, (bound,), count, "_bucket")
    yield from _summary(name, (), counts[-1], total)
