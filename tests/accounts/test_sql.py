"""Accounts in a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.entry import Entry, stored_forms
from smtpd_core.accounts.memory import MemoryStore, UserAccount
from smtpd_core.accounts.sql import Database, SqlStore, mysql, sqlite
from smtpd_core.accounts.store import Account, StoreUnavailable


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    made = SqlStore(sqlite(tmp_path / "users.db"))
    made.init()
    made.init()
    return made


def test_accounts_come_and_go(store: SqlStore, tmp_path: Path) -> None:
    ann = Account("ann", "Ann", "ann@x.test", ("@y.test", "z@z.test"), ("bob",))
    store.add(Entry(ann, ("{PLAIN}one",)))
    store.add(Entry(Account("Ann"), ("{PLAIN}other",)))
    assert store.users() == [Account("Ann"), ann]
    with pytest.raises(ValueError, match="already"):
        store.add(Entry(ann, ()))
    store.set_secrets("ann", ("{PLAIN}two",))
    assert store.verify("ann", "two") == ann and not store.verify("ann", "one")
    store.remove("ann")
    assert store.verify("ann", "two") is None and store.users() == [Account("Ann")]
    for change in (lambda: store.remove("ann"), lambda: store.set_secrets("ann", ())):
        with pytest.raises(ValueError, match="no account"):
            change()
    assert (tmp_path / "users.db").stat().st_mode & 0o777 == 0o600


def test_names_regardless_of_case(tmp_path: Path) -> None:
    store = SqlStore(sqlite(tmp_path / "users.db"), case_insensitive=True)
    store.init()
    store.add(Entry(Account("Ann"), ("{PLAIN}x",)))
    found = store.verify("aNN", "x")
    assert found and found.user_name == "Ann"
    with pytest.raises(ValueError, match="already"):
        store.add(Entry(Account("ANN"), ("{PLAIN}x",)))


def test_an_outdated_hash_is_renewed(store: SqlStore) -> None:
    store.add(Entry(Account("ann"), ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",)))
    assert store.verify("ann", "secret")
    entry = store.find("ann")
    assert entry and not entry.secrets[0].startswith("{SHA}") and store.verify("ann", "secret")


def test_what_is_offered_follows_the_accounts(store: SqlStore) -> None:
    store.add(Entry(Account("ann"), stored_forms("x", ["scram-sha-1"])))
    assert store.kinds == {"password", "certificate", "scram-sha-1"}
    store.add(Entry(Account("bob"), stored_forms("x", [])))
    assert store.kinds == {"password", "certificate"}


def test_a_database_that_is_down_is_no_wrong_password(tmp_path: Path) -> None:
    (tmp_path / "users.db").write_bytes(b"this is no database at all, but long enough to look like one" * 20)
    store = SqlStore(sqlite(tmp_path / "users.db"))
    with pytest.raises(StoreUnavailable):
        store.verify("ann", "x")
    with pytest.raises(StoreUnavailable):
        SqlStore(sqlite(tmp_path / "no" / "such" / "folder.db")).verify("ann", "x")
    with pytest.raises(StoreUnavailable, match="no such table"):
        SqlStore(sqlite(tmp_path / "empty.db")).verify("ann", "x")


def test_a_query_must_name_the_user_and_give_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=":user"):
        SqlStore(sqlite(tmp_path / "x.db"), query="SELECT 1")
    with pytest.raises(ValueError, match="kind"):
        SqlStore(sqlite(tmp_path / "x.db"), query="SELECT :user", kinds=["telepathy"])
    store = SqlStore(sqlite(tmp_path / "x.db"), query="SELECT :user AS user_name, 1 AS one")
    with pytest.raises(StoreUnavailable, match="must give"):
        store.verify("ann", "x")
    with pytest.raises(ValueError, match="yours"):
        store.add(Entry(Account("ann"), ()))


class Percent:
    """A DB-API connection that shows how a statement reaches a driver of the percent style."""

    description = (("ONE",),)
    rowcount = 0

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def cursor(self) -> Percent:
        return self

    def execute(self, statement: str, values: object) -> None:
        self.seen.append((statement, values))

    def fetchall(self) -> list[tuple[int]]:
        return [(1,)]

    def commit(self) -> None: ...
    def close(self) -> None: ...


def test_parameters_are_rewritten_for_drivers_that_want_percent_signs() -> None:
    driver = Percent()
    database = Database("x", lambda: driver, (KeyError,), percent_style=True)
    assert database.rows("SELECT 'a%', x::text WHERE u = :user", {"user": "ann"}) == [{"one": 1}]
    assert driver.seen == [("SELECT 'a%%', x::text WHERE u = %(user)s", {"user": "ann"})]


def test_a_mysql_url_shows_no_password() -> None:
    pytest.importorskip("pymysql")
    store = SqlStore(mysql("mysql://mail:hunter2@127.0.0.1:1/mail"))
    with pytest.raises(StoreUnavailable) as caught:
        store.verify("ann", "x")
    assert "hunter2" not in str(caught.value) and "mail@127.0.0.1:1/mail" in str(caught.value)


def test_a_dead_store_in_a_chain_never_makes_a_password_wrong(tmp_path: Path) -> None:
    dead = SqlStore(sqlite(tmp_path / "no" / "x.db"), kinds=["password"])
    store = ChainStore([dead, MemoryStore([UserAccount("ann", "secret")])])
    assert store.verify("ann", "secret")
    with pytest.raises(StoreUnavailable):
        store.verify("ann", "wrong")
    assert store.kinds == {"password", "certificate"}
