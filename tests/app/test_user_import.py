"""`user import`: accounts from another store, with their hashes as they are."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from smtpd_core.accounts import Account, foreign_hashes, hashing
from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.opening import open_editable
from smtpd_core.app import cmd_user_import
from smtpd_core.app.cli import main
from tests.app.test_terminal import seen

SECRET = "{SSHA}" + "0awXMLd7Qz73sOpmbbfrTN6oO1NzYWx0"  # of "swordfish", with a salt
PLAIN = "{PLAIN}correct horse"


def bring(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["user", "import", *words]) == code
    return "".join(capsys.readouterr())


def right(url: str, name: str, password: str) -> bool:
    return open_editable(url).verify(name, password) is not None


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hashing, "ARGON2_MEMORY_KIB", 64)


FORMS = {
    "passwd": f"ann:{PLAIN}::::::email=ann@example.test addresses=desk@example.test,@far.test\n"
    f"bob:{SECRET}:::Bob B::\n",
    "users.toml": f"""
# first
[users.ann]
password = "{PLAIN}"
email = "ann@example.test"
addresses = ["desk@example.test", "@far.test"]
[users.bob]
password = "{SECRET}"
display_name = "Bob B"
""",
}
ANN = Account("ann", "", "ann@example.test", ("desk@example.test", "@far.test"))
BOB = Account("bob", "Bob B")


@pytest.mark.parametrize("form", [*FORMS, "users.db"])
@pytest.mark.parametrize("target", ["file:new.toml", "file:new", "sqlite:new.db"])
def test_accounts_come_from_each_form_into_each_with_their_hashes(
    form: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("passwd").write_text(FORMS["passwd"])
    if form == "users.toml":
        Path(form).write_text(FORMS[form])
    if form == "users.db":
        bring(capsys, "--from", "passwd", "--store", "sqlite:users.db")
    assert bring(capsys, "--from", form, "--store", target) == "2 accounts imported, 0 were there already\n"
    store = open_editable(target)
    assert store.find("ann") == Entry(ANN, (PLAIN,)) and store.find("bob") == Entry(BOB, (SECRET,))
    assert right(target, "ann", "correct horse") and right(target, "bob", "swordfish")
    assert bring(capsys, "--from", form, "--store", target) == "0 accounts imported, 2 were there already\n"


@pytest.mark.parametrize("target", ["file:new.toml", "file:new", "sqlite:new.db"])
def test_what_is_there_stays_unless_it_is_to_be_replaced(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("first").write_text("ann:{PLAIN}old\neve:{PLAIN}e\n")
    Path("second").write_text(f"ann:{PLAIN}\nbob:{SECRET}\n")
    bring(capsys, "--from", "first", "--store", target)
    told = bring(capsys, "--from", "second", "--store", target, "--json")
    assert json.loads(told) == {
        "imported": 1, "replaced": 0, "known": 1, "refused": {},
        "no longer served": ["cleartext", "nt-hash", "scram-sha-1", "scram-sha-256"],
    }  # fmt: skip
    assert right(target, "ann", "old")
    assert "0 accounts imported, 2 replaced, 0 were" in bring(
        capsys, "--from", "second", "--store", target, "--replace"
    )
    assert right(target, "ann", "correct horse") and right(target, "eve", "e")


def test_an_account_that_nobody_could_log_in_to_is_named_and_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_hashes, "bcrypt", None)
    Path("passwd").write_text(f"ann:{{NOVEL}}abc\nbob:$2y$05${'a' * 53}\nshut:!\neve:{PLAIN}\n")
    told = bring(capsys, "--from", "passwd", "--store", "file:new.toml", code=1)
    assert "ann: not taken: password scheme 'NOVEL' is not known\n" in told
    assert "bob: not taken: bcrypt hashes need bcrypt: pip install" in told
    assert "shut: not taken: it is shut" in told
    assert told.endswith("1 accounts imported, 0 were there already, 3 not taken\n")
    assert [one.user_name for one in open_editable("file:new.toml").users()] == ["eve"]


def test_what_the_other_form_has_no_room_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("users.toml").write_text(
        f'[users.ann]\npassword = ["{PLAIN}", "{SECRET}"]\n[users."a:b"]\npassword = "{PLAIN}"\n'
        f'[users.bob]\npassword = "{SECRET}"\n'
    )
    told = bring(capsys, "--from", "users.toml", "--store", "file:new", code=1)
    assert "ann: not taken: a line has room for one secret" in told and "a:b: not taken: a user name or hash" in told
    assert "1 accounts imported" in told and Path("new").read_text() == f"bob:{SECRET}\n"


def test_one_account_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("passwd").write_text(FORMS["passwd"])
    assert "1 accounts imported" in bring(capsys, "bob", "--from", "passwd", "--store", "file:new.toml")
    assert "there is no account 'joe' in the store that --from names" in bring(
        capsys, "joe", "--from", "passwd", "--store", "file:new.toml", code=2
    )
    assert "from where?" in bring(capsys, "--store", "file:new.toml", code=2)
    assert "changed where they are kept" in bring(capsys, "--from", "pam:", "--store", "file:new.toml", code=2)


def test_a_file_keeps_what_else_it_holds_and_takes_thousands_in_a_few_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[object] = []
    monkeypatch.setattr(cmd_user_import, "AT_ONCE", 1000)
    Path("passwd").write_text("".join(f"user{n}:{SECRET}\n" for n in range(2500)))
    Path("users.toml").write_text("# ours\n\n[users.ann]\npassword = 'x'  # hers")
    before = Path("users.toml").read_text()
    monkeypatch.setattr(
        "smtpd_core.accounts.password_file.store._replace",
        _counted("smtpd_core.accounts.password_file.store", "_replace", changes),
    )
    assert "2500 accounts imported" in bring(capsys, "--from", "passwd", "--store", "file:users.toml")
    assert len(changes) == 3
    assert Path("users.toml").read_text().startswith(before)
    assert len(open_editable("file:users.toml").users()) == 2501


def _counted(module: str, name: str, calls: list[object]) -> object:
    real = getattr(sys.modules[module], name)

    def counting(*words: object) -> object:
        calls.append(words)
        return real(*words)

    return counting


def test_hashes_that_look_alike_are_tried_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes tens of milliseconds."""
    Path("passwd").write_text("".join(f"user{n}:{hashing.hash_password(str(n))}\n" for n in range(5)))
    tried: list[object] = []
    monkeypatch.setattr(hashing, "why_unusable", _counted("smtpd_core.accounts.hashing", "why_unusable", tried))
    assert "5 accounts imported" in bring(capsys, "--from", "passwd", "--store", "file:new.toml")
    assert len(tried) == 1 and right("file:new.toml", "user3", "3")


def test_many_accounts_have_a_bar_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    Path("passwd").write_text("".join(f"user{n}:{SECRET}\n" for n in range(12)))
    program = f"""
import os, time
os.chdir({str(tmp_path)!r})
from smtpd_core.accounts.password_file import PasswordFileStore
find = PasswordFileStore.find
PasswordFileStore.find = lambda self, user: (time.sleep(0.08), find(self, user))[1]
from smtpd_core.app.cli import main
raise SystemExit(main(["user", "import", "--from", "passwd", "--store", "file:new.toml"]))"""
    shown = seen([sys.executable, "-c", program])
    assert "user import" in shown and "/12" in shown and "12 accounts imported" in shown


def test_a_database_of_another_program_can_not_list_its_accounts(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect("other.db")) as base, base:
        base.execute("CREATE TABLE staff (name TEXT, secret TEXT)")
    assert "smtpd_users" in bring(capsys, "--from", "other.db", "--store", "file:new.toml", code=1)


def test_a_source_that_cant_be_read_makes_no_target(capsys: pytest.CaptureFixture[str]) -> None:
    Path("twice").write_text(f"ann:{PLAIN}\nann:{PLAIN}\n")
    assert "there twice" in bring(capsys, "--from", "twice", "--store", "file:new.toml", code=2)
    assert "No such file" in bring(capsys, "--from", "missing", "--store", "sqlite:new.db", code=1)
    assert sorted(os.listdir()) == ["twice"]


def test_the_password_of_a_source_is_warned_of_and_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was not there was told of with the URL as it was given."""
    Path("passwd").write_text(FORMS["passwd"])
    source = open_editable("file:passwd")
    monkeypatch.setattr(cmd_user_import, "open_editable", lambda url: source)
    told = bring(
        capsys, "joe", "--from", "postgresql://u:s3cret@db.example.test/mail", "--store", "file:new.toml", code=2
    )
    assert "there is no account 'joe'" in told and "sees the password in --from" in told
    assert "s3cret" not in told


def test_a_name_that_nobody_can_have_is_named_and_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("passwd").write_text(FORMS["passwd"])
    bring(capsys, "--from", "passwd", "--store", "sqlite:old.db")
    with closing(sqlite3.connect("old.db")) as base, base:
        base.execute("UPDATE smtpd_users SET user_name = 'bob' || char(10) || 'b' WHERE name = 'bob'")
    told = bring(capsys, "--from", "old.db", "--store", "file:new.toml", code=1)
    assert "not taken: it was removed meanwhile, or nobody can have this name" in told
    assert "1 accounts imported, 0 were there already, 1 not taken" in told


@pytest.mark.parametrize("target", ["file:new.toml", "sqlite:new.db"])
def test_what_replaced_accounts_lack_is_told_of_each_store(
    target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database was not looked at again so soon, and the mechanisms that went were not told."""
    monkeypatch.setattr("smtpd_core.accounts.sql.store.LOOK_COSTS_AT_MOST", 1e9)
    Path("first").write_text(f"bob:{PLAIN}\n")
    Path("second").write_text(f"bob:{SECRET}\n")
    bring(capsys, "--from", "first", "--store", target)
    told = bring(capsys, "--from", "second", "--store", target, "--replace")
    assert "not all accounts have cleartext, nt-hash, scram-sha-1, scram-sha-256 any more" in told


def test_a_file_does_not_grow_beyond_what_can_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written, and the server refused to start on it."""
    Path("passwd").write_text("".join(f"user{n:04}:{SECRET}\n" for n in range(1100)))
    Path("new").write_text(f"ann:{PLAIN}\n")
    monkeypatch.setattr(cmd_user_import, "AT_ONCE", 1000)
    monkeypatch.setattr("smtpd_core.accounts.password_file.store.MAX_FILE", Path("passwd").stat().st_size)
    assert "bytes; keep so many accounts in a database" in bring(
        capsys, "--from", "passwd", "--store", "file:new", code=2
    )
    assert len(open_editable("file:new").users()) == 1001
