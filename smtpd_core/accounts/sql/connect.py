"""Connections to the databases of accounts: how each is opened, and how its statements are written.

Idle connections are kept for the next look-up; one that died is replaced once before the database counts as down.
A connection is used by one thread at a time. Nothing waits for a connection: the engine bounds how many log in at once.
Not here: what is asked (store.py).
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from smtpd_core.accounts.extras import needed
from smtpd_core.accounts.store import StoreUnavailable, unavailable

# Seconds for a connection, and for one statement. A log-in has its own deadline above these.
CONNECT_TIMEOUT = 5
STATEMENT_TIMEOUT = 10
# Seconds after which a database on a server may have changed, as far as we can tell without asking.
LOOK_AGAIN_AFTER = 10.0
# Idle connections kept. More are closed when their look-up is over.
MAX_IDLE = 8

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b|%")


class Database:
    """A DB-API database: `open` makes a connection, `errors` are what its driver raises.

    Statements name their parameters `:user`; `percent_style` rewrites them to `%(user)s` for drivers that want that.
    `stamp()` is another value when the contents may have changed; it never waits. A server can't be asked without
    waiting, so there it is another one now and then. `hidden` is our password, which no error shows.
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], Any],
        errors: tuple[type[Exception], ...],
        *,
        percent_style: bool = False,
        key_type: str = "VARCHAR(255)",
        stamp: Callable[[], object] | None = None,
        hidden: str = "",
    ) -> None:
        self.name = name
        self._hidden = hidden
        self.stamp = stamp or (lambda: int(time.monotonic() / LOOK_AGAIN_AFTER))
        self.key_type = key_type
        self._open = open
        self._errors = errors
        self._open_errors: tuple[type[Exception], ...] = (*errors, OSError)
        self._percent_style = percent_style
        self._idle: list[Any] = []
        self._process = os.getpid()

    def rows(self, statement: str, values: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries, column names in small letters. Raises StoreUnavailable."""
        with self._cursor(statement, values) as cursor:
            names = [column[0].lower() for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def change(self, statement: str, values: Mapping[str, str] | None = None) -> int:
        """Run a statement and commit; the number of rows it touched. Raises StoreUnavailable."""
        with self._cursor(statement, values) as cursor:
            return int(cursor.rowcount)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _cursor(self, statement: str, values: Mapping[str, str] | None) -> Iterator[Any]:
        if self._percent_style:
            statement = _PARAMETER.sub(lambda found: f"%({found[1]})s" if found[1] else "%%", statement)
        connection, cursor = self._executed(statement, dict(values or {}))
        try:
            yield cursor
            connection.commit()
        except self._errors as error:
            connection.close()
            raise self._down(error) from None
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _executed(self, statement: str, values: dict[str, str]) -> tuple[Any, Any]:
        """1 An idle connection may have died since: then all of them are suspect. 2 A fresh one must work."""
        if os.getpid() != self._process:
            self._idle, self._process = [], os.getpid()  # a connection does not survive a fork
        try:
            connection = self._idle.pop()
        except IndexError:
            pass
        else:
            try:
                return connection, self._run(connection, statement, values)
            except self._errors:
                connection.close()
                self.close()
        try:
            connection = self._open()
        except self._open_errors as error:
            raise self._down(error) from None
        try:
            return connection, self._run(connection, statement, values)
        except self._errors as error:
            connection.close()
            raise self._down(error) from None

    def _run(self, connection: Any, statement: str, values: dict[str, str]) -> Any:
        cursor = connection.cursor()
        if values or self._percent_style:
            cursor.execute(statement, values)
        else:
            cursor.execute(statement)
        return cursor

    def _down(self, error: Exception) -> StoreUnavailable:
        """The driver's words, first line only: what follows may quote the statement's values."""
        told = str(error).strip().partition("\n")[0]
        if self._hidden:
            told = told.replace(self._hidden, "****")
        told = told[:200]
        return unavailable(f"{self.name}: {type(error).__name__}: {told}")


def sqlite(path: str | Path) -> Database:
    """A file. It is made, readable by its owner only, where the first change comes and it is not there."""

    def open_file() -> sqlite3.Connection:
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        # One connection is used by one thread at a time, but not always by the same.
        connection = sqlite3.connect(path, timeout=STATEMENT_TIMEOUT, check_same_thread=False)
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    return Database(f"sqlite:{path}", open_file, (sqlite3.Error,), stamp=lambda: (_stamp(path), _stamp(f"{path}-wal")))


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def postgres(url: str, password: str = "") -> Database:
    """postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=... as libpq reads it. `password` is one that is not in the
    URL. Raises ExtraMissing, or ValueError for a URL that is none."""
    parts = _address(url)
    more = {"password": password} if password else {}
    driver = needed("psycopg", extra="postgres", purpose="an account store in PostgreSQL")

    def open_session() -> Any:
        return driver.connect(
            url, connect_timeout=CONNECT_TIMEOUT, options=f"-c statement_timeout={STATEMENT_TIMEOUT * 1000}", **more
        )

    hidden = password or unquote(parts.password or "")
    return Database(_shown(url), open_session, (driver.Error,), percent_style=True, hidden=hidden)


def mysql(url: str, password: str = "") -> Database:
    """mysql://USER:PASSWORD@HOST:PORT/DATABASE, or ?unix_socket=PATH; otherwise as postgres() above."""
    parts = _address(url)
    driver = needed("pymysql", extra="mysql", purpose="an account store in MySQL")
    if parts.query and not parts.query.startswith("unix_socket="):
        raise ValueError("a mysql URL knows the option unix_socket only")
    socket = unquote(parts.query.partition("=")[2]) or None
    hidden = password or unquote(parts.password or "")

    def open_session() -> Any:
        return driver.connect(
            host=parts.hostname or "localhost",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=hidden,
            database=unquote(parts.path.lstrip("/")),
            unix_socket=socket,
            charset="utf8mb4",
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=STATEMENT_TIMEOUT,
            write_timeout=STATEMENT_TIMEOUT,
        )

    # MySQL compares text regardless of case unless told otherwise; names here compare as they are.
    key = "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    return Database(_shown(url), open_session, (driver.MySQLError,), percent_style=True, key_type=key, hidden=hidden)


# What an address uses for itself, and how a password has it.
_QUOTED = "%40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %"
_BAD_QUOTE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


def _address(url: str) -> SplitResult:
    """A URL whose password can't be taken for another part of it, which drivers would then quote in their errors."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    hosts = authority.rpartition("@")[2].split(",")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts]
    if _BAD_QUOTE.search(rest) or "@" in rest[len(authority) :] or authority.count("@") > 1:
        raise ValueError(f"{scheme}: a password in a URL is written with {_QUOTED}")
    if any(port and not (port.isascii() and port.isdigit()) for port in ports):
        raise ValueError(f"{scheme}: the port of a host is a number; a password in a URL is written with {_QUOTED}")
    return urlsplit(url)


def _shown(url: str) -> str:
    """The URL without its password, for messages."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{parts.path}"
