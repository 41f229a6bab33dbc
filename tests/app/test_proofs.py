"""The main job, end to end: whatever got its 250 lies in a mailbox, byte for byte, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smtpd_core.app.cmd_send import own_address
from tests.app.daemon import DaemonProcess, content_of

CLIENTS = 20


def letter(number: int, dice: random.Random) -> bytes:
    """A message that is like no other: sizes from a line to some pages, dots, bytes above 127."""
    lines = [f"Subject: letter {number}".encode(), f"X-Number: {number}".encode(), b""]
    for _ in range(dice.randrange(1, 60)):
        lines.append(
            dice.choice((b".", b"..", b". dot", b"plain text", b"\xc3\xa4\xff\x80", b"", b"x" * dice.randrange(900)))
        )
    return b"\r\n".join(lines) + b"\r\n"


class Promised(dict[int, bytes]):
    """Letters that got their 250, by number."""

    def __init__(self) -> None:
        super().__init__()
        self._noted = threading.Condition()

    def note(self, number: int, content: bytes) -> None:
        with self._noted:
            self[number] = content
            self._noted.notify_all()

    def wait_for(self, count: int) -> None:
        with self._noted:
            assert self._noted.wait_for(lambda: len(self) >= count, 60), f"{len(self)} of {count} were promised"


def send_all(address: tuple[str, int], letters: dict[int, bytes], promised: Promised) -> None:
    """One client: what got its 250 is noted. Ends where the server does."""
    with contextlib.suppress(OSError, smtplib.SMTPException), smtplib.SMTP(*address, timeout=20) as client:
        for number, content in letters.items():
            client.sendmail("ann@example.test", [f"bob{number}@example.test"], content, mail_options=["BODY=8BITMIME"])
            promised.note(number, content)


def by_number(files: list[Path]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for file in files:
        content = content_of(file.read_bytes())
        match = re.search(rb"^X-Number: (\d+)", content, re.M)
        assert match, content
        found.setdefault(int(match[1]), []).append(content)
    return found


def letters(count: int) -> list[dict[int, bytes]]:
    """Shares of all letters, one for each client."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    whole = {number: letter(number, dice) for number in range(count)}
    return [{n: whole[n] for n in range(client, count, CLIENTS)} for client in range(CLIENTS)]


def test_a_thousand_messages_from_twenty_clients_lie_in_the_maildir_byte_for_byte(tmp_path: Path) -> None:
    shares = letters(1000)
    promised = Promised()
    with DaemonProcess(tmp_path / "state") as daemon:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda share: send_all(daemon.address, share, promised), shares))
        assert len(promised) == 1000
        found = by_number(daemon.wait_for(1000))
        assert daemon.stop() == 0
    assert {number: [content] for number, content in promised.items()} == found


@pytest.mark.parametrize("after", [0.15, 0.4])
def test_what_got_its_250_is_delivered_after_a_kill(tmp_path: Path, after: float) -> None:
    shares = letters(3000)
    promised = Promised()
    daemon = DaemonProcess(tmp_path / "state")
    daemon.start()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for share in shares:
            clients.submit(send_all, daemon.address, share, promised)
        promised.wait_for(50)
        time.sleep(after)  # the instant is the case
        daemon.kill()
    assert 50 <= len(promised) < 3000
    with daemon:
        deadline = time.monotonic() + 20
        while promised.keys() - (found := by_number(daemon.mails())).keys() and time.monotonic() < deadline:
            time.sleep(0.05)  # another process's folder
        assert daemon.stop() == 0
    assert not promised.keys() - found.keys()
    sent = {number: content for share in shares for number, content in share.items()}
    for number, contents in found.items():
        # At least once; a delivery that was under way at the kill is found again and not repeated.
        assert contents == [sent[number]]


def test_mail_for_a_smart_host_arrives_there_byte_for_byte(tmp_path: Path) -> None:
    shares = letters(60)
    promised = Promised()
    with (
        DaemonProcess(tmp_path / "second") as second,
        DaemonProcess(tmp_path / "first", "--smarthost", second.text) as first,
    ):
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda share: send_all(first.address, share, promised), shares))
        assert len(promised) == 60
        found = by_number(second.wait_for(60))
        assert "TLSv1.3" in second.mails()[0].read_text("latin-1"), "the relay used STARTTLS"
    assert {number: [content] for number, content in promised.items()} == found


@pytest.mark.parametrize("processes", [1, 2])
def test_term_under_load_loses_nothing(tmp_path: Path, processes: int) -> None:
    """Every client that got its 250 finds its message, also one that was answered while the server stopped."""
    daemon = in_processes(tmp_path, processes)
    shares = letters(2000)
    promised = Promised()
    daemon.start()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for share in shares:
            clients.submit(send_all, daemon.address, share, promised)
        promised.wait_for(100)
        assert daemon.stop() == 0
    assert 100 <= len(promised) < 2000
    with daemon:
        found = by_number(daemon.wait_for(len(promised)))
        assert daemon.stop() == 0
    assert not promised.keys() - found.keys()
    sent = {number: content for share in shares for number, content in share.items()}
    assert all(contents == [sent[number]] for number, contents in found.items()), "each once, byte for byte"


def in_processes(tmp_path: Path, processes: int) -> DaemonProcess:
    config = tmp_path / "smtpd.toml"
    config.write_text(f"threads = {{ processes = {processes} }}\n")
    return DaemonProcess(tmp_path / "state", "--config", str(config))


@pytest.mark.debian("strace")
def test_a_trace_shows_write_then_sync_then_250(tmp_path: Path) -> None:
    """A kill can't show a missing sync, since the system's memory survives it; the order of the calls does."""
    trace = tmp_path / "trace"
    wrapper = (
        "strace",
        "-f",
        "-q",
        "-s",
        "256",
        "-e",
        "trace=write,writev,pwrite64,pwritev,fdatasync,sendto",
        "-o",
        str(trace),
    )
    with DaemonProcess(tmp_path / "state", wrapper=wrapper) as daemon:
        with smtplib.SMTP(*daemon.address, timeout=30) as client:
            client.sendmail("ann@example.test", ["bob@example.test"], b"Subject: x\r\n\r\nthe-content-to-look-for\r\n")
        daemon.wait_for(1)
        # The wrapper passes no signal on; the daemon is its child.
        assert daemon.process is not None
        wrapper_pid = daemon.process.pid
        children = Path(f"/proc/{wrapper_pid}/task/{wrapper_pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    calls = trace.read_text().splitlines()
    written = next(n for n, line in enumerate(calls) if "the-content-to-look-for" in line and "write" in line)
    promised = next(n for n, line in enumerate(calls) if "queued as" in line and "sendto" in line)
    synced = [n for n, line in enumerate(calls) if "fdatasync" in line and " = 0" in line and written < n < promised]
    assert written < promised and synced, "\n".join(calls[written : promised + 1])


def test_send_and_module_work_from_the_shell(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path / "state") as daemon:
        sent = subprocess.run(
            [sys.executable, "-m", "smtpd_core", "send", "--to", "you@example.test", "--server", daemon.text, "-v"],
            input=b"Subject: hi\n\n.\nlast",
            capture_output=True,
            check=True,
        )
        assert b"you@example.test: 250 2.0.0" in sent.stdout
        assert b"C: STARTTLS" in sent.stderr
        assert content_of(daemon.wait_for(1)[0].read_bytes()) == b"Subject: hi\r\n\r\n.\r\nlast\r\n"


@pytest.mark.parametrize(
    ("given", "sender"),
    [
        ([], own_address()),
        (["--from", "ann@example.test"], "ann@example.test"),
        (["--from", ""], ""),
    ],
)
def test_send_comes_from_this_user_unless_another_sender_is_named(
    given: list[str], sender: str, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path / "state") as daemon:
        subprocess.run(
            [sys.executable, "-m", "smtpd_core", "send", "--to", "you@example.test", "--server", daemon.text, *given],
            stdin=subprocess.DEVNULL,
            check=True,
        )
        assert daemon.wait_for(1)[0].read_bytes().startswith(f"Return-Path: <{sender}>\r\n".encode())


def test_send_without_a_password_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "send", "--to", "you@example.test", "--user", "ann"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
    )
    assert done.returncode == 2
    assert b"send: no password: set SMTPD_PASSWORD" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_reloads_under_load_send_no_session_away(tmp_path: Path, processes: int) -> None:
    shares = letters(400)
    promised = Promised()
    with in_processes(tmp_path, processes) as daemon:
        with ThreadPoolExecutor(CLIENTS) as clients:
            sending = [clients.submit(send_all, daemon.address, share, promised) for share in shares]
            reloads = 0
            while not all(one.done() for one in sending):
                if daemon.log.read_text().count(" reloaded") == reloads:
                    daemon.signal(signal.SIGHUP)
                    reloads += 1
                time.sleep(0.05)
        assert len(promised) == 400, "a reload sends no session away"
        assert reloads >= 2
        found = by_number(daemon.wait_for(400))
        assert daemon.stop() == 0
        assert "refused" not in daemon.log.read_text()
    assert {number: [content] for number, content in promised.items()} == found
