"""`trace`: one message's or one session's whole story in order, from the log.

A message's story is its own lines, those of the session that brought it, and those of the notifications that it caused;
a session's is its own lines and those of its messages. Lines of several processes are put in order by their time.
Ids count where the server wrote them, not where a client may have.
Thread: main.
Not here: how lines look (logs.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO

from smtpd_core.app.load import load
from smtpd_core.app.logs import own_words
from smtpd_core.app.values import path
from smtpd_core.wire.shown import shown

_ID = re.compile(r"(?:([smd])-)?([0-9A-Za-z]+(?:-[0-9A-Za-z]+)*)\Z")
_SESSION = re.compile(r"\bs-[0-9A-Za-z-]+")
_MESSAGE = re.compile(r"\b[md]-([0-9A-Z]{15})\b")
_FLOW = re.compile(r"\bs-[0-9A-Za-z-]+|\b[0-9A-Z]{15}\b")
_IDS = re.compile(_FLOW.pattern.encode()).findall
_PROMISED = re.compile(r"(s-[0-9A-Za-z-]+) S: 250 2\.0\.0 Ok: queued as ([0-9A-Z]{15})\b")
_NOTIFICATION = re.compile(r"m-([0-9A-Z]{15}): notification of what became of d-([0-9A-Z]{15})\b")
_STAMP = re.compile(rb"(?:\{\"time\": \")?(\d{4}-\d\d-\d\dT[0-9:.]+Z)")

# What is read at once, and kept of one entry: a log that a crash or another program spoilt has lines without end.
MAX_LINE, MAX_ENTRY = 1 << 16, 1 << 20

_FEW = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a queue id as in `queued as ...`, or a session id (s-...)")
    parser.add_argument("--json", action="store_true", help='one JSON object a line; of a text log {"line": ...}')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--log",
        type=path,
        metavar="F",
        action="append",
        help="the log, may be given again; - or none is standard input",
    )
    where.add_argument("--config", type=path, metavar="C", help="a configuration with [log] file")


def run(options: argparse.Namespace) -> int:
    paths = options.log or ["-"]
    if options.config:
        paths = [load(options.config, os.environ).log.file or "-"]
    match = _ID.match(options.id)
    if match is None:
        print(f"trace: {options.id!r} is no id", file=sys.stderr)
        return 2
    if not options.log and not options.config and sys.stdin.isatty():
        print("trace: which log? Give --log F or --config C, or the log on standard input", file=sys.stderr)
        return 2
    with ExitStack() as files:
        logs = [files.enter_context(_opened(path)) for path in paths]
        found = story(logs, options.id if match[1] == "s" else match[2])
    if not found:
        print(f"trace: nothing about {options.id} in the log", file=sys.stderr)
        return 1
    print("\n".join(map(_as_json if options.json else _safe, found)))
    return 0


def _opened(path: str) -> BinaryIO:
    """A log that can be read again from its beginning; standard input and pipes can't, and are copied."""
    if path == "-":
        return _copied(sys.stdin.buffer)
    log = open(path, "rb")  # noqa: SIM115
    return log if log.seekable() else _copied(log)


def _copied(log: BinaryIO) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(log, copy)
    return copy


def entries(log: BinaryIO) -> Iterator[bytes]:
    """What was logged at once: a line, and those below it that have no time of their own, as a traceback has."""
    log.seek(0)
    entry = b""
    for line in iter(partial(log.readline, MAX_LINE), b""):
        line = line.lstrip(b"\0")  # the end of a file whose machine lost power
        if _STAMP.match(line):
            if entry:
                yield entry.rstrip(b"\n")
            entry = line
        elif entry and len(entry) < MAX_ENTRY:
            entry += line
    if entry:
        yield entry.rstrip(b"\n")


def story(logs: Sequence[BinaryIO], id: str) -> list[str]:
    """The entries about a message or a session, in order. The logs are read three times and never held."""
    wanted = {id} | (_messages(logs, id) if id.startswith("s-") else _sessions(logs, id))
    wanted |= _notifications(logs, wanted)
    told = [entry for entry, own in _about(logs, wanted) if not _is_of_another(own, id, wanted)]
    return sorted(told, key=_when)


def _about(logs: Sequence[BinaryIO], wanted: set[str]) -> Iterator[tuple[str, str]]:
    """The entries that are about one of these, each with what the server itself says in it."""
    octets = {one.encode() for one in wanted}
    for log in logs:
        for entry in entries(log):
            # Few are looked for much faster one by one, many in one go.
            is_few = len(octets) < _FEW
            if not any(map(entry.__contains__, octets) if is_few else map(octets.__contains__, _IDS(entry))):
                continue
            text = entry.decode("utf-8", "replace")
            own = _own_words(text)
            if not wanted.isdisjoint(_FLOW.findall(own)):
                yield text, own


def _own_words(entry: str) -> str:
    """A client that speaks of another's message is no part of its story, though a promise to a client is."""
    message = _message(entry)
    promised = _PROMISED.match(message)
    return f"{promised[1]} {promised[2]}" if promised is not None else own_words(message)


def _message(entry: str) -> str:
    """The first line of an entry without time, level and room, whichever form it was logged in."""
    first = entry.partition("\n")[0]
    if not first.startswith("{"):
        return "".join(first.split(" ", 3)[3:])
    try:
        return str(json.loads(first)["message"]).partition("\n")[0]
    except (ValueError, KeyError, RecursionError):
        return ""


def _messages(logs: Sequence[BinaryIO], session: str) -> set[str]:
    """Those that the session brought."""
    return {message for _, own in _about(logs, {session}) for message in _MESSAGE.findall(own)}


def _sessions(logs: Sequence[BinaryIO], message: str) -> set[str]:
    """Those that brought the message: one, unless it was sent again."""
    return {session for _, own in _about(logs, {message}) for session in _SESSION.findall(own)}


def _notifications(logs: Sequence[BinaryIO], wanted: set[str]) -> set[str]:
    """Of what became of these messages. One of a notification there is none."""
    found = [match.groups() for _, own in _about(logs, wanted) if (match := _NOTIFICATION.match(own))]
    return {notification for notification, message in found if message in wanted}


def _is_of_another(own: str, id: str, wanted: set[str]) -> bool:
    """An entry about another message of the same session."""
    messages = set(_MESSAGE.findall(own))
    return not id.startswith("s-") and bool(messages) and not messages & wanted


def _when(entry: str) -> str:
    match = _STAMP.match(entry[:64].encode())
    return match[1].decode() if match is not None else ""


def _as_json(entry: str) -> str:
    first, _, rest = entry.partition("\n")
    try:
        is_object = not rest and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
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
        lines += told.get("trouble", "").splitlines()
    except (ValueError, KeyError, AttributeError, RecursionError):
        return entry
    return "\n".join(lines) + newline + rest
