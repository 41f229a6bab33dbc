"""The log: one line for each change of state, as text or JSON, written by a thread of its own so that none else waits.

Flow ids (s- session, m- message, d- delivery) stand in the message itself; the JSON form lists them under "flow".
Thread: any.
Not here: the thread and its queue (smtpd_core.threads), whose dialogues are shown (transcripts.py).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections import deque
from typing import TextIO

from smtpd_core.app.settings import Log
from smtpd_core.app.streams import takes
from smtpd_core.app.transcripts import TRANSCRIPT
from smtpd_core.threads import LogWriter
from smtpd_core.wire.shown import shown

_FLOW = re.compile(r"\b[smd]-[0-9A-Za-z][0-9A-Za-z.-]*")

# Where the words of a client or a next hop may begin: addresses, quotations, lines of a dialogue.
_OTHERS_SAY = re.compile(r" (?:from|to|--|[CS]:) |[ (=][\"'<]")

# JSON escapes those below 32 only; terminals obey these too.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(127, 160)}

# Lines of a process without a thread for them, while nobody reads standard error.
_MAX_WAITING = 1000

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class TextForm(logging.Formatter):
    """2026-01-02T03:04:05.678Z INFO server s-1 ..."""

    def format(self, record: logging.LogRecord) -> str:
        lead = f"{_stamp(record)} {record.levelname} {_room(record.name)} "
        message = record.getMessage()
        # What a client said can't begin a line of its own, or move a terminal's cursor.
        # Only a transcript has lines of its own: a reply of several.
        lines = message.split("\n") if record.name == TRANSCRIPT else (message,)
        # What an exception says may be a stranger's too: its lines stand further in, where no entry begins.
        trouble = (f"  {shown(line)}" for line in _trouble(self, record))
        return "\n".join([*(lead + shown(line) for line in lines), *trouble])


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
        if flow := _FLOW.findall(own_words(message)):
            entry["flow"] = list(dict.fromkeys(flow))
        if trouble := _trouble(self, record):
            entry["trouble"] = "\n".join(trouble)
        return json.dumps(entry, ensure_ascii=False).translate(_CONTROLS)


def own_words(message: str) -> str:
    """The beginning of a message, up to what somebody else may have said: an id there may be anybody's."""
    return _OTHERS_SAY.split(message, 1)[0]


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _room(name: str) -> str:
    return name.removeprefix("smtpd_core.")


def _trouble(form: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """The lines of a traceback or a stack."""
    if record.exc_info and record.exc_info[0] is not None:
        return form.formatException(record.exc_info).split("\n")
    return form.formatStack(record.stack_info).split("\n") if record.stack_info else []


class LogFile:
    """Where the lines go: a file that can be opened again, or standard error. A full disk never stops the server."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: TextIO = self._open()

    def write(self, lines: list[str]) -> None:
        """Thread: the log's writer only."""
        try:
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
        except (OSError, ValueError):
            # There is nowhere to report that the report can't be written.
            pass

    def takes(self) -> bool:
        """Whether a line would not wait for a reader."""
        return takes(self._file)

    def reopen(self) -> None:
        """After a rotation, or at another path; where that can't be opened the old one stays. Thread: as write()."""
        try:
            fresh = self._open()
        except OSError:
            return
        old, self._file = self._file, fresh
        if old is not sys.stderr:
            old.close()

    def _open(self) -> TextIO:
        return open(self.path, "a", encoding="utf-8", errors="backslashreplace") if self.path else sys.stderr


class Logbook:
    """The log of this process from its settings on: leads all of the project's loggers to one writer. OSError.

    Without a thread lines are written where they are logged: for a master, which has none and forks.
    Thread: the one that owns the process's life.
    """

    def __init__(self, settings: Log, *, has_thread: bool = True) -> None:
        self._file = LogFile(settings.file)
        self._form = _Form()
        self._form.chosen = FORMS[settings.format]
        self._writer: LogWriter | _Straight
        if has_thread:
            self._writer = LogWriter(self._form, self._file.write, self._file.reopen)
        else:
            self._writer = _Straight(self._form, self._file)
        for name in _ROOMS:
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
            logger.addHandler(self._writer.handler)
            logger.setLevel(LEVELS[settings.level])
            logger.propagate = False

    def reopen(self) -> None:
        """The file was moved away: open it again before the next line."""
        self._writer.reopen()

    def follow(self, settings: Log) -> None:
        """Another level, form or file from the next line on."""
        self._form.chosen = FORMS[settings.format]
        for name in _ROOMS:
            logging.getLogger(name).setLevel(LEVELS[settings.level])
        if settings.file != self._file.path:
            self._file.path = settings.file
            self._writer.reopen()

    def stop(self) -> None:
        """Write what is left."""
        self._writer.stop()


class _Straight(logging.Handler):
    """To the file, in the thread that logs; while nobody reads it, lines wait for the next one."""

    def __init__(self, form: logging.Formatter, file: LogFile) -> None:
        super().__init__()
        self.handler = self
        self.reopen = file.reopen
        self._form = form
        self._file = file
        self._waiting: deque[str] = deque(maxlen=_MAX_WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(self._form.format(record))
        while self._waiting and self._file.takes():
            self._file.write([self._waiting.popleft()])

    def stop(self) -> None:
        """Nothing is left."""


_ROOMS = ("smtpd_core", "relay", "certs")


class _Form(logging.Formatter):
    """The form that was chosen last."""

    chosen: logging.Formatter

    def format(self, record: logging.LogRecord) -> str:
        return self.chosen.format(record)


FORMS: dict[str, logging.Formatter] = {"text": TextForm(), "json": JsonForm()}
