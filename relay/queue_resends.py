"""Looks second copies up in a queue's file, for a process that only spools and for any at its start.

Thread: any.
Not here: what makes two messages copies (resends), the messages still in the spool (kept_before).
"""

from __future__ import annotations

import ctypes
import logging
import sqlite3
from typing import Any

from relay import statements as sql
from relay.queue_reader import open_to_read
from smtpd_core.threads import Lock

log = logging.getLogger(__name__)


class QueueResends:
    """Of the queue in the file `path`, which need not be there yet. What can't be read is not known: its copies are
    stored twice, and whoever holds the queue says what is wrong with it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = Lock()
        self._db: sqlite3.Connection | None = None
        self._is_told = False

    def find(self, key: bytes) -> tuple[str, float] | None:
        """Id and Unix time of the message that was added to the queue with this key, within the last minutes."""
        found = self._rows(sql.RESEND, key)
        return found[0] if found else None

    def since(self, at: float) -> list[tuple[bytes, str, float]]:
        """Key, id and Unix time of the messages added since."""
        return self._rows(sql.RESENDS, at)

    def _rows(self, statement: str, value: bytes | float) -> list[Any]:
        with self._lock:
            try:
                if self._db is None:
                    self._db = open_to_read(self._path)
                return self._db.execute(statement, (value,)).fetchall()
            except FileNotFoundError:
                return []
            except sqlite3.Error as error:
                trouble = error
                self._forget()
        if not self._is_told:
            self._is_told = True
            log.warning("queue %s: second copies of what it holds are not recognised: %s", self._path, trouble)
        return []

    def _forget(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        """Idempotent; find() opens it again."""
        with self._lock:
            self._forget()

    def abandon(self) -> None:
        """In the child after a fork, where SQLite's handles can't even be closed."""
        if self._db is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
            self._db = None
        self._lock = Lock()
