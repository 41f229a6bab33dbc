"""One contract for every account store (smtpd_core/accounts/store.py); each store is filled with the same people."""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import sqlite3
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from smtpd_core.accounts import MemoryStore, UserAccount, hashing
from smtpd_core.accounts.callable import CallableStore
from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.entry import Entry, stored_forms
from smtpd_core.accounts.hashing import hash_password
from smtpd_core.accounts.ldap import LdapSettings, LdapStore
from smtpd_core.accounts.oauth import TokenRules, TokenStore
from smtpd_core.accounts.password_file import PasswordFileStore, create
from smtpd_core.accounts.sql import SqlStore, mysql, postgres, sqlite
from smtpd_core.accounts.store import Account, AccountStore
from smtpd_core.wire.sasl.verifier import ScramVerifier, make_verifier
from tests.accounts.directory import is_here, mariadb, postgres_programs, slapd
from tests.accounts.directory import postgres as postgres_server

ANN = UserAccount("ann", "correct horse", "Ann Other", "ann@example.test", ("@example.net",), ("bob",))
BOB = UserAccount("bob@example.test", "p\xe4ssw\xf6rd, with = and :", "Bob")
PEOPLE = (ANN, BOB)
# Servers that a store under test needs, closed when it is done with.
OPEN: list[contextlib.ExitStack] = []


def memory(folder: Path) -> AccountStore:
    return MemoryStore(PEOPLE)


def toml_file(folder: Path) -> AccountStore:
    create(folder / "users.toml")
    store = PasswordFileStore(folder / "users.toml")
    for person in PEOPLE:
        kinds = ("password", "scram-sha-1", "scram-sha-256", "nt-hash")
        store.add(Entry(person.without_password(), stored_forms(person.password, kinds)))
    return PasswordFileStore(folder / "users.toml")


def lines_in_clear(folder: Path) -> AccountStore:
    create(folder / "passwd")
    store = PasswordFileStore(folder / "passwd")
    for person in PEOPLE:
        store.add(Entry(person.without_password(), stored_forms(person.password, ["cleartext"])))
    return store


def htpasswd(folder: Path) -> AccountStore:
    (folder / "htpasswd").write_text(
        f"ann:{hash_password(ANN.password)}:::Ann Other:::"
        "email=ann@example.test addresses=@example.net may_act_as=bob\n"
        f"# a comment\n\nbob@example.test:{hash_password(BOB.password)}\n"
    )
    return PasswordFileStore(folder / "htpasswd")


def filled(store: SqlStore, kinds: Iterable[str]) -> SqlStore:
    store.init()
    for person in PEOPLE:
        store.add(Entry(person.without_password(), stored_forms(person.password, kinds)))
    return store


def sqlite_table(folder: Path) -> AccountStore:
    return filled(SqlStore(sqlite(folder / "users.db")), ("password", "scram-sha-256"))


def sqlite_query(folder: Path) -> AccountStore:
    """A table of another program, read through the operator's query."""
    path = folder / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as shop:
        shop.execute("CREATE TABLE customer (login, secret, label, mail, box, role, active)")
        rows = [("ann", ANN.password, "Ann Other", "ann@example.test", "@example.net", "bob", 1)]
        rows += [(BOB.user_name, BOB.password, "", None, None, None, 1), ("eve", "secret", "", "", "", "", 0)]
        shop.executemany("INSERT INTO customer VALUES (?, '{PLAIN}' || ?, ?, ?, ?, ?, ?)", rows)
        shop.commit()
    return SqlStore(
        sqlite(path),
        query="SELECT login AS user_name, secret AS password, label AS display_name, mail AS email, box AS addresses,"
        " role AS may_act_as, active FROM customer WHERE login = :user",
        kinds=("password", "cleartext", "nt-hash", "scram-sha-1", "scram-sha-256"),
    )


def postgres_table(folder: Path) -> AccountStore:
    pytest.importorskip("psycopg")
    if postgres_programs() is None and os.environ.get("CI") != "true":
        pytest.skip("needs postgresql from Debian's packages")
    servers = contextlib.ExitStack()
    OPEN.append(servers)
    url = servers.enter_context(postgres_server())
    return filled(SqlStore(postgres(url)), ("password", "scram-sha-256", "scram-sha-1"))


def mysql_table(folder: Path) -> AccountStore:
    pytest.importorskip("pymysql")
    if not is_here("mariadbd") and os.environ.get("CI") != "true":
        pytest.skip("needs mariadb-server from Debian's packages")
    servers = contextlib.ExitStack()
    OPEN.append(servers)
    return filled(SqlStore(mysql(servers.enter_context(mariadb()))), ("password", "scram-sha-256", "nt-hash"))


def ldap_directory(folder: Path) -> AccountStore:
    pytest.importorskip("bonsai")
    if not is_here("slapd") and os.environ.get("CI") != "true":
        pytest.skip("needs slapd from Debian's packages")
    people = "dn: dc=example,dc=test\nobjectClass: domain\ndc: example\n"
    for person in PEOPLE:
        password = base64.b64encode(person.password.encode()).decode()
        people += f"\ndn: uid={person.user_name},dc=example,dc=test\nobjectClass: inetOrgPerson\nsn: x\n"
        people += f"uid: {person.user_name}\ncn: {person.display_name}\nuserPassword:: {password}\n"
        people += "".join(f"mail: {one}\n" for one in (person.email, *person.addresses) if one)
        people += "".join(f"description: {one}\n" for one in person.may_act_as)
    servers = contextlib.ExitStack()
    OPEN.append(servers)
    url = servers.enter_context(slapd(people))
    return LdapStore(LdapSettings(url, base="dc=example,dc=test", act_as="description"), case_insensitive=False)


def callable_store(folder: Path) -> AccountStore:
    people = MemoryStore(PEOPLE)
    return CallableStore(people.verify)


GOOD_TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg"


class OneToken:
    """An authority that knows one token."""

    def claims(self, token: str) -> dict[str, object] | None:
        return {"sub": "ann", "scope": "smtp other", "aud": ["mail"]} if token == GOOD_TOKEN else None


def tokens(folder: Path) -> AccountStore:
    return TokenStore(OneToken(), TokenRules(scope="smtp", audience="mail"), MemoryStore(PEOPLE).account)


def passwords_and_tokens(folder: Path) -> AccountStore:
    return ChainStore([lines_in_clear(folder), tokens(folder)])


def chain(folder: Path) -> AccountStore:
    return ChainStore([MemoryStore([ANN]), sqlite_table(folder), CallableStore(lambda user, password: None)])


STORES: tuple[Callable[[Path], AccountStore], ...] = (
    memory,
    toml_file,
    lines_in_clear,
    htpasswd,
    sqlite_table,
    sqlite_query,
    postgres_table,
    mysql_table,
    ldap_directory,
    callable_store,
    chain,
    tokens,
    passwords_and_tokens,
)


@pytest.fixture(scope="module")
def cheap_hashes() -> Iterator[None]:
    """The contract is about answers; what a hash costs is tested where hashes are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "ARGON2_MEMORY_KIB", 64)
        patch.setattr(hashing, "SCRYPT_LOG_N", 6)
        yield


@pytest.fixture(scope="module", params=STORES, ids=lambda make: make.__name__)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cheap_hashes: None) -> AccountStore:
    yield request.param(tmp_path_factory.mktemp("store"))
    while OPEN:
        OPEN.pop().close()


def needs(store: AccountStore, kind: str) -> None:
    if kind not in store.kinds:
        pytest.skip(f"this store has no {kind}")


def test_it_says_what_it_can_answer(store: AccountStore) -> None:
    known = {"password", "cleartext", "scram-sha-1", "scram-sha-256", "nt-hash", "token", "certificate"}
    assert isinstance(store.kinds, frozenset) and store.kinds and store.kinds <= known


def test_the_right_password_gives_the_account(store: AccountStore) -> None:
    needs(store, "password")
    for person in PEOPLE:
        found = store.verify(person.user_name, person.password)
        assert found is not None and found.user_name == person.user_name


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("ann", "correct horse "),
        ("ann", "Correct horse"),
        ("ann", "x" * 100_000),
        ("ann", "correct horse\0"),
        ("ann", "\ud800"),
        ("bob@example.test", "correct horse"),
        ("nobody", "correct horse"),
        ("", "correct horse"),
        ("", ""),
        ("ANN", "correct horse"),
        ("ann\0", "correct horse"),
        ("a*", "correct horse"),
        ("ann)(uid=*", "correct horse"),
        ("ann' OR '1'='1", "correct horse"),
        ("n" * 100_000, "correct horse"),
        ("\udcff", "x"),
        ("ann:", "x"),
        ("../ann", "x"),
    ],
)
def test_anything_else_gives_nobody(store: AccountStore, user: str, password: str) -> None:
    needs(store, "password")
    assert store.verify(user, password) is None


def test_names_and_passwords_are_prepared_before_they_are_compared(store: AccountStore) -> None:
    needs(store, "password")
    assert store.verify("bob@example.test", "pa\u0308ssw\xf6rd, with = and :") is not None
    assert store.verify("\uff41nn", "correct horse") is not None


def test_the_account_behind_a_proven_identity(store: AccountStore) -> None:
    if not store.kinds - {"password", "token"}:
        pytest.skip("this store proves all identities itself")
    found = store.account("ann")
    assert isinstance(found, Account) and found.user_name == "ann"
    assert store.account("nobody") is None and store.account("\ud800") is None


def test_the_account_carries_its_addresses_and_rights(store: AccountStore) -> None:
    needs(store, "password")
    assert store.verify(ANN.user_name, ANN.password) == Account(
        "ann", "Ann Other", "ann@example.test", ("@example.net",), ("bob",)
    )


def test_the_password_in_clear_where_it_is_kept_so(store: AccountStore) -> None:
    needs(store, "cleartext")
    assert store.secret("ann", "cleartext") == "correct horse"
    assert store.secret("nobody", "cleartext") is None


@pytest.mark.parametrize("kind", ["scram-sha-1", "scram-sha-256"])
def test_the_verifier_of_scram_is_the_same_at_each_look(store: AccountStore, kind: str) -> None:
    needs(store, kind)
    for person in PEOPLE:
        verifier = store.secret(person.user_name, kind)
        assert isinstance(verifier, ScramVerifier) and verifier == store.secret(person.user_name, kind)
        assert verifier == make_verifier(person.password, kind, salt=verifier.salt, iterations=verifier.iterations)
    assert not isinstance(store.secret("nobody", kind), ScramVerifier)


@pytest.mark.parametrize("kind", ["scram-sha-1", "scram-sha-256"])
def test_what_a_client_is_shown_of_a_verifier_tells_nothing_of_the_password(store: AccountStore, kind: str) -> None:
    """The salt goes to whoever names the user: no guess of the password may be held against it."""
    needs(store, kind)
    for person in PEOPLE:
        verifier = store.secret(person.user_name, kind)
        assert isinstance(verifier, ScramVerifier)
        for hash_ in ("sha1", "sha256", "sha512", "md5"):
            for said in (f"{kind} {person.user_name}", person.user_name, kind, ""):
                made = hmac.digest(person.password.encode(), said.encode(), hash_)
                assert not made.startswith(verifier.salt)


def test_the_nt_hash(store: AccountStore) -> None:
    needs(store, "nt-hash")
    found = store.secret("ann", "nt-hash")
    assert isinstance(found, bytes) and found.hex() == "cfc43211ba8dc470832267827cac1407"
    assert store.secret("nobody", "nt-hash") is None


def test_no_secret_of_a_kind_that_it_does_not_have(store: AccountStore) -> None:
    for kind in {"cleartext", "scram-sha-1", "scram-sha-256", "nt-hash"} - store.kinds:
        assert not isinstance(store.secret("ann", kind), (str, bytes, ScramVerifier))


# What takes long in a look: everything else is some microseconds, and depends on the spelling of a name or password.
HEAVY = ("pbkdf2_hmac", "scrypt", "verify_secret", "md4")


def work(ask: Callable[[], object]) -> list[str]:
    """The heavy functions that are called meanwhile: what a look costs, on any machine at any load."""
    called = []

    def note(frame: types.FrameType, event: str, argument: object) -> None:
        name = frame.f_code.co_name if event == "call" else getattr(argument, "__name__", "")
        if event in ("call", "c_call") and name in HEAVY:
            called.append(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        ask()
    finally:
        sys.setprofile(before)
    return called


@pytest.mark.parametrize("kind", ["password", "scram-sha-1", "scram-sha-256", "nt-hash"])
def test_an_unknown_name_makes_as_much_work_as_a_known_one(store: AccountStore, kind: str) -> None:
    """Each name for the first time and again; the time of an answer must not tell who is known."""
    needs(store, kind)
    if isinstance(store, (LdapStore, CallableStore, ChainStore)):
        pytest.skip("the directory, the function or the single stores see to it")

    def look(user: str) -> Callable[[], object]:
        if kind == "password":
            return lambda: store.verify(user, "wrong")
        return lambda: store.secret(user, kind)

    look("ann")()  # where a store can't read all its accounts, the first known one shows what a look costs
    for user in ("eve", "eve", "ann", "bob@example.test", "eve@example.test"):
        assert work(look(user)) == work(look("ann")), user


def test_a_token_is_no_password(store: AccountStore) -> None:
    assert store.verify_token("ann", "correct horse") is None
    assert store.verify("ann", GOOD_TOKEN) is None


def test_the_right_token_gives_the_account_of_its_user_and_of_no_other(store: AccountStore) -> None:
    needs(store, "token")
    expected = ANN.without_password()
    assert store.verify_token("ann", GOOD_TOKEN) == store.verify_token("", GOOD_TOKEN) == expected
    for user, token in (
        ("bob@example.test", GOOD_TOKEN),
        ("ann", GOOD_TOKEN[:-1]),
        ("ann", ""),
        ("ann", "x" * 100_000),
    ):
        assert store.verify_token(user, token) is None
