"""Every setting at a reload: taken over by the running server, or named as one that needs a restart."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from smtpd_core.app.load import BadSettings
from smtpd_core.app.reloading import Restart, left_behind, restarts, within_reach
from smtpd_core.app.settings import Listener
from tests.app.daemon import DaemonProcess
from tests.app.reload_cases import CASES, OFFERED, STAFF, Case
from tests.app.running import begun, changed, furnish, keys, put_in, running

# These are for the process and not for its server: seen in a real daemon, below.
OF_THE_PROCESS = {"umask", "log.format", "log.level", "log.file", "log.transcript", "log.transcript_for"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, accounts and the like that the cases speak of."""
    return furnish(tmp_path_factory.mktemp("place"))


def test_every_setting_is_taken_over_or_needs_a_restart() -> None:
    taken, left = {case.key for case in CASES} | OF_THE_PROCESS, {one.key for one in restarts()}
    assert not taken & left
    assert set(keys()) == taken | left


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_reload_takes_over(case: Case, tmp_path: Path, place: Path) -> None:
    settings = begun(tmp_path, place, case.given)
    with running(settings, place) as there:
        assert case.seen(there) == case.before
        assert there.daemon.reload(changed(settings, case.key, put_in(case.value, place))) == []
        assert case.seen(there) == case.after
        assert there.daemon.reload(settings) == []
        assert case.seen(there) == case.before, "and back"


OTHER = {
    "threads.processes": 3,
    "threads.pin": True,
    "limits.return_circles": False,
    "relay.connections": 7,
    "listener.bind": "127.0.0.1:1",
    "metrics.bind": "127.0.0.1:2",
    "state": "elsewhere",
    "user": "nobody",
    "group": "nogroup",
    "pid_file": "pid",
    "core_dumps": True,
}


@pytest.mark.parametrize("restart", list(restarts()), ids=lambda one: one.key)
def test_what_needs_a_restart_is_named_and_stays(restart: Restart, tmp_path: Path, place: Path) -> None:
    old = begun(tmp_path, place)
    new = changed(changed(old, restart.key, OTHER[restart.key]), "limits.max_errors", 7)
    assert [one.key for one in left_behind(old, new)] == [restart.key]
    assert restart.reason
    assert within_reach(old, new) == changed(old, "limits.max_errors", 7)


def test_a_new_listener_needs_a_restart_and_the_others_follow(tmp_path: Path, place: Path) -> None:
    old = begun(tmp_path, place)
    first = replace(old.listener[0], service="lmtp")
    new = replace(old, listener=(Listener(bind="127.0.0.1:1"), first))
    assert [one.key for one in left_behind(old, new)] == ["listener.bind"]
    assert within_reach(old, new).listener == (first,)


def test_a_listener_gets_tls_and_logins_at_once(tmp_path: Path, place: Path) -> None:
    settings = begun(tmp_path, place, (("listener.tls", "none"),))
    wanted = begun(tmp_path, place, (("listener.tls", "explicit-require"), OFFERED, STAFF))
    with running(settings, place) as there:
        before = smtplib.SMTP(*there.address, timeout=20)
        before.ehlo("probe.test")
        assert there.daemon.reload(wanted) == []
        assert there.login("ann@our.test") == 235
        assert there.ask("MAIL FROM:<eve@far.test>") == [530]
        assert before.mail("eve@far.test")[0] == 250, "who came before has the rules of then"
        before.close()
        assert there.daemon.reload(settings) == []
        assert "starttls" not in there.features()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("accounts.store", "file:/no/such/users.toml", "accounts.store"),
        ("tls.certificate", "/no/such.pem", "/no/such.pem"),
        ("domains.aliases_file", "/no/such/aliases", "/no/such/aliases"),
        ("listener.auth", "offered", "listener 127.0.0.1:0"),
        ("listener.mechanisms", ("CRAM-MD5",), "CRAM-MD5"),
    ],
)
def test_what_can_not_be_served_changes_nothing(
    key: str, value: object, reason: str, tmp_path: Path, place: Path
) -> None:
    given = (STAFF, OFFERED) if key == "listener.mechanisms" else ()
    settings = begun(tmp_path, place, given)
    new = changed(changed(settings, "limits.max_recipients", 150), "domains.users", ("ann", "bob"))
    with running(settings, place) as there:
        shown = there.features()
        with pytest.raises((BadSettings, OSError, ValueError), match=reason):
            there.daemon.reload(changed(new, key, value))
        assert there.features() == shown
        assert there.rcpt("bob@our.test") == 550
        assert there.daemon.settings == settings


# -- the process


LISTENING = 'listener = [{ bind = "127.0.0.1:0" }]\n'


@contextmanager
def reloaded(tmp_path: Path, before: str, after: str) -> Iterator[DaemonProcess]:
    config = tmp_path / "smtpd.toml"
    config.write_text(LISTENING + before)
    with DaemonProcess(tmp_path / "state", "--config", str(config), listen="") as daemon:
        send(daemon)
        daemon.wait_for(1)
        config.write_text(LISTENING + after)
        daemon.signal(signal.SIGHUP)
        if "file" not in after:
            daemon.wait_for_log("reloaded")
        yield daemon


def send(daemon: DaemonProcess) -> None:
    with smtplib.SMTP(*daemon.address, timeout=20) as client:
        client.sendmail("eve@far.test", ["ann@our.test"], "Subject: x\r\n\r\n")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="this system does not tell a process's umask")
def test_the_umask_follows(tmp_path: Path) -> None:
    with reloaded(tmp_path, "", 'umask = "027"\n') as daemon:
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    assert re.search(r"^Umask:\t(\d+)$", status, re.M)[1] == "0027"  # type: ignore[index]


def test_the_form_of_the_log_follows(tmp_path: Path) -> None:
    with reloaded(tmp_path, "", '[log]\nformat = "json"\n') as daemon:
        lines = daemon.log.read_text().splitlines()
    assert " INFO app.cmd_serve serving" in lines[0]
    assert any(line.startswith("{") and json.loads(line)["message"] == "reloaded" for line in lines)


def test_the_level_of_the_log_follows(tmp_path: Path) -> None:
    with reloaded(tmp_path, "", '[log]\nlevel = "debug"\n') as daemon:
        assert "connected to mx" not in daemon.log.read_text()
        send(daemon)
        daemon.wait_for_log("connected to mx")


def test_the_file_of_the_log_follows(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    with reloaded(tmp_path, "", f'[log]\nfile = "{elsewhere}"\n') as daemon:
        daemon.log = elsewhere if elsewhere.exists() else daemon.log
        while not elsewhere.exists():
            send(daemon)
        daemon.log = elsewhere
        daemon.wait_for_log("reloaded")


@pytest.mark.parametrize("wanted", ["transcript = true", 'transcript_for = ["127.0.0.0/8"]'])
def test_transcripts_follow_and_end(wanted: str, tmp_path: Path) -> None:
    with reloaded(tmp_path, "", f"[log]\n{wanted}\n") as daemon:
        assert "C: ehlo" not in daemon.log.read_text()
        send(daemon)
        daemon.wait_for_log("C: ehlo")
        (tmp_path / "smtpd.toml").write_text(LISTENING)
        daemon.signal(signal.SIGHUP)
        while daemon.log.read_text().count("reloaded") < 2:
            pass
        shown = daemon.log.read_text().count("C: ehlo")
        send(daemon)
        daemon.wait_for(3)
        assert daemon.log.read_text().count("C: ehlo") == shown
