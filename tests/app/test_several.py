"""The daemon in several processes: mail in by any receiver, delivered by the relay, whatever dies."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import time
from pathlib import Path

from tests.app.daemon import DaemonProcess

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
        assert daemon.process.wait(20) == 0


def test_a_killed_child_is_replaced_and_nothing_promised_is_lost(tmp_path: Path) -> None:
    with configured(tmp_path) as daemon:
        promised = 0
        for victim in children(daemon):
            for _ in range(5):
                send(daemon, promised)
                promised += 1
            os.kill(victim, signal.SIGKILL)
            ends = time.monotonic() + 20
            while victim in children(daemon) or len(children(daemon)) < 3:
                assert time.monotonic() < ends
                time.sleep(0.05)
        assert len(daemon.wait_for(promised)) == promised


def test_hup_replaces_the_receivers_and_mail_goes_on(tmp_path: Path) -> None:
    with configured(tmp_path) as daemon:
        old = set(children(daemon))
        with smtplib.SMTP(*daemon.address, timeout=20) as session:
            session.ehlo("probe.test")
            daemon.process.send_signal(signal.SIGHUP)
            ends = time.monotonic() + 20
            while len(set(children(daemon)) - old) < 2:
                assert time.monotonic() < ends
                time.sleep(0.05)
            send(daemon, 1)
        assert len(daemon.wait_for(1)) == 1
        ends = time.monotonic() + 20
        while len(set(children(daemon)) & old) > 1:  # the relay reloads in place
            assert time.monotonic() < ends
            time.sleep(0.05)
