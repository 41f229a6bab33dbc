"""[accounts] as the daemon serves it: stores, mechanisms, the sender rule, and what is refused at start."""

from __future__ import annotations

import base64
import signal
import smtplib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smtpd_core.accounts import Account
from smtpd_core.accounts.entry import Entry, stored_forms
from smtpd_core.accounts.opening import open_editable
from tests.app.daemon import ROOT, DaemonProcess

CONFIG = """\
hostname = "mx.test"
[[listener]]
bind = "127.0.0.1:0"
service = "submission"
tls = "{tls}"
auth = "required"
[accounts]
store = "{store}"
{accounts}
[domains."mx.test"]
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"file:{tmp_path}/users.toml"
    people = open_editable(url, may_make=True)
    people.add(Entry(Account("ann", email="ann@mx.test"), stored_forms("secret", ["password", "scram-sha-256"])))
    return url


def config(folder: Path, store: str, accounts: str = "", tls: str = "explicit-require") -> str:
    path = folder / "smtpd.toml"
    path.write_text(CONFIG.format(store=store, accounts=accounts, tls=tls))
    return str(path)


def test_users_log_in_and_send_as_themselves(tmp_path: Path, store: str) -> None:
    given = ("--config", config(tmp_path, store, 'sender_rule = "enforce"'))
    with DaemonProcess(tmp_path / "state", *given, listen="") as daemon, smtplib.SMTP(*daemon.address) as client:
        assert "auth" not in client.esmtp_features
        client.starttls()
        client.ehlo()
        assert client.esmtp_features["auth"].split() == [
            "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN",
        ]  # fmt: skip
        client.login("ann", "secret")
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("bob@mx.test", ["x@mx.test"], "Subject: x\r\n\r\nx\r\n")
        client.sendmail("ann@mx.test", ["x@mx.test"], "Subject: x\r\n\r\nx\r\n")
        people = open_editable(store)
        people.add(Entry(Account("bob"), stored_forms("other", ["password", "scram-sha-256"])))
        with smtplib.SMTP(*daemon.address) as newcomer:
            newcomer.starttls()
            newcomer.login("bob", "other")
    log = daemon.log.read_text()
    assert "secret" not in log and "other" not in log


@pytest.mark.parametrize(
    ("accounts", "tls", "why"),
    [
        ('mechanisms = ["CRAM-MD5"]', "explicit-require", "CRAM-MD5 could never work"),
        ('mechanisms = ["EXTERNAL"]', "explicit-require", "not asked for a certificate"),
        ('mechanisms = ["PLAIN"]', "none", "in the clear"),
        ('mechanisms = ["TELEPATHY"]', "explicit-require", "TELEPATHY"),
        ('query = "SELECT 1"', "explicit-require", "query"),
    ],
)
def test_what_could_never_work_is_refused_at_start(
    tmp_path: Path, store: str, accounts: str, tls: str, why: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "serve", "--config", config(tmp_path, store, accounts, tls),
         "--state", str(tmp_path / "state")],
        capture_output=True, text=True, timeout=30, cwd=ROOT,
    )  # fmt: skip
    assert told.returncode in (1, 2) and why in told.stderr, told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ("file:nowhere.toml", "nowhere.toml"),
        ("sqlite:/dev/null", "no such table"),
        ("mysql://smtp:hunter2@127.0.0.1:1/mail", "mysql://smtp@127.0.0.1"),
        ("postgresql://smtp:hunter2@127.0.0.1:1/mail", "postgresql://smtp@127.0.0.1"),
    ],
)
def test_a_store_that_is_not_there_is_refused_at_start(tmp_path: Path, store: str, why: str) -> None:
    if store.startswith(("mysql", "postgresql")):
        pytest.importorskip("pymysql" if store.startswith("mysql") else "psycopg")
    told = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "serve", "--config", config(tmp_path, store),
         "--state", str(tmp_path / "state")],
        capture_output=True, text=True, timeout=30, cwd=ROOT,
    )  # fmt: skip
    assert told.returncode == 2 and why in told.stderr, told.stderr
    assert "Traceback" not in told.stderr and "hunter2" not in told.stderr


def version_1(tmp_path: Path, wanted: bool, mechanisms: str = '["NTLM", "PLAIN"]') -> str:
    """A configuration whose one user can log in by NTLM."""
    url = f"file:{tmp_path}/ntlm.toml"
    if not Path(f"{tmp_path}/ntlm.toml").exists():
        people = open_editable(url, may_make=True)
        people.add(Entry(Account("ann", email="ann@mx.test"), stored_forms("secret", ["password", "nt-hash"])))
    return config(tmp_path, url, f"mechanisms = {mechanisms}\nntlm_version_1 = {str(wanted).lower()}")


def ntlm_log_in(daemon: DaemonProcess, version: int) -> int:
    """The code after one log-in by a client of this version."""
    from tests.support.ntlm import Version1Client, Version2Client

    client = (Version1Client if version == 1 else Version2Client)("ann", "secret")
    with smtplib.SMTP(*daemon.address) as connection:
        connection.starttls()
        connection.ehlo()
        assert "NTLM" in connection.esmtp_features["auth"].split()
        code, told = connection.docmd("AUTH", "NTLM " + base64.b64encode(client.negotiate()).decode())
        assert code == 334
        return connection.docmd(base64.b64encode(client.authenticate(base64.b64decode(told))).decode())[0]


@pytest.mark.parametrize("wanted", [False, True])
def test_ntlm_is_served_where_it_is_named_and_its_first_version_only_where_asked_for(
    tmp_path: Path, wanted: bool
) -> None:
    pytest.importorskip("spnego")
    given = ("--config", version_1(tmp_path, wanted))
    with DaemonProcess(tmp_path / "state", *given, listen="") as daemon:
        assert ntlm_log_in(daemon, 2) == 235
        assert ntlm_log_in(daemon, 1) == (235 if wanted else 535)
        if not wanted:
            version_1(tmp_path, True)
            daemon.signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while "reloaded" not in daemon.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert ntlm_log_in(daemon, 1) == 235, "a reload takes it over"
    assert ("broken" in daemon.log.read_text()) is wanted


def check(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smtpd_core", "check", "--config", path],
        capture_output=True, text=True, timeout=30, cwd=ROOT,
    )  # fmt: skip


def test_check_warns_of_the_first_version_of_ntlm(tmp_path: Path) -> None:
    both, plain = '["NTLM", "PLAIN"]', '["PLAIN"]'
    for wanted, mechanisms, words in (
        (True, both, "the first version of NTLM is broken"),
        (True, plain, "counts for nothing"),
        (False, both, ""),
    ):
        told = check(version_1(tmp_path, wanted, mechanisms))
        assert told.returncode == 0 and (words in told.stderr if words else "ntlm" not in told.stderr), told.stderr
