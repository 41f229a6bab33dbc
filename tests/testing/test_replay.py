"""A recorded session can be played again, against any server."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpd_core.app.cli import main
from smtpd_core.testing import TestServer


@pytest.fixture
def recorded(smtpd: TestServer, tmp_path: Path) -> Path:
    with smtpd.client() as client:
        client.sendmail("a@a.test", ["b@b.test"], "Subject: x\r\n\r\nx\r\n")
    smtpd.settle()
    path = tmp_path / "session.txt"
    path.write_text(smtpd.transcript)
    return path


def test_the_same_session_has_the_same_replies(
    smtpd: TestServer, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--server", f"{smtpd.host}:{smtpd.port}", str(recorded)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("same     (connect): 220") and "differs" not in said
    assert len(smtpd.inbox) == 2


def test_a_reply_that_differs_is_shown(smtpd: TestServer, recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smtpd.faults.on("RCPT").reply(451)
    assert main(["replay", "--server", f"{smtpd.host}:{smtpd.port}", str(recorded)]) == 1
    assert "recorded 250, now 451" in capsys.readouterr().out


def test_a_masked_login_is_no_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "session.txt"
    path.write_text("S: 220 x\nC: AUTH PLAIN ****\nS: 235 ok\n")
    assert main(["replay", str(path)]) == 2
    assert "line 2" in capsys.readouterr().err


def test_a_file_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "/nowhere/session.txt"]) == 2
    assert "/nowhere/session.txt" in capsys.readouterr().err
