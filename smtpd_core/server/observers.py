"""Who watches a dialogue: the debug log, the transcripts, on_receive_command and on_send_response.

Commands and replies come from the protocol core with secrets masked; content is one line that tells its size. A session
that nobody watches has no Witness at all.
Thread: a Witness within its session's turn; DebugLog and Transcripts from any (one lock each, held for one line).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, TextIO

from smtpd_core.threads import Lock
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.shown import shown_with_tabs

if TYPE_CHECKING:
    from smtpd_core.server.house import House
    from smtpd_core.server.session import Session

log = logging.getLogger(__name__)

# Lines of one transcript: the beginning of a long session goes, its end tells what went wrong.
MAX_LINES = 400

# Characters of such a line; a hundred failed sessions of a hostile client are some 10 MB then, not 80.
MAX_LINE = 250


class DebugLog:
    """Lines of dialogue to a logger, or appended to a file; as text or as one JSON object each.

    The file is opened with the first line and again where it was moved away (logrotate). A line that can't be written
    is lost, and costs no session: the first of them is told to the log.
    """

    def __init__(self, target: str | os.PathLike[str] | logging.Logger | bool, form: str = "text") -> None:
        if form not in ("text", "json"):
            raise ValueError(f"debug_log_format {form!r}: 'text' or 'json' is due")
        self._as_json = form == "json"
        self._logger: logging.Logger | None = None
        self._path = ""
        self._file: TextIO | None = None
        self._is_closed = False
        self._is_failing = False
        self._lock = Lock()
        if isinstance(target, logging.Logger):
            self._logger = target
        elif isinstance(target, bool):
            self._logger = logging.getLogger("smtpd_core.debug")
            if not self._logger.isEnabledFor(logging.DEBUG):
                self._logger.setLevel(logging.DEBUG)
            if not self._logger.hasHandlers():
                self._logger.addHandler(logging.StreamHandler())
        else:
            self._path = os.path.abspath(os.fspath(target))
            self._open().close()  # what can't be opened is an error at once

    def note(self, session: str, kind: str, text: str, **more: Any) -> None:
        """One line. `kind` is connect, command, reply, content, tls, user or close."""
        if self._logger is not None and not self._logger.isEnabledFor(logging.DEBUG):
            return
        if self._as_json:
            line = json.dumps({"time": round(time.time(), 3), "session": session, "kind": kind, "text": text, **more})
        else:
            mark = {"command": "C:", "reply": "S:"}.get(kind, f"-- {kind}")
            line = "\n".join(f"{session} {mark} {shown_with_tabs(part)}" for part in text.split("\n"))
        if self._logger is not None:
            self._logger.debug("%s", line)
            return
        if not self._as_json:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            line = "\n".join(f"{stamp} {part}" for part in line.split("\n"))
        with self._lock:
            trouble = self._write(line)
        if trouble is not None:
            log.error("debug log %s: %s; lines are lost until it can be written again", self._path, trouble)

    def _open(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def _write(self, line: str) -> OSError | None:
        """Within the lock. The error, where it is a new one."""
        if self._is_closed:
            return None  # a session that had its hands on it while it was exchanged
        try:
            if self._file is None:
                self._file = self._open()
            elif self._was_moved(self._file):
                moved, self._file = self._file, self._open()
                moved.close()
            self._file.write(line + "\n")
        except OSError as error:
            is_new, self._is_failing = not self._is_failing, True
            self._drop_file()
            return error if is_new else None
        self._is_failing = False
        return None

    def _was_moved(self, file: TextIO) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        mine = os.fstat(file.fileno())
        return (there.st_ino, there.st_dev) != (mine.st_ino, mine.st_dev)

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # what it still held can't be written either

    def close(self) -> None:
        """For good; lines that come later are lost."""
        with self._lock:
            self._is_closed = True
            self._drop_file()


class Transcripts:
    """The dialogues of the last sessions by id; of failed ones (a 4xx or 5xx, or an end within a transaction) first.

    `room` sessions at most; a session that went well makes room before one that failed.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._lock = Lock()
        self._good: OrderedDict[str, list[str]] = OrderedDict()
        self._failed: OrderedDict[str, list[str]] = OrderedDict()

    def keep(self, session: str, lines: list[str], failed: bool) -> None:
        with self._lock:
            (self._failed if failed else self._good)[session] = lines
            while len(self._good) + len(self._failed) > self.room:
                (self._good or self._failed).popitem(last=False)

    def get(self, session: str) -> str | None:
        with self._lock:
            lines = self._failed.get(session) or self._good.get(session)
        return "\n".join(lines) if lines is not None else None

    @property
    def failed(self) -> list[str]:
        """Ids of failed sessions, oldest first."""
        with self._lock:
            return list(self._failed)


class Witness:
    """The observer of one session. `notes` are calls of program hooks that are due at the next step of the turn."""

    __slots__ = ("failed", "house", "lines", "notes", "session", "started")

    def __init__(self, house: House, session: Session) -> None:
        self.house = house
        self.session = session
        self.notes: deque[tuple[str, Any]] = deque()
        self.lines: deque[str] | None = deque(maxlen=MAX_LINES) if house.transcripts is not None else None
        self.failed = False
        self.started = time.monotonic()
        self.note("connect", f"from {session.peer!r} on {session.listener_name}")

    def command(self, text: str) -> None:
        if self.house.slots.on_receive_command is not None:
            self.notes.append(("on_receive_command", text))
        self._write("command", "C:", text)

    def reply(self, reply: Reply) -> None:
        if self.house.slots.on_send_response is not None:
            self.notes.append(("on_send_response", reply))
        if reply.code >= 400:
            self.failed = True
        text = reply.wire.decode("ascii").rstrip("\r\n") if reply.code != 334 else "334 ****"
        self._write("reply", "S:", text.replace("\r\n", "\n"))

    def note(self, kind: str, text: str) -> None:
        self._write(kind, f"-- {kind}", text)

    def _write(self, kind: str, mark: str, text: str) -> None:
        debug = self.house.debug
        if debug is not None:
            debug.note(self.session.id, kind, text)
        if self.lines is not None:
            since = time.monotonic() - self.started
            self.lines.extend(f"{since:8.3f} {mark} {shown_with_tabs(part[:MAX_LINE])}" for part in text.split("\n"))

    def end(self, why: str, failed: bool) -> None:
        self.note("close", why)
        if self.lines is not None and self.house.transcripts is not None:
            self.house.transcripts.keep(self.session.id, list(self.lines), failed or self.failed)
