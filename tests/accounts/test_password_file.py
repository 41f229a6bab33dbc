"""Files of accounts: what is in them, edits that disturb nothing else, and changes seen while running."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from smtpd_core.accounts import hashing
from smtpd_core.accounts.entry import Entry, stored_forms
from smtpd_core.accounts.password_file import PasswordFileStore, create
from smtpd_core.accounts.store import Account, StoreUnavailable

TOML = """\
# our people

[users.ann]
password = "{PLAIN}secret"   # for the printer
email = "ann@example.test"

# Bob left
[users."bob@example.test"]
password = ["{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="]
addresses = [
  "bob@example.test",
  "@example.net",
]
"""
LINES = """\
# our people
ann:{PLAIN}secret:1000:1000:Ann Other,room 5:/home/ann:/bin/sh:userdb_quota=1G email=ann@example.test
bob@example.test:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
carl:!:1002:1002::::
dora:{PLAIN}x:::::: nologin
emil:{PLAIN}x::::::allow_nets=192.0.2.0/24
"""


def written(folder: Path, text: str, name: str = "users.toml") -> PasswordFileStore:
    (folder / name).write_text(text)
    return PasswordFileStore(folder / name)


@pytest.mark.parametrize(("name", "text"), [("users.toml", TOML), ("passwd", LINES)])
def test_an_edit_changes_one_account_and_nothing_else(tmp_path: Path, name: str, text: str) -> None:
    store = written(tmp_path, text, name)
    store.set_secrets("bob@example.test", ("{PLAIN}new",))
    assert store.verify("bob@example.test", "new") and store.verify("ann", "secret")
    now = (tmp_path / name).read_text()
    assert now.startswith(text[: text.index("bob@") - 10])
    store.add(Entry(Account("carla", email="c@example.test"), ("{PLAIN}c",)))
    assert (tmp_path / name).read_text().startswith(now)
    store.remove("carla")
    assert (tmp_path / name).read_text().rstrip("\n") == now.rstrip("\n")
    store.remove("ann")
    now = (tmp_path / name).read_text()
    assert "# our people" in now and "secret" not in now and store.verify("ann", "secret") is None


def test_fields_of_other_programs_survive_in_a_line(tmp_path: Path) -> None:
    store = written(tmp_path, LINES, "passwd")
    store.set_secrets("ann", ("{PLAIN}new",))
    line = (tmp_path / "passwd").read_text().splitlines()[1]
    assert line == (
        "ann:{PLAIN}new:1000:1000:Ann Other,room 5:/home/ann:/bin/sh:userdb_quota=1G email=ann@example.test"
    )
    found = store.verify("ann", "new")
    assert found == Account("ann", "Ann Other", "ann@example.test")


@pytest.mark.parametrize("user", ["carl", "dora", "emil"])
def test_locked_accounts_and_those_with_rules_that_can_not_be_kept_stay_out(tmp_path: Path, user: str) -> None:
    assert written(tmp_path, LINES, "passwd").verify(user, "x") is None


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("users.toml", "[users.ann]\npassword = 5\n", "users.ann.password"),
        ("users.toml", "[users.ann]\npasword = 'x'\n", "users.ann: the keys"),
        ("users.toml", "[people.ann]\n", "people"),
        ("users.toml", "[users\n", "line 1"),
        ("users.toml", '[users."a b"]\npassword = "x"\n', "can't be used"),
        ("passwd", "ann:x\nann:y\n", "passwd:2"),
        ("passwd", "nonsense\n", "passwd:1"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        written(tmp_path, text, name)


def test_a_changed_file_is_read_again_and_a_bad_one_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = written(tmp_path, TOML)
    (tmp_path / "users.toml").write_text(TOML.replace("{PLAIN}secret", "{PLAIN}other secret"))
    assert store.verify("ann", "other secret") and not store.verify("ann", "secret")
    with caplog.at_level(logging.ERROR):
        (tmp_path / "users.toml").write_text("[users.ann\npassword = 'unseen'")
        assert store.verify("ann", "other secret") and store.verify("ann", "other secret")
    assert len(caplog.records) == 1 and "unseen" not in caplog.text
    os.unlink(tmp_path / "users.toml")
    with pytest.raises(StoreUnavailable):
        store.verify("ann", "other secret")
    (tmp_path / "users.toml").write_text(TOML)
    assert store.verify("ann", "secret")


def test_only_what_every_account_can_serve_is_offered(tmp_path: Path) -> None:
    store = written(tmp_path, "")
    assert store.kinds == {"password", "certificate"}
    store.add(Entry(Account("ann"), stored_forms("x", ["password", "scram-sha-256"])))
    assert store.kinds == {"password", "certificate", "scram-sha-256"}
    store.add(Entry(Account("bob"), stored_forms("x", ["cleartext"])))
    assert store.kinds == {"password", "certificate", "scram-sha-256"}
    store.add(Entry(Account("carla"), stored_forms("x", ["password"])))
    assert store.kinds == {"password", "certificate"}


@pytest.mark.parametrize("name", ["users.toml", "passwd"])
def test_an_outdated_hash_is_renewed_at_log_in_where_the_file_is_ours(tmp_path: Path, name: str) -> None:
    old = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
    store = written(tmp_path, f'[users.ann]\npassword = "{old}"\n' if name == "users.toml" else f"ann:{old}\n", name)
    assert not store.verify("ann", "wrong") and old in (tmp_path / name).read_text()
    assert store.verify("ann", "secret")
    assert (old in (tmp_path / name).read_text()) == (name == "passwd")
    assert store.verify("ann", "secret") and not store.verify("ann", "wrong")


def test_a_log_in_succeeds_where_the_renewed_hash_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = written(tmp_path, '[users.ann]\npassword = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="\n')
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only")))
    assert store.verify("ann", "secret") and "renewed" in caplog.text
    assert list(tmp_path.glob(".*new")) == []


def test_a_new_file_is_for_its_owner_only_and_keeps_its_mode(tmp_path: Path) -> None:
    create(tmp_path / "users.toml")
    store = PasswordFileStore(tmp_path / "users.toml")
    store.add(Entry(Account("ann"), ("{PLAIN}x",)))
    assert (tmp_path / "users.toml").stat().st_mode & 0o777 == 0o600
    (tmp_path / "users.toml").chmod(0o640)
    store.remove("ann")
    assert (tmp_path / "users.toml").stat().st_mode & 0o777 == 0o640


def test_two_accounts_of_one_name_and_missing_ones_are_errors(tmp_path: Path) -> None:
    store = written(tmp_path, TOML)
    with pytest.raises(ValueError, match="already"):
        store.add(Entry(Account("ann"), ("{PLAIN}x",)))
    for change in (lambda: store.remove("nobody"), lambda: store.set_secrets("nobody", ())):
        with pytest.raises(ValueError, match="no account"):
            change()


def test_a_line_has_no_room_for_everything(tmp_path: Path) -> None:
    store = written(tmp_path, LINES, "passwd")
    for entry in (
        Entry(Account("x"), ("{PLAIN}a", "{PLAIN}b")),
        Entry(Account("x:y"), ("{PLAIN}a",)),
        Entry(Account("x"), ("{PLAIN}a:b",)),
        Entry(Account("x", addresses=("a b",)), ("{PLAIN}a",)),
    ):
        with pytest.raises(ValueError, match="TOML form"):
            store.add(entry)
    assert (tmp_path / "passwd").read_text() == LINES


def test_a_layout_that_can_not_be_edited_is_left_alone(tmp_path: Path) -> None:
    text = "users = { ann = { password = '{PLAIN}secret' } }\n"
    store = written(tmp_path, text)
    assert store.verify("ann", "secret")
    with pytest.raises(ValueError, match="by hand"):
        store.set_secrets("ann", ("{PLAIN}new",))
    assert (tmp_path / "users.toml").read_text() == text


def test_hashes_of_a_strange_scheme_are_a_failure_of_the_store_not_a_wrong_password(tmp_path: Path) -> None:
    store = written(tmp_path, "ann:{ROT13}frperg\n", "passwd")
    with pytest.raises(StoreUnavailable, match="ROT13"):
        store.verify("ann", "secret")


def test_an_unknown_user_is_checked_against_a_hash_like_those_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = written(tmp_path, "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", "passwd")
    seen: list[str] = []
    real = hashing.matches
    monkeypatch.setattr(hashing, "matches", lambda stored, password: seen.append(stored) or real(stored, password))
    store.verify("ann", "wrong")
    store.verify("nobody", "wrong")
    assert len(seen) == 2 and seen[0] == seen[1]


def test_a_changed_file_is_read_by_one_log_in_while_the_others_go_on_with_the_old_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = written(tmp_path, "ann:{PLAIN}old\n", "passwd")
    (tmp_path / "passwd").write_text("ann:{PLAIN}new password\n")
    reading, may_go_on, reads = threading.Event(), threading.Event(), []
    read = store._text

    def slow_disk() -> str:
        reads.append(1)
        reading.set()
        may_go_on.wait(10)
        return read()

    monkeypatch.setattr(store, "_text", slow_disk)
    found = []
    first = threading.Thread(target=lambda: found.append(store.verify("ann", "new password")))
    first.start()
    assert reading.wait(10)
    assert store.verify("ann", "old") is not None, "nobody waits for the one who reads"
    may_go_on.set()
    first.join(10)
    assert found == [Account("ann")] and reads == [1] and store.verify("ann", "old") is None
