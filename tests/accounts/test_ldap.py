"""Accounts in a directory, against a real slapd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from smtpd_core.accounts.ldap import LdapSettings, LdapStore
from smtpd_core.accounts.store import Account, StoreUnavailable
from tests.accounts.directory import free_port, slapd

LDIF = """\
dn: dc=example,dc=test
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=test
objectClass: organizationalUnit
ou: people

dn: uid=ann,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
uid: ann
cn: Ann Other
sn: Other
mail: ann@example.test
mail: @example.net
description: bob
userPassword: correct horse

dn: uid=two,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
uid: two
cn: Two
sn: Two
employeeType: same
userPassword: x

dn: uid=three,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
uid: three
cn: Three
sn: Three
employeeType: same
userPassword: x
"""
ANN = Account("ann", "Ann Other", "ann@example.test", ("@example.net",), ("bob",))

pytestmark = pytest.mark.debian("slapd")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("bonsai")
    with slapd(LDIF) as where:
        yield where


def searching(url: str, **more: str) -> LdapStore:
    return LdapStore(
        LdapSettings(url, base="dc=example,dc=test", **{"act_as": "description", **more}), case_insensitive=False
    )


def test_search_then_bind(url: str) -> None:
    store = searching(url)
    assert store.verify("ann", "correct horse") == ANN
    assert store.account("ann") == ANN and store.account("nobody") is None
    assert store.verify("ann", "wrong") is None and store.verify("nobody", "correct horse") is None


def test_bind_as_the_user_without_a_search(url: str) -> None:
    store = LdapStore(LdapSettings(url, bind_dn="uid={user},ou=people,dc=example,dc=test"))
    assert store.verify("ann", "correct horse") == Account("ann")
    assert store.verify("ann", "wrong") is None
    assert store.verify("ann,ou=people", "correct horse") is None


def test_an_empty_password_is_not_an_anonymous_bind(url: str) -> None:
    assert searching(url).verify("ann", "") is None
    assert LdapStore(LdapSettings(url, bind_dn="uid={user},ou=people,dc=example,dc=test")).verify("ann", "") is None


@pytest.mark.parametrize("user", ["*", "a*", "ann)(uid=*", "ann)(|(uid=*", "ann\\2a", "ann\0", "", "ANN"])
def test_what_a_user_types_never_becomes_part_of_the_filter(url: str, user: str) -> None:
    assert searching(url).verify(user, "correct horse") is None


def test_the_service_has_a_password_of_its_own(url: str) -> None:
    good = searching(url, service_dn="cn=root,dc=example,dc=test", service_password="rootsecret")
    assert good.verify("ann", "correct horse") == ANN
    bad = searching(url, service_dn="cn=root,dc=example,dc=test", service_password="hunter2")
    with pytest.raises(StoreUnavailable) as caught:
        bad.verify("ann", "correct horse")
    assert "hunter2" not in str(caught.value) and "hunter2" not in repr(bad.settings)


def test_two_entries_for_one_name_are_a_fault(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="2 entries"):
        searching(url, filter="(employeeType={user})").verify("same", "x")


def test_a_directory_that_is_down_makes_no_password_wrong() -> None:
    pytest.importorskip("bonsai")
    with pytest.raises(StoreUnavailable):
        searching(f"ldap://127.0.0.1:{free_port()}").verify("ann", "correct horse")


def test_starttls_checks_the_directorys_certificate(tmp_path: Path) -> None:
    pytest.importorskip("bonsai")
    authority, other = trustme.CA(), trustme.CA()
    for name, one in (("ca.pem", authority), ("other.pem", other)):
        one.cert_pem.write_to_path(str(tmp_path / name))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "slapd.pem"))

    def store(where: str, ca: str) -> LdapStore:
        settings = LdapSettings(where, base="dc=example,dc=test", start_tls=True, ca_file=str(tmp_path / ca))
        return LdapStore(settings)

    with slapd(LDIF, tmp_path / "slapd.pem") as where:
        assert store(where, "ca.pem").verify("ann", "correct horse")
        with pytest.raises(StoreUnavailable):
            store(where, "other.pem").verify("ann", "correct horse")


def test_a_service_connection_that_died_is_replaced() -> None:
    pytest.importorskip("bonsai")
    with slapd(LDIF) as where:
        store = searching(where)
        assert store.verify("ann", "correct horse") == ANN
    with pytest.raises(StoreUnavailable):
        store.verify("ann", "correct horse")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "not both"),
        ({"base": "dc=x", "bind_dn": "uid={user}"}, "not both"),
        ({"bind_dn": "uid=ann"}, "where {user} goes"),
        ({"base": "dc=x", "scope": "all"}, "scope"),
        ({"base": "dc=x", "start_tls": True}, "ldaps"),
    ],
)
def test_impossible_settings(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LdapSettings("ldaps://x", **settings)  # type: ignore[arg-type]
