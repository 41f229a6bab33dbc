"""`top`: a running server at a glance, from its /metrics, again every second until interrupted.

Totals that grow are shown with their rate since the last look. It is redrawn on a terminal only; elsewhere, and with
--once, it is one picture as plain text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from smtpd_core.accounts.extras import needed
from smtpd_core.app.endpoint import bad_address
from smtpd_core.app.figures import Figure
from smtpd_core.app.terminal import Pair, show_live
from smtpd_core.app.values import duration

# A picture's metrics; more is not from one of our servers.
MAX_METRICS = 4 << 20

Picture = dict[tuple[str, tuple[str, ...]], float]
"""Values by name, part included, and labels."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", default="127.0.0.1:9125", metavar="HOST:PORT", help="of [metrics] bind")
    parser.add_argument("--interval", type=duration, default=1.0, metavar="T", help="between looks, default 1s")
    parser.add_argument("--once", action="store_true", help="one picture and no more")
    parser.add_argument("--json", action="store_true", help="the figures as JSON, once")


def run(options: argparse.Namespace) -> int:
    if reason := bad_address(options.address):
        print(f"top: {reason}", file=sys.stderr)
        return 2
    needed("prometheus_client", extra="daemon", purpose="top")
    try:
        if options.json:
            print(json.dumps([one._asdict() for one in look(options.address)]))
        else:
            show_live(_pictures(options.address, options.interval, options.once or not sys.stdout.isatty()))
    except (OSError, ValueError) as error:
        print(f"top: {options.address}: {getattr(error, 'reason', error)}", file=sys.stderr)
        return 1
    return 0


def look(address: str) -> list[Figure]:
    """All figures. OSError where nobody answers, ValueError where it is none of ours."""
    from smtpd_core.app.exposition import from_text  # can't be imported where the library is missing

    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text = answer.read(MAX_METRICS).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        raise ValueError(error.read(500).decode("utf-8", "replace").strip() or str(error)) from None
    found = from_text(text)
    if not any(one.metric == "smtpd_up_seconds" for one in found):
        raise ValueError("these are not the metrics of an smtpd_core server")
    return found


def _pictures(address: str, interval: float, once: bool) -> Iterator[list[Pair]]:
    before: Picture = {}
    then = time.monotonic()
    while True:
        seen = {(one.metric + one.part, one.labels): one.value for one in look(address)}
        now = time.monotonic()
        yield picture(address, seen, before, now - then)
        if once:
            return
        before, then = seen, now
        time.sleep(max(interval, 0.1))


def picture(address: str, now: Picture, before: Picture, seconds: float) -> list[Pair]:
    """The lines to show: a title and what is to be told."""

    def one(name: str, *labels: str) -> float:
        return now.get((name, labels), 0.0)

    def rate(name: str, labels: tuple[str, ...] = ()) -> str:
        if not before or seconds <= 0:
            return ""
        return f" ({(now.get((name, labels), 0.0) - before.get((name, labels), 0.0)) / seconds:.1f}/s)"

    def several(name: str, grows: bool = False) -> str:
        pairs = [(labels, value) for (known, labels), value in now.items() if known == name and value]
        pairs.sort(key=lambda pair: -pair[1])
        said = [f"{' '.join(labels)} {value:g}{rate(name, labels) if grows else ''}" for labels, value in pairs[:8]]
        return "  ".join(said) or "-"

    room = "takes mail" if one("smtpd_spool_has_room") else "SPOOL FULL"
    commits = max(one("smtpd_spool_sync_seconds_count"), 1.0)
    return [
        ("server", f"{address}, up {one('smtpd_up_seconds'):.0f} s, {room}"),
        (
            "connections",
            f"{one('smtpd_connections_open'):g} open, "
            f"{one('smtpd_connections_refused_total'):g} refused{rate('smtpd_connections_refused_total')}",
        ),
        ("sessions", several("smtpd_sessions")),
        ("logins", several("smtpd_logins_total", grows=True)),
        (
            "threads",
            f"{one('smtpd_threads', 'active'):g} active, {one('smtpd_threads', 'idle'):g} idle, "
            f"{one('smtpd_threads_deposed_total'):g} deposed; {one('smtpd_sessions_waiting'):g} sessions wait, "
            f"the longest wait {one('smtpd_wait_seconds_longest'):.1f} s",
        ),
        ("messages", f"{one('smtpd_messages_total'):g}{rate('smtpd_messages_total')}"),
        (
            "syncs",
            f"{one('smtpd_spool_sync_seconds_count'):g}{rate('smtpd_spool_sync_seconds_count')}, "
            f"{one('smtpd_spool_sync_seconds_sum') / commits * 1000:.2f} ms each, "
            f"{one('smtpd_messages_total') / commits:.1f} messages each",
        ),
        ("replies", several("smtpd_replies_total", grows=True)),
        ("queue", f"{one('smtpd_queue_messages'):g} messages: {several('smtpd_queue_recipients')}"),
        ("to", several("smtpd_queue_destination")),
        ("deliveries", several("smtpd_deliveries_total", grows=True)),
    ]
