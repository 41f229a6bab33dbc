"""The daemon in several processes: mail in by any receiver, delivered by the relay, whatever dies."""

from __future__ import annotations

import datetime
import os
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from certs.files import write_pair
from certs.issue import Wish, issue
from tests.app.daemon import ROOT, DaemonProcess

CONFIG = """
hostname = "mx.our.test"
[threads]
processes = 2
[[listener]]
bind = "127.0.0.1:0"
[domains."our.test"]
users = "any"
deliver = "maildir:{state}/mail"
"""


def configured(tmp_path: Path) -> DaemonProcess:
    state = tmp_path / "state"
    config = tmp_path / "smtpd.toml"
    config.write_text(CONFIG.replace("{state}", str(state)))
    return DaemonProcess(state, "--config", str(config), listen="")


def children(daemon: DaemonProcess) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(daemon.process.pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def wait_until(fact: Callable[[], bool], timeout: float = 60.0) -> None:
    ends = time.monotonic() + timeout
    while not fact():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)  # facts of other processes


def send(daemon: DaemonProcess, number: int) -> None:
    with smtplib.SMTP(*daemon.address, timeout=20) as client:
        client.sendmail("eve@far.test", ["ann@our.test"], f"Subject: number {number}\n\nbody\n")


def test_mail_is_taken_by_several_and_delivered_by_one(tmp_path: Path) -> None:
    with configured(tmp_path) as daemon:
        assert len(children(daemon)) == 3
        for number in range(20):
            send(daemon, number)
        assert len(daemon.wait_for(20)) == 20
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 0


def test_a_killed_child_is_replaced_and_nothing_promised_is_lost(tmp_path: Path) -> None:
    with configured(tmp_path) as daemon:
        promised = 0
        for victim in children(daemon):
            for _ in range(5):
                send(daemon, promised)
                promised += 1
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in children(daemon) and len(children(daemon)) >= 3)
        assert len(daemon.wait_for(promised)) == promised


def test_receivers_killed_under_load_lose_their_open_sessions_and_no_mail(tmp_path: Path) -> None:
    """Clients send without a pause while one receiver after the other is killed."""
    promised: list[str] = []
    lost: list[str] = []
    over = threading.Event()

    def work(number: int) -> None:
        at = 0
        while not over.is_set():
            at += 1
            token = f"token {number}.{at}."
            try:
                with smtplib.SMTP(*daemon.address, timeout=60) as client:
                    client.sendmail("eve@far.test", ["ann@our.test"], f"Subject: {token}\n\nbody\n")
                    promised.append(token)
            except (smtplib.SMTPServerDisconnected, ConnectionError) as error:
                lost.append(f"{token} {error!r}")

    with configured(tmp_path) as daemon, ThreadPoolExecutor(4) as clients:
        working = [clients.submit(work, number) for number in range(4)]
        try:
            for _ in range(3):
                been = len(promised)
                wait_until(lambda been=been: len(promised) >= been + 20)
                victim = max(children(daemon))  # the youngest; the relay was the first
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda victim=victim: victim not in children(daemon) and len(children(daemon)) == 3)
        finally:
            over.set()
        for one in working:
            one.result(60)  # nothing else went wrong
        assert len(lost) <= 3 * 4, lost

        def has_come() -> bool:
            """All that was promised; what was lost may have come too, so that a count tells nothing."""
            text = b"".join(mail.read_bytes() for mail in daemon.mails()).decode()
            return all(token in text for token in promised)

        wait_until(has_come)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no process")
def test_receivers_are_pinned_where_that_is_asked_for(tmp_path: Path) -> None:
    daemon = configured(tmp_path)
    config = tmp_path / "smtpd.toml"
    config.write_text(config.read_text().replace("processes = 2", "processes = 2\npin = true"))
    with daemon:
        mine = os.sched_getaffinity(0)
        found = [os.sched_getaffinity(child) for child in sorted(children(daemon))]
        pinned = [processors for processors in found if len(processors) == 1]
        assert len(pinned) == (2 if len(mine) > 1 else 3)
        assert set.union(*pinned) == set(sorted(mine)[:2]), "each has its own while there are enough"


def test_hup_replaces_the_receivers_and_mail_goes_on(tmp_path: Path) -> None:
    with configured(tmp_path) as daemon:
        old = set(children(daemon))
        with smtplib.SMTP(*daemon.address, timeout=20) as session:
            session.ehlo("probe.test")
            daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(set(children(daemon)) - old) >= 2)
            send(daemon, 1)
        assert len(daemon.wait_for(1)) == 1
        wait_until(lambda: len(set(children(daemon)) & old) <= 1)  # the relay reloads in place


def test_a_reload_with_a_certificate_that_can_not_be_used_changes_nothing(tmp_path: Path) -> None:
    """The relay used to take the new settings over while the receivers could not start with them."""
    with configured(tmp_path) as daemon:
        before = sorted(children(daemon))
        config, broken = tmp_path / "smtpd.toml", tmp_path / "broken.pem"
        broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        config.write_text(f'{config.read_text()}[tls]\ncertificate = "{broken}"\nkey = "{broken}"\n')
        daemon.signal(signal.SIGHUP)
        assert str(broken) in daemon.wait_for_log("reload refused, everything stays as it was")
        os.kill(before[-1], signal.SIGKILL)
        wait_until(lambda: before[-1] not in children(daemon) and len(children(daemon)) == 3)
        send(daemon, 1)
        assert len(daemon.wait_for(1)) == 1


def test_settings_that_no_receiver_can_serve_are_not_taken_over_by_anybody(tmp_path: Path) -> None:
    """A receiver that died afterwards was tried again with them for ever."""
    with configured(tmp_path) as daemon:
        before = sorted(children(daemon))
        config, base = tmp_path / "smtpd.toml", tmp_path / "users.db"
        base.write_bytes(b"no database at all" * 100)
        good = config.read_text()
        config.write_text(f'{good}[domains."new.test"]\nusers = "any"\n[accounts]\nstore = "sqlite:{base}"\n')
        daemon.signal(signal.SIGHUP)
        assert "accounts.store" in daemon.wait_for_log("the successor can't serve, the old one stays")
        daemon.wait_for_log("the new settings can't be served; everything stays as it was")
        assert "smtpd_core.app.reloading reloaded" not in daemon.log.read_text()
        for victim in before:
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not set(before) & set(children(daemon)) and len(children(daemon)) == 3)
        send(daemon, 1)
        assert len(daemon.wait_for(1)) == 1
        config.write_text(f'{good}[domains."new.test"]\nusers = "any"\ndeliver = "maildir:{tmp_path}/state/new"\n')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("app.reloading reloaded")
        wait_until(lambda: takes(daemon, "eve@new.test"))
        assert len(daemon.wait_for(1, folder="new")) >= 1


def takes(daemon: DaemonProcess, address: str) -> bool:
    with smtplib.SMTP(*daemon.address, timeout=20) as client:
        try:
            client.sendmail("eve@far.test", [address], "Subject: hello\n\nbody\n")
        except smtplib.SMTPRecipientsRefused:
            return False
        return True


def test_a_start_that_fails_ends_as_that_of_one_process_does(tmp_path: Path) -> None:
    """The relay was started again for ever, READY never came, and the exit code was 0."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "queue.db").write_bytes(b"no database" * 1000)
    config = tmp_path / "smtpd.toml"
    config.write_text(f'state = "{state}"\n[threads]\nprocesses = 2\n[[listener]]\nbind = "127.0.0.1:0"\n')
    command = [sys.executable, "-m", "smtpd_core", "serve", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"relay: the queue {state}/queue.db can't be opened: file is not a database" in done.stderr
    assert "before all served, so the start ends" in done.stderr and "starting it again" not in done.stderr


def test_the_end_of_several_is_logged(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path / "state", wrapper=("env", "SMTPD_CORE_THREADS_PROCESSES=2")) as daemon:
        assert daemon.stop() == 0
    assert "stopping: 3 processes may finish" in daemon.log.read_text()
    assert daemon.log.read_text().rstrip().endswith("stopped")


def test_a_reload_onto_a_certificate_that_expired_changes_nothing(tmp_path: Path) -> None:
    """One process refused it; the receivers of several were replaced by some that showed it."""
    config, pem = tmp_path / "smtpd.toml", tmp_path / "mx.pem"
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    past = Wish(("mx.our.test",), valid_from=ended - datetime.timedelta(days=9), valid_to=ended)
    daemon = configured(tmp_path)
    config.write_text(config.read_text() + f'[tls]\ncertificate = "{pem}"\nkey = "{tmp_path}/mx.key"\n')
    write_pair(issue(Wish(("mx.our.test",)), None), pem, tmp_path / "mx.key")
    with daemon:
        before = children(daemon)
        write_pair(issue(past, None), pem, tmp_path / "mx.key")
        daemon.signal(signal.SIGHUP)
        assert f"{pem}: the certificate expired on" in daemon.wait_for_log("reload refused, everything stays as it was")
        assert children(daemon) == before
