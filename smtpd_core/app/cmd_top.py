"""`top`: a running server at a glance, from its /metrics, again every second until interrupted.

Totals that grow are shown with their rate since the last look. Colours and redrawing on a terminal only; elsewhere, and
with --once, one picture as plain text.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import urllib.error
import urllib.request

from smtpd_core.app.sanity import bad_address
from smtpd_core.app.values import duration

_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'\w+="((?:[^"\\]|\\.)*)"')

# A picture's metrics; more is not from one of our servers.
MAX_METRICS = 4 << 20

Picture = dict[tuple[str, tuple[str, ...]], float]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", default="127.0.0.1:9125", metavar="HOST:PORT", help="of [metrics] bind")
    parser.add_argument("--interval", type=duration, default=1.0, metavar="T", help="between looks, default 1s")
    parser.add_argument("--once", action="store_true", help="one picture and no more")


def run(options: argparse.Namespace) -> int:
    if reason := bad_address(options.address):
        print(f"top: {reason}", file=sys.stderr)
        return 2
    redraws = sys.stdout.isatty() and not options.once
    before: Picture = {}
    then = time.monotonic()
    while True:
        try:
            now_shown = look(options.address)
        except (OSError, ValueError) as error:
            print(f"top: {options.address}: {getattr(error, 'reason', error)}", file=sys.stderr)
            return 1
        now = time.monotonic()
        lines = picture(options.address, now_shown, before, now - then, bold=redraws)
        # Home, then each line clears what stood behind it, then the rest of the screen: nothing flickers.
        sys.stdout.write("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\n\x1b[J" if redraws else "\n".join(lines) + "\n")
        sys.stdout.flush()
        if not redraws:
            return 0
        before, then = now_shown, now
        time.sleep(max(options.interval, 0.1))


def look(address: str) -> Picture:
    """All samples by name and labels. OSError where nobody answers, ValueError where it is none of ours."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read(MAX_METRICS).decode("utf-8", "replace")
    found: Picture = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"no metrics: {line[:60]!r}")
        found[match[1], tuple(_LABEL.findall(match[2] or ""))] = float(match[3])
    if ("smtpd_up_seconds", ()) not in found:
        raise ValueError("these are not the metrics of an smtpd_core server")
    return found


def picture(address: str, now: Picture, before: Picture, seconds: float, *, bold: bool) -> list[str]:
    """The lines to show."""

    def one(name: str) -> float:
        return now.get((name, ()), 0.0)

    def rate(name: str, labels: tuple[str, ...] = ()) -> str:
        if not before or seconds <= 0:
            return ""
        return f" ({(now.get((name, labels), 0.0) - before.get((name, labels), 0.0)) / seconds:.1f}/s)"

    def several(name: str) -> str:
        pairs = [(labels, value) for (known, labels), value in now.items() if known == name and value]
        pairs.sort(key=lambda pair: -pair[1])
        return "  ".join(f"{' '.join(labels)} {value:g}{rate(name, labels)}" for labels, value in pairs[:8]) or "-"

    def title(text: str) -> str:
        return f"\x1b[1m{text:<12}\x1b[0m" if bold else f"{text:<12}"

    room = "takes mail" if one("smtpd_spool_has_room") else "SPOOL FULL"
    commits = max(one("smtpd_spool_commits_total"), 1.0)
    return [
        f"{title('server')}{address}, up {one('smtpd_up_seconds'):.0f} s, {room}",
        f"{title('connections')}{one('smtpd_connections_open'):g} open, "
        f"{one('smtpd_connections_refused_total'):g} refused{rate('smtpd_connections_refused_total')}",
        f"{title('sessions')}{several('smtpd_sessions')}",
        f"{title('threads')}{one('smtpd_threads_busy'):g} busy of {one('smtpd_threads'):g}, "
        f"{one('smtpd_threads_deposed_total'):g} deposed",
        f"{title('messages')}{one('smtpd_messages_total'):g}{rate('smtpd_messages_total')}",
        f"{title('syncs')}{one('smtpd_spool_commits_total'):g}{rate('smtpd_spool_commits_total')}, "
        f"{one('smtpd_spool_sync_seconds_total') / commits * 1000:.2f} ms each, "
        f"{one('smtpd_messages_total') / commits:.1f} messages each",
        f"{title('replies')}{several('smtpd_replies_total')}",
        f"{title('queue')}{one('smtpd_queue_messages'):g} messages: {several('smtpd_queue_recipients')}",
        f"{title('to')}{several('smtpd_queue_destination')}",
        f"{title('deliveries')}{several('smtpd_deliveries_total')}",
    ]
