"""Users, directories and files that the settings speak of: what is missing or forbidden is told before root is gone."""

from __future__ import annotations

import grp
import os
import pwd
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smtpd_core.app.permissions import ENTER, READ, WRITE, Permissions
from smtpd_core.app.sanity import faults
from smtpd_core.app.settings import EMBEDDED, Log, Relay, Settings, Tls

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that any user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def with_state(place: Path, **values: object) -> Settings:
    return replace(EMBEDDED, state=str(place / "state"), **values)  # type: ignore[arg-type]


def test_what_is_there_has_no_fault(place: Path) -> None:
    settings = with_state(place, pid_file=str(place / "pid"), log=Log(file=str(place / "log")))
    assert faults(settings) == []


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"user": "no-such-user"}, "user: there is no user 'no-such-user'"),
        ({"group": "no-such-group"}, "group: there is no group 'no-such-group'"),
        ({"pid_file": "/no/such/folder/pid"}, "pid_file: /no/such/folder/pid is not writable"),
        ({"pid_file": "/"}, "pid_file: / is a directory"),
        ({"log": Log(file="/no/such/folder/log")}, "log.file: /no/such/folder/log is not writable"),
    ],
)
def test_what_is_missing_is_told(values: dict[str, object], fault: str, place: Path) -> None:
    assert faults(with_state(place, **values)) == [fault]


@as_root
def test_a_state_of_another_user_is_told(place: Path) -> None:
    (place / "state").mkdir(mode=0o700)
    assert faults(with_state(place)) == []
    assert faults(with_state(place, user="nobody")) == [f"state: {place}/state is not writable for user nobody"]


@as_root
def test_a_key_that_only_root_reads_is_told(place: Path) -> None:
    key = place / "key.pem"
    key.touch(mode=0o600)
    settings = with_state(place, user="nobody", tls=Tls(certificate=str(key)))
    assert faults(settings) == [f"tls.certificate: {key}: not readable for user nobody"]
    key.chmod(0o644)
    assert faults(settings) == []
    place.chmod(0o700)
    assert f"tls.certificate: {key}: not readable for user nobody" in faults(settings), "nor in a closed directory"


@as_root
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o640, 0o604, 0o222, 0o755])
@pytest.mark.parametrize("owner", ["nobody", "root"])
def test_permissions_are_those_that_the_user_has(mode: int, owner: str, place: Path) -> None:
    """Asked of the system itself, in a process of that user."""
    file = place / "file"
    file.touch()
    entry = pwd.getpwnam(owner)
    os.chown(file, entry.pw_uid, entry.pw_gid)
    file.chmod(mode)
    for wanted in (READ, WRITE, ENTER, READ | WRITE):
        assert Permissions("nobody").allow(file, wanted) == tried(file, wanted), (oct(mode), owner, wanted)


@as_root
def test_a_password_for_the_smart_host_that_only_root_reads_is_told(place: Path) -> None:
    """It is read when root is gone: the check said yes, and the start failed."""
    file = place / "password"
    file.touch(mode=0o600)
    relay = Relay(enabled=True, smarthost="hub.test:587", smarthost_user="us", smarthost_password_file=str(file))
    settings = with_state(place, user="nobody", relay=relay)
    assert faults(settings) == [f"relay.smarthost_password_file: {file}: not readable for user nobody"]
    file.chmod(0o644)
    assert faults(settings) == []


@as_root
def test_a_group_of_the_settings_counts_instead_of_the_user_s_own(place: Path) -> None:
    """As life.py becomes it: the group that the password file gives the user is left."""
    key = place / "key.pem"
    key.touch(mode=0o640)
    given, own = grp.getgrnam("mail").gr_gid, pwd.getpwnam("nobody").pw_gid
    settings = with_state(place, user="nobody", group="mail", tls=Tls(certificate=str(key)))
    os.chown(key, 0, given)
    assert faults(settings) == []
    os.chown(key, 0, own)
    assert faults(settings) == [f"tls.certificate: {key}: not readable for user nobody"]


def tried(file: Path, wanted: int) -> bool:
    entry = pwd.getpwnam("nobody")
    process = os.fork()
    if process == 0:
        os.setgroups(os.getgrouplist("nobody", entry.pw_gid))
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        os._exit(0 if os.access(file, wanted) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
