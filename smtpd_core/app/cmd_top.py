"""`top`: a running server at a glance, from its /metrics, again every second until interrupted.

Totals that grow are shown with their rate since the last look. It is redrawn on a terminal only, where a server that
went away is looked for until it is back; elsewhere, and with --once, it is one picture as plain text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from smtpd_core.accounts.extras import needed
from smtpd_core.app.endpoint import bad_address
from smtpd_core.app.figures import Figure
from smtpd_core.app.terminal import Pair, show_live
from smtpd_core.app.values import duration
from smtpd_core.wire.shown import shown

# Seconds for an answer.
PATIENCE = 10.0

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
            print(json.dumps([one._asdict() for one in look(options.address)], allow_nan=False))
        else:
            show_live(_pictures(options.address, options.interval, options.once or not sys.stdout.isatty()))
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        print(f"top: {options.address}: {_reason(error)}", file=sys.stderr)
        return 1
    return 0


def _reason(error: Exception) -> str:
    return shown(str(getattr(error, "reason", error)))


def look(address: str) -> list[Figure]:
    """All figures. OSError where nobody answers, ValueError where it is none of ours."""
    from smtpd_core.app.exposition import from_text  # can't be imported where the library is missing

    try:
        # Whatever proxy is meant for the web, the way to this machine is not by it.
        with build_opener(ProxyHandler({})).open(f"http://{address}/metrics", timeout=PATIENCE) as answer:
            text = _read(answer).decode("utf-8", "replace")
    except HTTPError as error:
        raise ValueError(error.read(500).decode("utf-8", "replace").strip() or str(error)) from None
    except HTTPException as error:
        raise ValueError(f"this is no web server ({type(error).__name__})") from None
    found = from_text(text)
    if not any(one.metric == "smtpd_up_seconds" for one in found):
        raise ValueError("these are not the metrics of an smtpd_core server")
    return found


def _read(answer: HTTPResponse) -> bytes:
    """All of an answer that comes in time: each piece may be patient, the whole may not."""
    deadline = time.monotonic() + PATIENCE
    data = b""
    while len(data) < MAX_METRICS and (piece := answer.read1(1 << 16)):
        data += piece
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return data


def _pictures(address: str, interval: float, once: bool) -> Iterator[list[Pair]]:
    before: Picture = {}
    then = time.monotonic()
    is_ours = False
    while True:
        try:
            seen = {(one.metric + one.part, one.labels): one.value for one in look(address)}
        except (OSError, ValueError) as error:
            if not is_ours:
                raise
            before = {}
            yield [("server", f"{address} does not answer: {_reason(error)}")]
        else:
            now = time.monotonic()
            yield picture(address, seen, before, now - then)
            before, then, is_ours = seen, now, True
        if once:
            return
        time.sleep(max(interval, 0.1))


def picture(address: str, now: Picture, before: Picture, seconds: float) -> list[Pair]:
    """The lines to show: a title and what is to be told."""

    def one(name: str, *labels: str) -> float:
        return now.get((name, labels), 0.0)

    def rate(name: str, labels: tuple[str, ...] = ()) -> str:
        if not before or seconds <= 0:
            return ""
        total, known = now.get((name, labels), 0.0), before.get((name, labels), 0.0)
        # A total that is less than it was is that of a server that was started anew.
        return f" ({(total - known if total >= known else total) / seconds:.1f}/s)"

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
