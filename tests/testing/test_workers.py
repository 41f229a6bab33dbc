"""The sample suites pass, one after the other and with eight workers at once; a failed test shows its transcript."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import smtpd_core.testing.server  # noqa: F401 (pytester forgets what is imported within a run)

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "docs" / "examples" / "testing"


def run_pytest(*arguments: str, folder: Path) -> str:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "smtpd_core.testing.plugin", "-p", "no:cacheprovider"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    settings.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [*words, "--rootdir", str(folder), "-c", os.devnull, *arguments],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=110,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("sample", "count"), [("django_like", 4), ("flask_like", 4), ("django", 5), ("flask_mail", 2), ("celery", 3)]
)
def test_a_sample_suite_passes(sample: str, count: int) -> None:
    said = run_pytest(str(SAMPLES / sample), folder=SAMPLES / sample)
    assert f"{count} passed" in said, said


def test_eight_workers_never_collide(tmp_path: Path) -> None:
    (tmp_path / "test_many.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(80))\n"
        "def test_own_server(smtpd, smtpd_session, n):\n"
        "    for server in (smtpd, smtpd_session):\n"
        "        with server.client() as client:\n"
        "            client.sendmail('a@a.test', [f'{n}@b.test'], 'Subject: x\\r\\n\\r\\nx\\r\\n')\n"
        "        assert server.inbox.wait_for().recipients == [f'{n}@b.test']\n"
        "        assert len(server.inbox) == 1\n"
    )
    assert "80 passed" in run_pytest("-n", "8", folder=tmp_path)


def test_a_failed_test_shows_the_dialogue_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "test_fails.py").write_text(
        "import pytest\n"
        "@pytest.mark.smtpd(accounts={'ann': 'hunter22'})\n"
        "def test_fails(smtpd):\n"
        "    with smtpd.client(hello='first.test') as client:\n"
        "        client.mail('a@a.test')\n"
        "    smtpd.settle()\n"
        "    still_open = smtpd.client(hello='second.test')\n"
        "    still_open.mail('c@a.test')\n"
        "    raise ValueError\n"
    )
    said = run_pytest("--tb=short", folder=tmp_path)
    assert "smtpd transcript" in said and re.search(r"(?i)C: mail FROM:<a@a\.test>", said)
    assert re.search(r"(?is)C: ehlo second\.test.*C: mail FROM:<c@a\.test>.*-- open", said)
    assert "hunter22" not in said and "aHVudGVyMjI" not in said


INI = """[pytest]
smtpd_tls = starttls
smtpd_accounts = ann:se:cret
smtpd_auth = required
smtpd_without = DSN ETRN
smtpd_options =
    max_data_size = 1000
    server_name = "ini.test"
"""

SUITE = """
import pytest

def test_ini(smtpd, smtpd_session):
    for server in (smtpd, smtpd_session):
        with server.client() as client:
            client.sendmail("a@a.test", ["b@b.test"], "Subject: x\\r\\n\\r\\nx\\r\\n")
            assert client.esmtp_features["size"] == "1000" and not client.has_extn("dsn")
            assert client.ehlo_resp.startswith(b"ini.test")
        assert server.inbox.wait_for(user="ann").envelope.origin.tls

@pytest.mark.smtpd(tls="none", max_data_size=2000)
def test_a_marker_goes_before_it(smtpd):
    assert smtpd.tls == "none" and smtpd.client().esmtp_features["size"] == "2000"

@pytest.mark.smtpd(tls="none", without=())
def test_a_keyword_goes_before_both(smtpd, smtpd_factory):
    other = smtpd_factory(tls="implicit")
    assert (other.tls, other.port != smtpd.port) == ("implicit", True)
    with other.client() as client:
        assert client.has_extn("dsn") and client.esmtp_features["size"] == "1000"
"""


def test_options_come_from_ini_file_marker_and_keyword(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_ini.py").write_text(SUITE)
    said = run_pytest("-c", str(tmp_path / "pytest.ini"), folder=tmp_path)
    assert "3 passed" in said, said


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("smtpd_accounts = ann", "smtpd_accounts: 'ann': NAME:VALUE is due"),
        ("smtpd_options = max_data_size", "'max_data_size': NAME=VALUE is due"),
        ("smtpd_options = max_data_size = much", "'much' is no value as Python writes it"),
        ("smtpd_options = max_data = 1", "max_data"),
        ("smtpd_tls = maybe", "one of none, starttls, starttls-required, implicit is due"),
    ],
)
def test_a_wrong_setting_is_named(line: str, complaint: str, pytester: pytest.Pytester) -> None:
    pytester.makeini(f"[pytest]\n{line}\n")
    pytester.makepyfile("def test_it(smtpd): pass")
    result = pytester.runpytest_inprocess("-p", "smtpd_core.testing.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    assert complaint in result.stdout.str()
