"""The sample suites pass, one after the other and with eight workers at once; a failed test shows its transcript."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
        "    with smtpd.client() as client:\n"
        "        client.mail('a@a.test')\n"
        "    smtpd.settle()\n"
        "    raise ValueError\n"
    )
    said = run_pytest("--tb=short", folder=tmp_path)
    assert "smtpd transcript" in said and re.search(r"(?i)C: mail FROM:<a@a\.test>", said)
    assert "hunter22" not in said


def test_options_come_from_the_ini_file_too(tmp_path: Path) -> None:
    ini = tmp_path / "pytest.ini"
    ini.write_text("[pytest]\nsmtpd_tls = starttls\nsmtpd_accounts = ann:secret\nsmtpd_auth = required\n")
    (tmp_path / "test_ini.py").write_text(
        "def test_ini(smtpd):\n"
        "    with smtpd.client() as client:\n"
        "        client.sendmail('a@a.test', ['b@b.test'], 'Subject: x\\r\\n\\r\\nx\\r\\n')\n"
        "    assert smtpd.inbox.wait_for(user='ann').envelope.origin.tls\n"
    )
    assert "1 passed" in run_pytest("-c", str(ini), folder=tmp_path)
