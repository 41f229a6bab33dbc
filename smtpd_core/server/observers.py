"""Who watches a dialogue: the debug log, the transcripts, on_receive_command and on_send_response.

Commands and replies come from the protocol core with secrets masked; content is one line that tells its size. A session
that nobody watches has no Witness at all.
Thread: a Witness within its session's turn; DebugLog and Transcripts from any (one lock each, held for one line).
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, TextIO

from smtpd_core.threads import Lock
from smtpd_core.wire.replies import Reply

if TYPE_CHECKING:
    from smtpd_core.server.house import House
    from smtpd_core.server.session import Session

# Lines of one transcript: the beginning of a long session goes, its end tells what went wrong.
MAX_LINES = 400


class DebugLog:
    """Lines of dialogue to a logger, or appended to a file; as text or as one JSON object each."""

    def __init__(self, target: str | logging.Logger | bool, form: str = "text") -> None:
        if form not in ("text", "json"):
            raise ValueError(f"debug_log_format {form!r}: 'text' or 'json' is due")
        self._as_json = form == "json"
        self._logger: logging.Logger | None = None
        self._file: TextIO | None = None
        self._lock = Lock()
        if isinstance(target, logging.Logger):
            self._logger = target
        elif target is True:
            self._logger = logging.getLogger("smtpd_core.debug")
            if not self._logger.isEnabledFor(logging.DEBUG):
                self._logger.setLevel(logging.DEBUG)
            if not self._logger.hasHandlers():
                self._logger.addHandler(logging.StreamHandler())
        else:
            self._file = open(str(target), "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (owned until close)

    def note(self, session: str, kind: str, text: str, **more: Any) -> None:
        """One line. `kind` is connect, command, reply, content, tls, user or close."""
        if self._logger is not None and not self._logger.isEnabledFor(logging.DEBUG):
            return
        if self._as_json:
            line = json.dumps({"time": round(time.time(), 3), "session": session, "kind": kind, "text": text, **more})
        else:
            mark = {"command": "C:", "reply": "S:"}.get(kind, f"-- {kind}")
            line = "\n".join(f"{session} {mark} {part}" for part in text.splitlines() or [""])
        if self._logger is not None:
            self._logger.debug("%s", line)
        elif self._file is not None:
            if not self._as_json:
                stamp = time.strftime("%Y-%m-%d %H:%M:%S")
                line = "\n".join(f"{stamp} {part}" for part in line.splitlines())
            with self._lock:
                self._file.write(line + "\n")

    def close(self) -> None:
        if self._file is not None:
            with self._lock:
                self._file.close()
                self._file = None


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
        self.note("connect", f"from {session.peer!r} on {session.listener.service} {session.listener.bind}")

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
            self.lines.extend(f"{since:8.3f} {mark} {part}" for part in text.split("\n"))

    def end(self, why: str, failed: bool) -> None:
        self.note("close", why)
        if self.lines is not None and self.house.transcripts is not None:
            self.house.transcripts.keep(self.session.id, list(self.lines), failed or self.failed)
