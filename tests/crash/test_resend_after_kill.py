"""The server dies between the sync and its 250; the client sends again, and the message is there once."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")

# The server, which dies behind the sync that follows the record of the letter.
DYING = """
import os, signal
from relay.disk import Disk
append, sync, written = Disk.append, Disk.sync, []
def noted(disk, descriptor, pieces):
    written[:] = pieces
    return append(disk, descriptor, pieces)
def last(disk, descriptor):
    sync(disk, descriptor)
    if any(b"<the-letter@example.test>" in piece for piece in written):
        os.kill(os.getpid(), signal.SIGKILL)
Disk.append, Disk.sync = noted, last
"""

# Nothing leaves the spool.
WITHOUT_INTAKE = """
from relay.intake import Intake
Intake.start = lambda self: None
"""

RUN = """
import sys
from smtpd_core.app.cli import main
sys.exit(main(sys.argv[1:]))
"""


def letter(name: str, size: int = 300) -> bytes:
    head = f"From: bob@example.test\r\nMessage-ID: <{name}@example.test>\r\n\r\n"
    return head.encode() + b"hello\r\n" * (size // 7)


LETTER = letter("the-letter")


@contextmanager
def served(folder: Path, changes: str = "", processes: int = 1) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The server and its port. What is left of it is killed at the end."""
    config = folder / "server.toml"
    config.write_text(
        f'hostname = "mx.test"\nstate = "{folder}/state"\n[[listener]]\nbind = "127.0.0.1:0"\ntls = "none"\n'
        f'[domains."example.test"]\ndeliver = "maildir:{folder}/mail"\n[spool]\nresends = "all"\n'
        f"[threads]\nprocesses = {processes}\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", changes + RUN, "serve", "--config", config],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        yield server, next(int(line.rpartition(":")[2]) for line in server.stdout if line.startswith("listening"))
    finally:
        try:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself, with all its children
        server.wait(30)
        server.stdout.close()


def send(port: int, *letters: bytes) -> str:
    """The id that the 250 to the last one names."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("probe.test")
        for one in letters:
            client.mail("bob@example.test")
            client.rcpt("ann@example.test")
            code, text = client.data(one)
            assert code == 250, text
    return text.decode().split()[-1]


def delivered(folder: Path, count: int = 1) -> list[str]:
    """All mail in the mailbox, once there is so much."""
    new = folder / "mail" / "new"
    deadline = time.monotonic() + 30
    while not (new.is_dir() and len(os.listdir(new)) >= count) and time.monotonic() < deadline:
        time.sleep(0.02)
    return os.listdir(new)


def stopped(server: subprocess.Popen[str]) -> None:
    server.terminate()
    assert server.wait(30) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_message_whose_250_was_never_sent_is_kept_once_when_it_is_sent_again(processes: int, tmp_path: Path) -> None:
    with served(tmp_path, DYING, processes) as (_, port), pytest.raises((smtplib.SMTPException, OSError)):
        send(port, LETTER)
    with served(tmp_path, processes=processes) as (server, port):
        (file,) = delivered(tmp_path)
        id = send(port, LETTER)
        assert f".{id}R0." in file
        stopped(server)
    assert delivered(tmp_path) == [file]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_copy_that_comes_before_the_first_one_left_the_dead_spool_is_known(processes: int, tmp_path: Path) -> None:
    """It was stored beside the first one: keys were known from the moment on when intake had read them."""
    with served(tmp_path, DYING, processes) as (_, port), pytest.raises((smtplib.SMTPException, OSError)):
        send(port, LETTER)
    with served(tmp_path, WITHOUT_INTAKE, processes) as (_, port):
        ids = {send(port, LETTER) for _ in range(4)}
        assert len(ids) == 1
    with served(tmp_path, processes=processes) as (server, _):
        (file,) = delivered(tmp_path)
        stopped(server)
    assert delivered(tmp_path) == [file] and f".{ids.pop()}R0." in file


def test_a_copy_is_known_though_the_dead_spool_is_large(tmp_path: Path) -> None:
    others = [letter(f"other-{number}", 250_000) for number in range(150)]
    with served(tmp_path, WITHOUT_INTAKE + DYING) as (_, port), pytest.raises((smtplib.SMTPException, OSError)):
        send(port, *others, LETTER)
    with served(tmp_path) as (server, port):
        id = send(port, LETTER)
        assert send(port, others[0]) != id
        files = delivered(tmp_path, 151)
        stopped(server)
    assert sorted(delivered(tmp_path)) == sorted(files) and len(files) == 151
    assert sum(f".{id}R0." in file for file in files) == 1
