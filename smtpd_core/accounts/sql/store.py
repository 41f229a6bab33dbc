"""Accounts in a table: our own, made by init(), or any other through a query of the operator's.

A query has the one parameter `:user` and gives one row with the columns user_name and password, and, as far as there
are any, display_name, email, addresses, may_act_as and active (0 shuts the account). `password` holds stored secrets
(hashing.py), one a line; addresses and may_act_as are separated by spaces or commas.
Thread: any; see connect.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from smtpd_core.accounts.entry import STORABLE, Entry, common_kinds, kinds_of
from smtpd_core.accounts.records import RecordStore
from smtpd_core.accounts.sql.connect import Database
from smtpd_core.accounts.store import Account, unavailable
from smtpd_core.wire.sasl.prep import user_name

TABLE = "smtpd_users"
# All accounts are looked at again no sooner than a hundred times as long as the look took.
LOOK_COSTS_AT_MOST = 100.0
_COLUMNS = "user_name, password, display_name, email, addresses, may_act_as"
_FIND = f"SELECT {_COLUMNS} FROM {TABLE} WHERE name = :name"
_ALL = f"SELECT {_COLUMNS} FROM {TABLE} ORDER BY name"
_MAKE = (
    "CREATE TABLE IF NOT EXISTS {table} (name {key} PRIMARY KEY, user_name VARCHAR(255) NOT NULL,"
    " password TEXT NOT NULL, display_name VARCHAR(255) NOT NULL, email VARCHAR(320) NOT NULL,"
    " addresses TEXT NOT NULL, may_act_as TEXT NOT NULL)"
)
_ADD = (
    f"INSERT INTO {TABLE} (name, {_COLUMNS})"
    " VALUES (:name, :user_name, :password, :display_name, :email, :addresses, :may_act_as)"
)
_PUT = (
    f"UPDATE {TABLE} SET user_name = :user_name, password = :password, display_name = :display_name,"
    " email = :email, addresses = :addresses, may_act_as = :may_act_as WHERE name = :name"
)
_REMOVE = f"DELETE FROM {TABLE} WHERE name = :name"


class SqlStore(RecordStore):
    """The accounts of one database.

    `query` reads a table of somebody else's: nothing is ever written then, and `kinds` must say what the stored
    passwords can serve if that is more than passwords. Without it our own table is used, and `kinds` follows from it.
    """

    def __init__(
        self,
        database: Database,
        *,
        query: str = "",
        kinds: Iterable[str] = (),
        case_insensitive: bool = False,
        renew: bool = True,
    ) -> None:
        super().__init__()
        strange = set(kinds) - set(STORABLE) - {"certificate"}
        if strange:
            raise ValueError(f"{', '.join(sorted(strange))}: not a kind of secret; there are {', '.join(STORABLE)}")
        if query and ":user" not in query:
            raise ValueError("the query of an account store has the parameter :user")
        self.database = database
        self.case_insensitive = case_insensitive
        self.renews = renew and not query
        self._query = query
        given = tuple(kinds) or (("password",) if query else ())
        self._given = frozenset(given) | {"certificate"} if given else None
        self._changes = 0
        self._version: tuple[int, object] = (0, None)
        self._look_after = 0.0
        self._seen: tuple[object, frozenset[str]] | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """In our own table what all accounts have; all are read where the version is another one than at the last
        look. Raises StoreUnavailable."""
        if self._given is not None:
            return self._given
        version, seen = self.version, self._seen
        if seen is None or seen[0] != version:
            begin = time.monotonic()
            stored = [_lines(row["password"]) for row in self.database.rows(f"SELECT password FROM {TABLE}")]
            self._learn(stored)
            self._seen = seen = version, common_kinds(stored)
            self._look_after = time.monotonic() + LOOK_COSTS_AT_MOST * (time.monotonic() - begin)
        return seen[1]

    @property
    def version(self) -> object:
        """Steady for a while after each look at all accounts, so that looking takes little of the time at any size."""
        if self._given is None and time.monotonic() >= self._look_after:
            self._version = self._changes, self.database.stamp()
        return self._version

    def find(self, user: str) -> Entry | None:
        try:
            key = user_name(user, case_insensitive=self.case_insensitive)
        except ValueError:
            return None
        if len(key) > 255:
            return None
        if self._query:
            rows = self.database.rows(self._query, {"user": key})
        else:
            rows = self.database.rows(_FIND, {"name": key})
        if len(rows) > 1:
            raise unavailable(f"{self.database.name}: the query gave {len(rows)} rows for one user")
        found = _entry(rows[0], self.database.name) if rows else None
        seen = self._seen
        if found is not None and found.secrets and seen is not None and not seen[1] <= kinds_of(found.secrets):
            self._changed()  # an account that came since the last look, and lacks what the others have
        return found

    # Changing our own table --------------------------------------------------------------------------------------

    def init(self) -> None:
        """Make the table where there is none."""
        self._must_be_ours()
        self.database.change(_MAKE.format(table=TABLE, key=self.database.key_type))

    def users(self) -> list[Account]:
        """All accounts, by name."""
        self._must_be_ours()
        return [_entry(row, self.database.name).account for row in self.database.rows(_ALL)]

    def add(self, entry: Entry) -> None:
        """Raises ValueError where the name is taken or can't be used."""
        self._must_be_ours()
        if self.find(entry.account.user_name) is not None:
            raise ValueError(f"account {entry.account.user_name!r} is there already")
        self.database.change(_ADD, self._values(entry))
        self._changed()

    def add_all(self, entries: Iterable[Entry], refused: Callable[[Entry, str], None]) -> None:
        """One after the other: a database needs no better."""
        for entry in entries:
            try:
                self.add(entry)
            except ValueError as error:
                refused(entry, str(error))

    def put(self, entry: Entry) -> None:
        self._must_be_ours()
        if not self.database.change(_PUT, self._values(entry)):
            raise ValueError(f"there is no account {entry.account.user_name!r}")
        self._changed()

    def set_secrets(self, user: str, secrets: tuple[str, ...]) -> None:
        """Raises ValueError where there is no such account."""
        found = self.find(user)
        if found is None:
            raise ValueError(f"there is no account {user!r}")
        self.put(Entry(found.account, secrets))

    def remove(self, user: str) -> None:
        """Raises ValueError where there is no such account."""
        self._must_be_ours()
        found = self.find(user)
        if found is None or not self.database.change(_REMOVE, {"name": self._name(found.account.user_name)}):
            raise ValueError(f"there is no account {user!r}")
        self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._look_after = 0.0

    def _must_be_ours(self) -> None:
        if self._query:
            raise ValueError("accounts that are read by a query of yours are changed where they are kept")

    def _name(self, user: str) -> str:
        try:
            key = user_name(user, case_insensitive=self.case_insensitive)
        except ValueError as error:
            raise ValueError(f"user name {user!r} can't be used: {error}") from None
        if len(key) > 255:
            raise ValueError("a user name of more than 255 characters can't be used")
        return key

    def _values(self, entry: Entry) -> dict[str, str]:
        who = entry.account
        for value in (*who.addresses, *who.may_act_as):
            if set(value) & set(" ,\n"):
                raise ValueError(f"{value!r} can't be kept: addresses and names have no spaces and commas here")
        return {
            "name": self._name(who.user_name),
            "user_name": who.user_name,
            "password": "\n".join(entry.secrets),
            "display_name": who.display_name,
            "email": who.email,
            "addresses": " ".join(who.addresses),
            "may_act_as": " ".join(who.may_act_as),
        }


def _entry(row: dict[str, Any], database: str) -> Entry:
    if not {"user_name", "password"} <= set(row):
        raise unavailable(f"{database}: the query must give the columns user_name and password")
    account = Account(
        str(row["user_name"]),
        str(row.get("display_name") or ""),
        str(row.get("email") or ""),
        tuple(str(row.get("addresses") or "").replace(",", " ").split()),
        tuple(str(row.get("may_act_as") or "").replace(",", " ").split()),
        _is_active(row),
    )
    return Entry(account, _lines(row["password"]) if account.may_log_in else ())


def _lines(password: object) -> tuple[str, ...]:
    text = password.decode() if isinstance(password, bytes) else str(password or "")
    return tuple(line for line in text.splitlines() if line)


def _is_active(row: dict[str, Any]) -> bool:
    return row.get("active", 1) not in (0, False, None, "0", "f", "false", "n", "N")
