"""Commands that only look: mx, trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smtpd_core.app.cli import main

LOG = """\
2026-01-01T00:00:00.000Z INFO app.cmd_serve serving, process 1
2026-01-01T00:00:01.000Z DEBUG transcript s-1a-1 C: EHLO probe
2026-01-01T00:00:02.000Z INFO app.keeping m-AAAAAAAAAAAAAAA: s-1a-1 from <a@b.test> to <c@d.test>, 9 bytes
2026-01-01T00:00:03.000Z DEBUG transcript s-1a-12 C: EHLO other
2026-01-01T00:00:04.000Z INFO app.keeping m-BBBBBBBBBBBBBBB: s-1a-1 from <a@b.test> to <c@d.test>, 9 bytes
{"time": "2026-01-01T00:00:05.000Z", "level": "info", "room": "relay", "message": "d-AAAAAAAAAAAAAAA: delivered"}
2026-01-01T00:00:06.000Z INFO relay.dispatcher d-BBBBBBBBBBBBBBB: delivered to c@d.test
"""


@pytest.mark.parametrize(
    ("id", "seconds"),
    [
        ("AAAAAAAAAAAAAAA", "1 2 5"),
        ("m-AAAAAAAAAAAAAAA", "1 2 5"),
        ("s-1a-1", "1 2 4 5 6"),
        ("s-1a-12", "3"),
    ],
)
def test_a_story_has_all_of_its_lines_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], id: str, seconds: str
) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    assert main(["trace", "--log", str(log), id]) == 0
    said = capsys.readouterr().out.splitlines()
    assert " ".join(line[18] for line in said) == seconds


def test_no_story_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    assert main(["trace", "--log", str(log), "CCCCCCCCCCCCCCC"]) == 1
    assert "nothing about" in capsys.readouterr().err


def test_mx_of_a_smart_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "smtpd.toml"
    config.write_text('[[listener]]\n[relay]\nenabled = true\nsmarthost = "127.0.0.1:2526"\n')
    assert main(["mx", "--config", str(config), "far.test"]) == 0
    said = capsys.readouterr().out
    assert "far.test goes to smtp:127.0.0.1:2526" in said and "1. 127.0.0.1[127.0.0.1]:2526" in said


def test_mx_of_a_domain_of_ours_is_a_mailbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "smtpd.toml"
    config.write_text('[[listener]]\n[domains."our.test"]\ndeliver = "lmtp:127.0.0.1:24"\n')
    assert main(["mx", "--json", "--config", str(config), "ann@our.test"]) == 0
    assert json.loads(capsys.readouterr().out)["hops"] == ["127.0.0.1[127.0.0.1]:24 (TLS none)"]


def test_mx_without_an_answer_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mx", "--dns-server", "127.0.0.1:1", "far.test"]) == 1
    assert "no way:" in capsys.readouterr().err
