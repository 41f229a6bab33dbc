"""The log: one line for each change of state, as text or JSON, written by a thread of its own so that none else waits.

Flow ids (s- session, m- message, d- delivery) stand in the message itself; the JSON form lists them under "flow".
Thread: any.
Not here: the thread and its queue (smtpd_core.threads).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import TextIO

from smtpd_core.app.settings import Log
from smtpd_core.net.guard import Networks
from smtpd_core.threads import LogWriter

_FLOW = re.compile(r"\b[smd]-[0-9A-Za-z][0-9A-Za-z.-]*")

TRANSCRIPT = "smtpd_core.transcript"

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class TextForm(logging.Formatter):
    """2026-01-02T03:04:05.678Z INFO server s-1 ..."""

    def format(self, record: logging.LogRecord) -> str:
        lead = f"{_stamp(record)} {record.levelname} {_room(record.name)} "
        message = record.getMessage()
        # Only a transcript has lines of its own: a reply of several.
        lines = message.split("\n") if record.name == TRANSCRIPT else (message,)
        return "\n".join(lead + _one_line(line) for line in lines) + _trouble(self, record, "\n")


class JsonForm(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        entry: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "room": _room(record.name),
            "message": message,
        }
        if flow := _FLOW.findall(message):
            entry["flow"] = list(dict.fromkeys(flow))
        if trouble := _trouble(self, record, ""):
            entry["trouble"] = trouble
        return json.dumps(entry, ensure_ascii=False)


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _room(name: str) -> str:
    return name.removeprefix("smtpd_core.")


def _one_line(text: str) -> str:
    """What a client said can't begin a line of its own, or move a terminal's cursor."""
    return "".join(c if c >= " " and c != "\x7f" else f"\\x{ord(c):02x}" for c in text)


def _trouble(form: logging.Formatter, record: logging.LogRecord, lead: str) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return lead + form.formatException(record.exc_info)
    return lead + form.formatStack(record.stack_info) if record.stack_info else ""


class LogFile:
    """Where the lines go: a file that can be opened again, or standard error. A full disk never stops the server."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO = self._open()

    def write(self, lines: list[str]) -> None:
        """Thread: the log's writer only."""
        try:
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
        except (OSError, ValueError):
            # There is nowhere to report that the report can't be written.
            pass

    def reopen(self) -> None:
        """After a rotation. Thread: the log's writer, or before it runs."""
        if not self._path:
            return
        try:
            fresh = self._open()
        except OSError:
            return
        old, self._file = self._file, fresh
        old.close()

    def _open(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace") if self._path else sys.stderr


_CONNECTED = re.compile(r"(\S+) -- connect from \[?([0-9A-Fa-f.:]+?)\]?:\d+ on ")
_LOGGED_IN = re.compile(r"(\S+) -- user (\S+)")


class OnlyOf(logging.Filter):
    """Lets through the dialogues of some addresses, networks and users: a session from the line on that shows it."""

    def __init__(self, wanted: tuple[str, ...]) -> None:
        super().__init__()
        networks = []
        self._users = set()
        for text in wanted:
            try:
                Networks((text,))
                networks.append(text)
            except ValueError:
                self._users.add(text)
        self._networks = Networks(networks)
        self._sessions: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        session = line.partition(" ")[0]
        if connected := _CONNECTED.match(line):
            if connected[2] in self._networks:
                self._sessions.add(session)
        elif (user := _LOGGED_IN.match(line)) and user[2] in self._users:
            self._sessions.add(session)
        shown = session in self._sessions
        if " -- close" in line:
            self._sessions.discard(session)
        return shown


def transcript_logger(settings: Log) -> logging.Logger | None:
    """Where dialogues are written, None where they are not wanted."""
    if not settings.transcript and not settings.transcript_for:
        return None
    logger = logging.getLogger(TRANSCRIPT)
    logger.setLevel(logging.DEBUG)
    for old in list(logger.filters):
        logger.removeFilter(old)
    if settings.transcript_for and not settings.transcript:
        logger.addFilter(OnlyOf(settings.transcript_for))
    return logger


def start_log(settings: Log) -> LogWriter:
    """Lead all of the project's loggers to one writer; stop() writes what is left. Raises OSError."""
    file = LogFile(settings.file)
    writer = LogWriter(JsonForm() if settings.format == "json" else TextForm(), file.write, file.reopen)
    for name in ("smtpd_core", "relay", "certs"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.addHandler(writer.handler)
        logger.setLevel(LEVELS[settings.level])
        logger.propagate = False
    return writer
