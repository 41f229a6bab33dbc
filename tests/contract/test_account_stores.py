"""One contract for every account store (smtpd_core/accounts/store.py); each store is filled with the same people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from smtpd_core.accounts import MemoryStore, UserAccount
from smtpd_core.accounts.store import Account, AccountStore
from smtpd_core.wire.sasl.verifier import ScramVerifier, make_verifier

ANN = UserAccount("ann", "correct horse", "Ann Other", "ann@example.test", ("@example.net",), ("bob",))
BOB = UserAccount("bob@example.test", "p\xe4ssw\xf6rd, with = and :", "Bob")
PEOPLE = (ANN, BOB)


def memory(folder: Path) -> AccountStore:
    return MemoryStore(PEOPLE)


STORES: tuple[Callable[[Path], AccountStore], ...] = (memory,)


@pytest.fixture(params=STORES, ids=lambda make: make.__name__)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AccountStore:
    made: AccountStore = request.param(tmp_path)
    return made


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
    assert store.secret("nobody", kind) is None


def test_the_nt_hash(store: AccountStore) -> None:
    needs(store, "nt-hash")
    found = store.secret("ann", "nt-hash")
    assert isinstance(found, bytes) and found.hex() == "cfc43211ba8dc470832267827cac1407"
    assert store.secret("nobody", "nt-hash") is None


def test_no_secret_of_a_kind_that_it_does_not_have(store: AccountStore) -> None:
    for kind in {"cleartext", "scram-sha-1", "scram-sha-256", "nt-hash"} - store.kinds:
        assert store.secret("ann", kind) is None


def test_a_token_is_no_password(store: AccountStore) -> None:
    assert store.verify_token("ann", "correct horse") is None
