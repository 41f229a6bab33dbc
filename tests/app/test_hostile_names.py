"""Recipients that try to be paths: whatever a stranger writes, mail lies in one Maildir of its own under the root."""

from __future__ import annotations

import os
import smtplib
import unicodedata
from pathlib import Path

import pytest

from tests.app.daemon import DaemonProcess

# Local parts as they stand behind RCPT TO:<; all are taken, since every local part is a user here.
TAKEN = [
    '".."',
    '"."',
    '"../../../../tmp/evil"',
    '"/etc/passwd"',
    '"a/b"',
    '"a/../b"',
    '"..\\\\.."',
    '".hidden"',
    '"tmp"',
    "new",
    "cur",
    '" "',
    '"a b"',
    '"-rf"',
    '"*"',
    '"$(id)"',
    '"`id`"',
    '"{user}"',
    '"{domain}"',
    '"%2e%2e"',
    '"%"',
    '"a:2,S"',
    '"~root"',
    '"con"',
    "a" * 64,
    '"' + "é" * 31 + '"',
    '"ann+../../x"',
    "é",
    "Ω",
    '"\u202egnp.exe"',
    '"\u2024\u2024"',
    '"\uff0e\uff0e\uff0f"',
]

# What the grammar refuses before anything is asked for.
REFUSED = ["a\0b", "..", ".a", "a.", "a..b", "a b", "a/b@..", '"a', "a" * 300, '"' + "b" * 300 + '"', "a\x7f", "\\"]

CONFIG = """
hostname = "mx.our.test"
listener = [{ bind = "127.0.0.1:0" }]
[domains."our.test"]
deliver = "maildir:{state}/mail/{domain}/{user}/box"
"""


@pytest.fixture
def daemon(tmp_path: Path) -> DaemonProcess:
    config = tmp_path / "smtpd.toml"
    config.write_text(CONFIG.replace("{state}", str(tmp_path / "state")))
    return DaemonProcess(tmp_path / "state", "--config", str(config), listen="")


def send(daemon: DaemonProcess, local: str) -> int:
    """The code of its RCPT; where it is taken, a message follows."""
    with smtplib.SMTP(*daemon.address, timeout=20) as client:
        client.ehlo("probe.test")
        client.docmd("MAIL FROM:<eve@far.test> SMTPUTF8")
        client.send(f"RCPT TO:<{local}@our.test>\r\n".encode())
        code = client.getreply()[0]
        if code == 250:
            client.docmd("DATA")
            client.send(f"Subject: x\r\nX-To: {local}\r\n\r\nx\r\n.\r\n".encode())
            assert client.getreply()[0] == 250
        return code


def found(state: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(state) for name in names if Path(folder).name == "new"]


def test_no_local_part_leads_out_of_its_root(daemon: DaemonProcess, tmp_path: Path) -> None:
    outside = set(Path("/tmp").iterdir())
    with daemon:
        for local in TAKEN:
            assert send(daemon, local) == 250, local
        for local in REFUSED:
            assert send(daemon, local) in (500, 501, 553), local
        while len(mails := found(tmp_path)) < len(TAKEN):
            assert "failed" not in daemon.log.read_text()
        assert daemon.stop() == 0
    root = daemon.state / "mail" / "our.test"
    assert {mail.parents[3] for mail in mails} == {root}, "one folder for each user, right under the root"
    assert all(mail.parts[-3:-1] == ("box", "new") for mail in mails)
    names = {folder.name for folder in root.iterdir()}
    assert len(names) == len(TAKEN), "nobody gets another's mail"
    assert all(len(name) <= 128 and not name.startswith(".") and name.isascii() for name in names)
    assert not any("evil" in path.name for path in set(Path("/tmp").iterdir()) - outside)


def test_spellings_of_one_name_are_one_mailbox(daemon: DaemonProcess, tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "José")
    spellings = [
        composed,
        unicodedata.normalize("NFD", composed),
        composed.upper(),
        composed + "+lists",
        f'"{composed}"',
    ]
    with daemon:
        for local in spellings:
            assert send(daemon, local) == 250
        while len(mails := found(tmp_path)) < len(spellings):
            pass
    assert len({mail.parents[2] for mail in mails}) == 1


@pytest.mark.parametrize("users", ['["ann", "josé"]', '"accounts"'])
def test_a_hostile_name_is_no_user(users: str, daemon: DaemonProcess, tmp_path: Path) -> None:
    config = tmp_path / "smtpd.toml"
    more = f"users = {users}\n"
    if users == '"accounts"':
        (tmp_path / "users.toml").write_text("")
        more += f'[accounts]\nstore = "file:{tmp_path}/users.toml"\n'
    config.write_text(config.read_text() + more)
    with daemon:
        hostile = [local for local in TAKEN if not local.startswith('"ann+')]  # ann's, with a detail
        assert [local for local in hostile if send(daemon, local) == 250] == []
