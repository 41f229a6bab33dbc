"""Store URLs."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from smtpd_core.accounts import extras
from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.opening import Choices, open_store, shows_password
from smtpd_core.accounts.password_file import PasswordFileStore
from smtpd_core.accounts.sql import SqlStore, sqlite
from smtpd_core.accounts.store import Account, StoreUnavailable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.toml").write_text("[users.ann]\npassword = '{PLAIN}x'\n")
    (tmp_path / "htpasswd").write_text("bob:{PLAIN}y\n")
    (tmp_path / "secret").write_text("hunter2\n")
    store = SqlStore(sqlite("users.db"))
    store.init()
    store.add(Entry(Account("carla"), ("{PLAIN}z",)))
    return tmp_path


def test_files_databases_and_chains() -> None:
    assert open_store("file:users.toml").verify("ann", "x")
    assert open_store("file:htpasswd?renew=yes").verify("bob", "y")
    assert open_store("sqlite:users.db").verify("carla", "z")
    chain = open_store("file:users.toml | file:htpasswd|sqlite:users.db")
    assert isinstance(chain, ChainStore)
    assert chain.verify("ann", "x") and chain.verify("bob", "y") and chain.verify("carla", "z")
    assert open_store("file:users.toml", Choices(case_insensitive=True)).verify("ANN", "x")
    query = Choices(
        query="SELECT 'dora' AS user_name, '{PLAIN}d' AS password WHERE :user = 'dora'", kinds=("cleartext",)
    )
    assert open_store("sqlite:users.db", query).verify("dora", "d")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "begins with one of file:"),
        ("users.toml", "begins with one of file:"),
        ("carrier-pigeon:x", "begins with one of file:"),
        ("file:", "followed by a path"),
        ("sqlite:", "followed by a path"),
        ("file:users.toml?colour=red", "has the options renew"),
        ("file:users.toml?renew=maybe", "yes or no"),
        ("file:users.toml | ", "begins with one of file:"),
        ("pam:../x", "PAM service"),
        ("ldap://host", "not both"),
        ("ldap://cn=me:hunter2@host/dc=x", "x-password-file"),
        ("ldap://host/dc=x????x-colour=red", "has the extensions"),
        ("jwks:http://id.example.test/keys?audience=smtp", "https"),
        ("jwks:https://id.example.test/keys", "audience=NAME"),
        ("introspect:https://id:hunter2@id.example.test/x", "client_secret_file"),
    ],
)
def test_what_can_not_be_a_store_is_refused_with_the_reason(url: str, why: str) -> None:
    needed = {"pam": "pamela", "ldap": "bonsai", "jwks": "jwt", "introspect": "urllib3"}.get(url.partition(":")[0])
    if needed:
        pytest.importorskip(needed)
    with pytest.raises(ValueError, match=why) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:nowhere.toml", "sqlite:nowhere.db"])
def test_what_is_not_there_is_an_error_at_once(url: str) -> None:
    with pytest.raises(OSError, match="nowhere"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("postgresql://h/d", "postgres"),
        ("mysql://h/d", "mysql"),
        ("ldap://h/dc=x", "ldap"),
        ("pam:", "pam"),
        ("jwks:https://h/k?audience=smtp", "oauth"),
        ("introspect:https://h/i", "oauth"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: None)
    with pytest.raises(ValueError, match=rf"pip install 'smtpd_core\[{extra}\]'"):
        open_store(url)


def test_an_ldap_url_says_where_and_how_and_as_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bonsai")
    from smtpd_core.accounts.ldap import LdapSettings, LdapStore

    store = open_store(
        "ldap://127.0.0.1:1/ou=people,dc=x??one?(mail={user})?bindname=cn=mail%2cdc=x,x-password-file=secret,x-name=mail"
    )
    assert isinstance(store, LdapStore)
    assert store.settings == LdapSettings(
        "ldap://127.0.0.1:1", base="ou=people,dc=x", filter="(mail={user})", scope="one",
        service_dn="cn=mail,dc=x", service_password="hunter2", name="mail",
    )  # fmt: skip
    bound = open_store("ldaps://h/uid={user},dc=x")
    assert isinstance(bound, LdapStore) and bound.settings.bind_dn == "uid={user},dc=x"


def test_a_store_opened_twice_is_two_stores() -> None:
    one, other = open_store("file:users.toml"), open_store("file:users.toml")
    assert isinstance(one, PasswordFileStore) and one is not other


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    "rest",
    [
        "smtp:hun/ter2@127.0.0.1/mail",
        "smtp:hun@ter2@127.0.0.1/mail",
        "smtp:hun?ter2@127.0.0.1/mail",
        "smtp:hun#ter2@127.0.0.1/mail",
        "smtp:hun:ter2/mail",
        "smtp:hunter2/mail",
        "smtp:hun%ter2@127.0.0.1/mail",
        "smtp:hun%00ter2@127.0.0.1/mail",
        "smtp:hunter2@127.0.0.1:port/mail",
    ],
)
def test_a_password_that_could_be_taken_for_another_part_of_its_url_is_refused_unquoted(scheme: str, rest: str) -> None:
    """Drivers take it apart in their own way and tell the piece that they did not understand."""
    pytest.importorskip("psycopg" if scheme == "postgresql" else "pymysql")
    with pytest.raises(ValueError, match="%40 for @") as refused:
        open_store(f"{scheme}://{rest}")
    assert "hun" not in str(refused.value) and "ter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://smtp@127.0.0.1:1/mail?connect_timeout=1&password_file={}",
        "mysql://smtp@127.0.0.1:1/mail?password_file={}",
        "postgresql://smtp:hunter2@127.0.0.1:1/mail",
        "mysql://smtp:hunter2@127.0.0.1:1/mail",
        "postgresql://127.0.0.1:1/mail?user=smtp&password=hunter2",
    ],
)
def test_no_error_of_a_database_shows_our_password(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg" if url.startswith("postgresql") else "pymysql")
    (tmp_path / "pw").write_text("hunter2\n")
    store = open_store(url.format(tmp_path / "pw"))
    with pytest.raises(StoreUnavailable) as told:
        store.account("ann")
    assert "127.0.0.1:1/mail" in str(told.value)
    assert "hunter2" not in "".join(traceback.format_exception(told.value)) + caplog.text


@pytest.mark.parametrize(
    ("url", "shows"),
    [
        ("file:users.toml", False),
        ("postgresql://smtp@db.test/mail", False),
        ("postgresql://smtp@db.test/mail?password_file=x", False),
        ("postgresql://smtp:pw@db.test/mail", True),
        ("mysql://smtp:p/w@db.test/mail", False),  # which is refused
        ("postgresql://db.test/mail?user=smtp&password=pw", True),
        ("file:users.toml | mysql://smtp:pw@db.test/mail", True),
        ("ldap://db.test/uid={user},ou=people", False),
    ],
)
def test_a_url_that_shows_its_password(url: str, shows: bool) -> None:
    assert shows_password(url) is shows
