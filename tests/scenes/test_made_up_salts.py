"""A stranger who asks SCRAM about many names, today and after a restart, does not find out which of them are known."""

from __future__ import annotations

import base64
import os
import smtplib
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smtpd_core import SmtpServer, UserAccount
from smtpd_core.accounts import Account, MemoryStore
from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.opening import open_editable, open_store
from smtpd_core.app.salt_key import NAME, salt_key
from smtpd_core.net import GuardSettings
from smtpd_core.wire.sasl.verifier import make_verifier
from tests.app.daemon import DaemonProcess

CONFIG = """\
hostname = "mx.test"
[[listener]]
bind = "127.0.0.1:0"
service = "submission"
tls = "none"
auth = "required"
[accounts]
store = "{store}"
mechanisms = ["SCRAM-SHA-256"]
[threads]
processes = {processes}
[domains."mx.test"]
"""
# What the accounts of these tests have: not the count and size that new ones get.
ITERATIONS, SALT = 4096, 12
NAMES = ("ann", "bob", "nobody", "nobody@mx.test", "somebody")
KNOWN = frozenset({"ann", "bob"})


def told(address: tuple[str, int], name: str) -> tuple[bytes, int]:
    """Salt and count, as anybody is told them who names a user."""
    with smtplib.SMTP(*address, timeout=30) as client:
        client.ehlo()
        first = base64.b64encode(f"n,,n={name},r=abcdefgh".encode()).decode()
        code, challenge = client.docmd("AUTH", f"SCRAM-SHA-256 {first}")
        assert code == 334, challenge
        client.docmd("*")
    _, salt, count = base64.b64decode(challenge).decode().split(",")
    return base64.b64decode(salt.removeprefix("s=")), int(count.removeprefix("i="))


def people(url: str) -> str:
    store = open_editable(url, may_make=True)
    for name in KNOWN:
        verifier = make_verifier("x", "scram-sha-256", salt=name.encode() * 4, iterations=ITERATIONS)
        store.add(Entry(Account(name), (f"{{SCRAM-SHA-256}}{verifier}",)))
    return url


def assert_alike(answers: dict[str, tuple[bytes, int]]) -> None:
    assert {count for _, count in answers.values()} == {ITERATIONS}
    assert {len(salt) for salt, _ in answers.values()} == {SALT}
    assert len({salt for salt, _ in answers.values()}) == len(answers)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("form", ["file:{}/users.toml", "sqlite:{}/users.db"])
def test_the_daemon_tells_the_same_after_a_restart(tmp_path: Path, form: str, processes: int) -> None:
    path = tmp_path / "smtpd.toml"
    path.write_text(CONFIG.format(store=people(form.format(tmp_path)), processes=processes))
    given = ("--config", str(path))
    seen = []
    for _ in range(2):
        with DaemonProcess(tmp_path / "state", *given, listen="") as daemon:
            answers = [{name: told(daemon.address, name) for name in NAMES} for _ in range(2 * processes)]
            assert all(one == answers[0] for one in answers), "each receiver tells the same"
            seen.append(answers[0])
    assert seen[0] == seen[1]
    assert_alike(seen[0])
    key = tmp_path / "state" / "scram.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32


def test_another_key_makes_other_salts_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.toml"
    path.write_text(CONFIG.format(store=people(f"file:{tmp_path}/users.toml"), processes=1))
    seen = []
    for _ in range(2):
        with DaemonProcess(tmp_path / "state", "--config", str(path), listen="") as daemon:
            seen.append({name: told(daemon.address, name) for name in NAMES})
        (tmp_path / "state" / "scram.key").unlink()
    assert {name for name in NAMES if seen[0][name] == seen[1][name]} == KNOWN, "which is why the file is kept"
    (tmp_path / "state" / "scram.key").write_bytes(b"short")
    daemon = DaemonProcess(tmp_path / "state", "--config", str(path), listen="")
    with pytest.raises(AssertionError, match=r"scram\.key: a key of 16 octets or more is due"):
        daemon.start()


Make = Callable[[], object]


def in_clear(tmp_path: Path) -> Make:
    (tmp_path / "passwd").write_text("ann:{PLAIN}x\nbob:{PLAIN}y\n")
    return lambda: open_store(f"file:{tmp_path}/passwd")


STORES: dict[str, Callable[[Path], Make]] = {
    "a list": lambda folder: lambda: [UserAccount("ann", "x"), UserAccount("bob", "y")],
    "a file in clear": in_clear,
    "a chain": lambda folder: lambda: ChainStore([MemoryStore([UserAccount("ann", "x")]), in_clear(folder)()]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("store", STORES)
def test_an_embedding_program_gives_the_key(tmp_path: Path, store: str) -> None:
    """Passwords in clear have no salts of their own: theirs change and stay as those of unknown names do."""
    make = STORES[store](tmp_path)

    def run(**more: object) -> dict[str, tuple[bytes, int]]:
        guard = GuardSettings(login_delay=0.0, lock_out_after=0)
        with SmtpServer(port=0, user_accounts=make(), clear_text_without_tls=True, guard=guard, **more) as server:
            return {name: told(server.address, name) for name in NAMES}

    one, same, other = run(scram_salt_key=b"k" * 32), run(scram_salt_key=b"k" * 32), run(scram_salt_key=b"K" * 32)
    assert one == same
    assert not [name for name in NAMES if one[name] == other[name]]
    assert len({(len(salt), count) for salt, count in one.values()}) == 1
    assert run() == run(), "by default it is the process's own"


def test_accounts_that_a_program_supplies_change_and_stay_like_unknown_names() -> None:
    def run(key: bytes) -> dict[str, tuple[bytes, int]]:
        with SmtpServer(
            port=0, user_accounts=[UserAccount("ann", "x")], clear_text_without_tls=True, scram_salt_key=key,
            on_authenticate=lambda session, login: UserAccount("bob", "y") if login.user == "bob" else None,
        ) as server:  # fmt: skip
            return {name: told(server.address, name) for name in NAMES}

    one, same, other = run(b"k" * 32), run(b"k" * 32), run(b"K" * 32)
    assert one == same
    assert not [name for name in NAMES if one[name] == other[name]]


def test_one_key_comes_of_many_first_starts_though_they_have_the_same_process_number(tmp_path: Path) -> None:
    """As processes of containers that share the directory have."""
    for number in range(4):
        state = tmp_path / str(number)
        state.mkdir()
        begin = threading.Barrier(8)

        def start(state: Path = state, begin: threading.Barrier = begin) -> bytes:
            begin.wait(20)
            return salt_key(str(state))

        with ThreadPoolExecutor(8) as starts:
            keys = {one.result() for one in [starts.submit(start) for _ in range(8)]}
        assert keys == {(state / NAME).read_bytes()} and os.listdir(state) == [NAME]


@pytest.mark.parametrize("key, why", [(b"short", "16 or more"), ("text" * 8, "no bytes")])
def test_a_key_that_is_none_is_refused_and_not_quoted(key: object, why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why) as refused:
        SmtpServer(port=0, scram_salt_key=key)  # type: ignore[arg-type]
    assert "short" not in str(refused.value) and "texttext" not in str(refused.value)
