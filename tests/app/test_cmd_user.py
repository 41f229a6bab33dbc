"""`user`, as its callers see it: a command with the password on standard input, or asked for on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from smtpd_core.accounts import hashing
from smtpd_core.accounts.opening import open_store
from smtpd_core.app.cli import main
from smtpd_core.app.settings import Accounts, Settings
from tests.accounts.directory import is_here, mariadb, postgres, postgres_programs


@dataclass
class Told:
    code: int
    out: str
    err: str


User = Callable[..., Told]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> User:
    """The command in this process, in a folder of its own, with `password` as standard input."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hashing, "ARGON2_MEMORY_KIB", 64)

    def call(*arguments: str, password: str = "") -> Told:
        monkeypatch.setattr(sys, "stdin", io.StringIO(password and password + "\n"))
        before = os.umask(0o022)
        try:
            code = main(["user", *arguments])
        finally:
            os.umask(before)
        return Told(code, *capsys.readouterr())

    return call


@pytest.fixture(params=["file:users.toml", "file:passwd", "sqlite:users.db", "postgresql", "mysql"])
def writable(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of each kind of store that the command can change."""
    if request.param not in ("postgresql", "mysql"):
        yield request.param
        return
    pytest.importorskip("psycopg" if request.param == "postgresql" else "pymysql")
    there = postgres_programs() is not None if request.param == "postgresql" else is_here("mariadbd")
    if not there and os.environ.get("CI") != "true":
        pytest.skip("needs the database from Debian's packages")
    with postgres() if request.param == "postgresql" else mariadb() as url:
        yield url.replace(":unused@", "@")  # a password in --store is warned of


def test_the_life_of_an_account(writable: str, user: User, tmp_path: Path) -> None:
    at = ("--store", writable)
    made = user("add", *at, "ann", "--email", "ann@x.test", "--may-send-as", "@y.test", password="one")
    assert (made.code, made.err) == (0, "")
    assert user("check", *at, "ann", password="one").code == 0
    assert user("check", *at, "ann", password="two").code == 1
    again = user("add", *at, "ann", password="three")
    assert again.code == 2 and "already" in again.err
    assert user("passwd", *at, "ann", password="two").code == 0
    assert user("check", *at, "ann", password="two").code == 0
    listed = json.loads(user("list", *at, "--json").out)
    assert [one["user_name"] for one in listed] == ["ann"] and listed[0]["addresses"] == ["@y.test"]
    assert user("list", *at).out == "ann  ann@x.test, @y.test\n"
    assert "PLAIN" in user("check", *at).out
    assert user("del", *at, "ann").code == 0
    assert user("del", *at, "ann").code == 2
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} is open to others"


def test_a_new_account_gets_what_the_others_have(user: User) -> None:
    at = ("--store", "file:users.toml")
    kinds = ("--kind", "password", "--kind", "scram-sha-256")
    assert user("add", *at, *kinds, "ann", password="one").code == 0
    assert user("add", *at, "bob", password="two").code == 0
    assert open_store("file:users.toml").kinds == {"password", "scram-sha-256", "certificate"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "--store", "file:users.toml"), "which NAME"),
        (("add", "--store", "file:users.toml", "ann"), "the password can't be used: it is empty"),
        (("passwd", "--store", "file:users.toml", "ann"), "No such file"),
        (("list", "--store", "sqlite:none.db"), "no such database"),
        (("add", "--store", "pam:", "ann"), "where they are kept"),
        (("add", "--store", "file:a.toml | file:b.toml", "ann"), "store by store"),
        (("list", "--store", "carrier-pigeon:"), "begins with one of"),
        (("list", "--config", "nothing.toml"), "nothing.toml"),
    ],
)
def test_mistakes_are_told_with_what_would_be_right(
    arguments: tuple[str, ...], why: str, user: User, tmp_path: Path
) -> None:
    (tmp_path / "nothing.toml").write_text("")
    told = user(*arguments)
    assert told.code in (1, 2) and why in told.err and "Traceback" not in told.err


@pytest.mark.parametrize("wrong", [("--email", "ann"), ("--email", "@x.test"), ("--may-send-as", "y.test")])
def test_what_is_no_address_is_refused_since_nobody_could_send_as_it(
    user: User, tmp_path: Path, wrong: tuple[str, str]
) -> None:
    told = user("add", "--store", "file:users.toml", "ann", *wrong, password="one")
    assert told.code == 2 and f"{wrong[0]} {wrong[1]!r}: an address" in told.err
    assert not (tmp_path / "users.toml").exists()


def test_the_password_of_a_database_need_not_be_seen_in_the_list_of_processes(user: User, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    (tmp_path / "pw").write_text("hunter2\n")
    told = user("list", "--store", "postgresql://smtp:hunter2@127.0.0.1:1/mail")
    assert told.code == 1 and "password_file=PATH" in told.err and "hunter2" not in told.err + told.out
    told = user("list", "--store", "postgresql://smtp@127.0.0.1:1/mail?password_file=pw")
    assert told.code == 1 and "password_file" not in told.err and "hunter2" not in told.err + told.out
    told = user("list", "--store", "postgresql://smtp:hun/ter2@127.0.0.1:1/mail")
    assert told.code == 2 and "%2F for /" in told.err and "ter2" not in told.err


def test_a_store_in_the_settings_is_never_quoted(user: User, tmp_path: Path) -> None:
    path = tmp_path / "smtpd.toml"
    for value in ('["postgresql://smtp:hunter2@h/d"]', '{ url = "postgresql://smtp:hunter2@h/d" }'):
        path.write_text(f"[accounts]\nstore = {value}\n")
        told = user("list", "--config", str(path))
        assert told.code == 2 and "accounts.store" in told.err and "hunter2" not in told.err
    settings = Settings(accounts=Accounts(store="postgresql://smtp:hunter2@h/d"))
    assert "hunter2" not in repr(settings)


def test_a_terminal_is_asked_twice_and_shows_nothing(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-m", "smtpd_core", "user", "add", "--store", "file:u.toml", "ann"])
    seen = b""
    for question in (b"Password of ann: ", b"Again: "):
        while question not in seen:
            seen += os.read(terminal, 1024)
        os.write(terminal, b"hunter2\n")
    try:
        while more := os.read(terminal, 1024):
            seen += more
    except OSError:
        pass  # the other end of a pseudo-terminal is gone
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"hunter2" not in seen and open_store(f"file:{tmp_path}/u.toml").verify("ann", "hunter2")
