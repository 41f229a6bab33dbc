"""The server dies between the sync and its 250; the client sends again, and the message is there once."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The server, which dies behind the sync that follows a record: the segment's header is synced first.
DYING = """
import os, signal, sys
from relay.disk import Disk
from smtpd_core.app.cli import main
appended, append, sync = [], Disk.append, Disk.sync
def counted(disk, descriptor, pieces):
    appended.append(sum(map(len, pieces)))
    return append(disk, descriptor, pieces)
def last(disk, descriptor):
    sync(disk, descriptor)
    if appended and appended[-1] > 200:
        os.kill(os.getpid(), signal.SIGKILL)
Disk.append, Disk.sync = counted, last
sys.exit(main(sys.argv[1:]))
"""

LETTER = b"From: bob@example.test\r\nMessage-ID: <1@example.test>\r\n\r\n" + b"hello\r\n" * 50


def served(config: Path, *python: str) -> tuple[subprocess.Popen[str], int]:
    server = subprocess.Popen(
        [sys.executable, *python, "serve", "--config", config],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    port = next(int(line.rpartition(":")[2]) for line in server.stdout if line.startswith("listening"))
    return server, port


def send(port: int) -> str:
    """The id that the 250 names."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("probe.test")
        client.mail("bob@example.test")
        client.rcpt("ann@example.test")
        code, text = client.data(LETTER)
        assert code == 250, text
        return text.decode().split()[-1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_message_whose_250_was_never_sent_is_kept_once_when_it_is_sent_again(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(
        f'hostname = "mx.test"\nstate = "{tmp_path}/state"\n[[listener]]\nbind = "127.0.0.1:0"\ntls = "none"\n'
        f'[domains."example.test"]\ndeliver = "maildir:{tmp_path}/mail"\n[spool]\nresends = "all"\n'
    )
    server, port = served(config, "-c", DYING)
    with pytest.raises((smtplib.SMTPException, OSError)):
        send(port)
    assert server.wait(20) == -signal.SIGKILL
    server, port = served(config, "-m", "smtpd_core")
    try:
        new = tmp_path / "mail" / "new"
        deadline = time.monotonic() + 20
        while not (new.is_dir() and os.listdir(new)) and time.monotonic() < deadline:
            time.sleep(0.02)
        (delivered,) = os.listdir(new)
        id = send(port)
        assert f".{id}R0." in delivered
    finally:
        server.terminate()
        assert server.wait(30) == 0
    assert os.listdir(tmp_path / "mail" / "new") == [delivered]
