"""The units of docs/deploy under the real tools: read, rated, given sockets, and started by a real systemd."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.daemon import ROOT, DaemonProcess
from tests.app.systemd import DEPLOY, Systemd, why_not

UNITS = sorted(path.name for path in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")))

# systemd-analyze's exposure, tenfold: 0 is none, 100 is all. A mail server has the network; the rest is closed.
MOST_EXPOSED = 18

SEND = """
import smtplib, ssl
with smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
    client.sendmail("eve@far.test", ["ann@example.test"], "Subject: by port 25\\n\\nx")
with smtplib.SMTP("127.0.0.1", 587, timeout=20) as client:
    client.starttls(context=ssl._create_unverified_context())
    print(client.login("ann", "secret")[0])
    client.sendmail("ann@example.test", ["ann@example.test"], "Subject: by port 587\\n\\nx")
with smtplib.SMTP_SSL("127.0.0.1", 465, timeout=20, context=ssl._create_unverified_context()) as client:
    print(client.login("ann", "secret")[0])
    client.sendmail("ann@example.test", ["ann@example.test"], "Subject: by port 465\\n\\nx")
"""

COUNT = """
import os, time
new = "/var/lib/smtpd_core/mail/example.test/ann/new"
ends = time.monotonic() + 30
while time.monotonic() < ends and (not os.path.isdir(new) or len(os.listdir(new)) < WANTED):
    time.sleep(0.05)
print(len(os.listdir(new)), {os.stat(os.path.join(new, name)).st_uid for name in os.listdir(new)})
"""


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units with an interpreter that is there."""
    for name in UNITS:
        text = (DEPLOY / name).read_text().replace("/opt/smtpd_core/bin/python", os.path.realpath(sys.executable))
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in UNITS]


@pytest.mark.debian("systemd-analyze")
def test_the_units_say_nothing_that_systemd_does_not_know(units: list[str]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.debian("systemd-analyze")
def test_the_service_is_exposed_as_little_as_a_mail_server_can_be() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager"]
    done = subprocess.run([*command, str(DEPLOY / "smtpd_core.service")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_every_socket_is_taken_by_the_configuration() -> None:
    names = {re.search("^FileDescriptorName=(.*)$", path.read_text(), re.M)[1] for path in DEPLOY.glob("*.socket")}  # type: ignore[index]
    bound = set(re.findall('bind = "fd:(.*)"', (DEPLOY / "etc" / "smtpd_core" / "smtpd_core.toml").read_text()))
    assert names == bound == {"smtp", "submission", "submissions"}


@pytest.mark.debian("systemd-socket-activate")
def test_a_first_client_starts_the_server_and_is_served(tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    config = tmp_path / "smtpd.toml"
    config.write_text('listener = [{ bind = "fd:second" }, { bind = "fd:first", service = "lmtp" }]\n')
    wrapper = ["systemd-socket-activate", "--fdname=first:second", *(f"--listen=127.0.0.1:{port}" for port in ports)]
    wrapper += [f"--setenv=PYTHONPATH={ROOT}"]
    daemon = DaemonProcess(tmp_path / "state", "--config", str(config), listen="", wrapper=wrapper)
    with open(daemon.log, "wb") as log, open(daemon.output, "wb") as output:
        daemon.process = subprocess.Popen(daemon.command, stdout=output, stderr=log)
    try:
        daemon.wait_for_log("Listening on")
        with socket.create_connection(("127.0.0.1", ports[1]), timeout=60) as first:
            assert first.recv(100).startswith(b"220 ")
        with smtplib.LMTP("127.0.0.1", ports[0], timeout=20) as client:
            assert client.ehlo("probe.test")[0] == 250
    finally:
        assert daemon.stop() == 0
    # It serves before it says so.
    assert f"listening mx 127.0.0.1:{ports[1]}\nlistening lmtp 127.0.0.1:{ports[0]}\n" in daemon.output.read_text()


@pytest.mark.debian("systemd-notify")
def test_we_speak_as_systemd_notify_does(tmp_path: Path) -> None:
    """What the real tool sends and what we send is understood alike: fields of one datagram, a line each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        tool = ["systemd-notify", "--no-block", "--ready", f"--pid={os.getpid()}"]
        subprocess.run(tool, env={**os.environ, **environment}, check=True, timeout=60)
        theirs = supervisor.recv(1000).decode().rstrip("\n")
        daemon = DaemonProcess(tmp_path / "state")
        daemon.start(environment)
        ours = supervisor.recv(1000).decode()
        assert daemon.process is not None
        expected = theirs.replace(str(os.getpid()), str(daemon.process.pid))
        assert set(ours.split("\n")) == set(expected.split("\n"))
        assert daemon.stop() == 0


needs_systemd = pytest.mark.debian("systemd-analyze", "unshare", "nsenter", "ip")


@pytest.fixture
def able() -> None:
    reason = why_not() if shutil.which("unshare") else "no unshare"
    if reason:
        pytest.skip(reason)


@needs_systemd
@pytest.mark.parametrize("processes", [1, 2])
def test_a_real_systemd_starts_reloads_watches_and_stops_it(able: None, tmp_path: Path, processes: int) -> None:
    more = f"Environment=SMTPD_CORE_THREADS_PROCESSES={processes}\nWatchdogSec=3\nTimeoutAbortSec=1\nRestartSec=100ms"
    with Systemd(tmp_path, more) as system:
        system.wait_for("ActiveState", "active")
        assert system.python(SEND).split() == ["235", "235"]
        assert system.python(COUNT.replace("WANTED", "3")).strip() == "3 {4242}", "the mail belongs to the user"
        main = system.fact("MainPID")

        assert system.inside("systemctl", "reload", "smtpd_core.service").returncode == 0
        system.wait_for("ActiveState", "active")
        assert system.fact("MainPID") == main, "a reload is no restart"

        system.inside("kill", "-STOP", main)
        system.wait_for("NRestarts", "1")
        system.wait_for("ActiveState", "active")
        assert system.fact("MainPID") != main, "its heart-beat stayed out"
        assert system.python(SEND).split() == ["235", "235"]

        assert system.inside("systemctl", "stop", "smtpd_core.service").returncode == 0
        assert (system.fact("Result"), system.fact("ExecMainStatus")) == ("success", "0")
        assert system.python(COUNT.replace("WANTED", "6")).split()[0] == "6"


@needs_systemd
def test_a_real_systemd_does_not_start_it_with_a_mistake(able: None, tmp_path: Path) -> None:
    system = Systemd(tmp_path, "Restart=no")
    config = tmp_path / "etc" / "smtpd_core" / "smtpd_core.toml"
    config.write_text(config.read_text().replace("[relay]", "[realy]"))
    with system:
        system.wait_for("ActiveState", "failed")
        assert "smtpd_core.toml: realy: unknown setting; did you mean relay?" in system.said()
