"""`trace`: one message's or one session's whole story in order, from the log.

A message's story is its own lines, those of the session that brought it, and those of the notifications that it caused;
a session's is its own lines and those of its messages. Lines of several processes are put in order by their time.
Thread: main.
Not here: how lines look (logs.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TextIO

from smtpd_core.app.load import load
from smtpd_core.wire.shown import shown

_ID = re.compile(r"(?:([smd])-)?([0-9A-Za-z]+(?:-[0-9A-Za-z]+)*)\Z")
_SESSION = re.compile(r"\bs-[0-9A-Za-z-]+")
_MESSAGE = re.compile(r"\b[md]-([0-9A-Z]{15})\b")
_FLOW = re.compile(r"\bs-[0-9A-Za-z-]+|\b[0-9A-Z]{15}\b")
_NOTIFICATION = re.compile(r"\bm-([0-9A-Z]{15}): notification of what became of d-([0-9A-Z]{15})\b")
_STAMP = re.compile(r"(?:\{\"time\": \")?(\d{4}-\d\d-\d\dT[0-9:.]+Z)")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a queue id as in `queued as ...`, or a session id (s-...)")
    parser.add_argument("--json", action="store_true", help='one JSON object a line; of a text log {"line": ...}')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--log", metavar="F", action="append", help="the log; - or nothing is standard input; may be given again"
    )
    where.add_argument("--config", metavar="C", help="a configuration with [log] file")


def run(options: argparse.Namespace) -> int:
    paths = options.log or ["-"]
    if options.config:
        paths = [load(options.config, os.environ).log.file or "-"]
    match = _ID.match(options.id)
    if match is None:
        print(f"trace: {options.id!r} is no id", file=sys.stderr)
        return 2
    with ExitStack() as files:
        logs = [
            sys.stdin if path == "-" else files.enter_context(open(path, encoding="utf-8", errors="replace"))
            for path in paths
        ]
        found = list(story(entries(logs), options.id if match[1] == "s" else match[2]))
    if not found:
        print(f"trace: nothing about {options.id} in the log", file=sys.stderr)
        return 1
    print("\n".join(map(_as_json if options.json else _safe, found)))
    return 0


def entries(logs: Iterable[TextIO]) -> Iterator[str]:
    """What was logged at once: a line, and those below it that have no time of their own, as a traceback has."""
    for log in logs:
        entry = ""
        for line in log:
            if _STAMP.match(line):
                if entry:
                    yield entry
                entry = line.rstrip("\n")
            elif entry:
                entry += "\n" + line.rstrip("\n")
        if entry:
            yield entry


def story(logged: Iterable[str], id: str) -> Iterator[str]:
    """The entries about a message or a session, in order."""
    # Only what names some session or message can belong to a story.
    all_of_them = [(entry, set(_FLOW.findall(entry))) for entry in logged]
    all_of_them = [(entry, ids) for entry, ids in all_of_them if ids]
    wanted = {id} | (_messages(all_of_them, id) if id.startswith("s-") else _sessions(all_of_them, id))
    wanted |= _notifications(all_of_them, wanted)
    told = [entry for entry, ids in all_of_them if ids & wanted and not _is_of_another(entry, id, wanted)]
    yield from sorted(told, key=_when)


def _messages(logged: list[tuple[str, set[str]]], session: str) -> set[str]:
    """Those that the session brought."""
    return {message for entry, ids in logged if session in ids for message in _MESSAGE.findall(entry)}


def _sessions(logged: list[tuple[str, set[str]]], message: str) -> set[str]:
    """Those that brought the message: one, unless it was sent again."""
    return {session for entry, ids in logged if message in ids for session in _SESSION.findall(entry)}


def _notifications(logged: list[tuple[str, set[str]]], wanted: set[str]) -> set[str]:
    """Of what became of these messages. One of a notification there is none."""
    found = [match.groups() for entry, _ in logged if (match := _NOTIFICATION.search(entry))]
    return {notification for notification, message in found if message in wanted}


def _is_of_another(entry: str, id: str, wanted: set[str]) -> bool:
    """An entry about another message of the same session."""
    messages = set(_MESSAGE.findall(entry))
    return not id.startswith("s-") and bool(messages) and not messages & wanted


def _when(entry: str) -> str:
    match = _STAMP.match(entry)
    return match[1] if match is not None else ""


def _as_json(entry: str) -> str:
    first, _, rest = entry.partition("\n")
    try:
        is_object = not rest and isinstance(json.loads(first), dict)
    except ValueError:
        is_object = False
    return entry if is_object else json.dumps({"line": entry})


def _safe(entry: str) -> str:
    """Readable, and nothing in it steers a terminal, whatever wrote the log."""
    return "\n".join(map(shown, _readable(entry).split("\n")))


def _readable(entry: str) -> str:
    """As text, whichever form it was logged in."""
    if not entry.startswith("{"):
        return entry
    first, newline, rest = entry.partition("\n")
    try:
        told = json.loads(first)
        lead = f"{told['time']} {told['level'].upper()} {told['room']} "
        lines = [lead + line for line in told["message"].split("\n")]
    except (ValueError, KeyError, AttributeError):
        return entry
    return "\n".join([*lines, *told.get("trouble", "").splitlines()]) + newline + rest
