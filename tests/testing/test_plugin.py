"""The fixtures under pytest: markers, transcripts of what failed, leftovers of the test before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SUITE = """
import pytest

@pytest.fixture
def broken(smtpd):
    smtpd.faults.on("RCPT", to="*@nobody.test").reply(550)
    with smtpd.client(hello="setup.test") as client:
        client.noop()
    raise RuntimeError("on purpose")

def test_fixture_fails(broken):
    pass

@pytest.mark.smtpd(tls="implicit")
class TestMarkers:
    @pytest.mark.smtpd(accounts={"ann": "x"})
    def test_they_add_up(self, smtpd):
        assert smtpd.tls == "implicit" and smtpd.accounts

@pytest.mark.smtpd("implicit")
def test_nameless(smtpd):
    pass

@pytest.mark.smtpd(tls="implicit")
def test_marked_session(smtpd_session):
    pass

def test_first(smtpd_session):
    with smtpd_session.client(hello="first.test") as client:
        client.noop()
    smtpd_session.settle()

@pytest.mark.smtpd(accounts={"ann": "un" "told"}, tls="maybe")
def test_wrong_option(smtpd):
    pass

@pytest.fixture(scope="module")
def application(smtpd_session_server):
    return {"MAIL_PORT": smtpd_session_server.port}

def test_wider_scope(application, smtpd_session):
    assert application["MAIL_PORT"] == smtpd_session.port

def test_second(smtpd_session):
    assert smtpd_session.transcript == ""
"""


def test_fixtures_say_what_is_wrong_and_start_afresh(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_SUITE)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "smtpd_core.testing.plugin", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "4 passed, 4 errors" in run.stdout, run.stdout
    assert "C: ehlo setup.test" in run.stdout  # the transcript of a test whose fixture failed
    assert "faults that have not acted" in run.stdout and "RCPT to=*@nobody.test\n" in run.stdout
    assert "options of the smtpd fixture: tls 'maybe': one of none, " in run.stdout and "untold" not in run.stdout
    assert "options have names" in run.stdout
    assert "takes its options from the ini file" in run.stdout
