"""`trace`: one message's or one session's whole story in order, from the log."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator

from smtpd_core.app.load import load

_ID = re.compile(r"(?:[smd]-)?([0-9A-Za-z]+(?:-[0-9A-Za-z]+)*)\Z")
_SESSION = re.compile(r"\bs-[0-9A-Za-z-]+")
_MESSAGE = re.compile(r"\b[md]-([0-9A-Z]{15})\b")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a queue id as in `queued as ...`, or a session id (s-...)")
    parser.add_argument("--json", action="store_true", help='one JSON object a line; of a text log {"line": ...}')
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--log", metavar="F", help="the log; - or nothing is standard input")
    where.add_argument("--config", metavar="C", help="a configuration with [log] file")


def run(options: argparse.Namespace) -> int:
    path = options.log or "-"
    if options.config:
        path = load(options.config, os.environ).log.file or "-"
    match = _ID.match(options.id)
    if match is None:
        print(f"trace: {options.id!r} is no id", file=sys.stderr)
        return 2
    if path == "-":
        lines = sys.stdin.read().splitlines()
    else:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    found = list(story(lines, options.id if options.id.startswith("s-") else match[1]))
    found = [(_as_json if options.json else _readable)(line) for line in found]
    print(
        "\n".join(found) if found else f"trace: nothing about {options.id} in the log",
        file=None if found else sys.stderr,
    )
    return 0 if found else 1


def story(lines: Iterable[str], id: str) -> Iterator[str]:
    """The lines about a message and the session that brought it, or about a session and its messages."""
    lines = list(lines)
    direct = [line for line in lines if _mentions(line, id)]
    wanted = {id}
    for line in direct:
        if id.startswith("s-"):
            wanted.update(_MESSAGE.findall(line))
        else:
            wanted.update(_SESSION.findall(line))
    for line in lines:
        if any(_mentions(line, one) for one in wanted) and not _is_of_another(line, id, wanted):
            yield line


def _mentions(line: str, id: str) -> bool:
    at = line.find(id)
    while at >= 0:
        before, after = line[at - 1 : at], line[at + len(id) : at + len(id) + 1]
        if not (before.isalnum() and before) and not (after.isalnum() or after == "-"):
            return True
        at = line.find(id, at + 1)
    return False


def _is_of_another(line: str, id: str, wanted: set[str]) -> bool:
    """A line about another message of the same session."""
    messages = set(_MESSAGE.findall(line))
    return not id.startswith("s-") and bool(messages) and not messages & wanted


def _as_json(line: str) -> str:
    try:
        is_object = isinstance(json.loads(line), dict)
    except ValueError:
        is_object = False
    return line if is_object else json.dumps({"line": line})


def _readable(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
        return f"{entry['time']} {entry['level'].upper()} {entry['room']} {entry['message']}"
    except (ValueError, KeyError, AttributeError):
        return line
