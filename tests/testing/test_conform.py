"""Our own server passes every rule and withstands every attack; a server that breaks one is found out."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from smtpd_core.app.cli import main
from smtpd_core.testing import TestServer
from smtpd_core.testing.attacks import ATTACKS
from smtpd_core.testing.conform import Finding, findings, play
from smtpd_core.testing.probe import Broken
from smtpd_core.testing.rules import RULES


@pytest.fixture(scope="module")
def ours() -> TestServer:
    server = TestServer(tls="starttls", accounts={"ann": "secret"}).start()
    yield server  # type: ignore[misc]
    server.stop(0.5)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_our_server_keeps_each_rule(rule: object, ours: TestServer) -> None:
    assert play(rule, ours.host, ours.port, "a@a.test", "b@b.test") is True  # type: ignore[arg-type]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_our_server_withstands_each_attack(attack: object, ours: TestServer) -> None:
    assert attack.run(ours.host, ours.port, "a@a.test", "b@b.test") is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("CONNECT reply 250", "the banner is 220"),
        ("QUIT reply 250", "QUIT is answered and closes"),
        ("content reply 451", "a message is accepted"),
        ("NOOP close", "NOOP takes an argument"),
        ("RCPT stall", "a message is accepted"),
        ("RSET send nonsense", "RSET ends a transaction"),
    ],
)
def test_a_server_that_breaks_a_rule_is_found_out(smtpd: TestServer, fault: str, rule: str) -> None:
    smtpd.faults.add(fault)
    found = next(one for one in RULES if one.name == rule)
    with pytest.raises(Broken, match=r"expected|no reply"):
        _impatient(found, smtpd)


def _impatient(rule: object, smtpd: TestServer) -> None:
    import smtpd_core.testing.conform as conform

    probe = conform.Probe.__init__
    conform.Probe.__init__ = lambda self, host, port: probe(self, host, port, 0.3)  # type: ignore[method-assign,misc,assignment]
    try:
        play(rule, smtpd.host, smtpd.port, "a@a.test", "b@b.test")  # type: ignore[arg-type]
    finally:
        conform.Probe.__init__ = probe  # type: ignore[method-assign]


def test_the_report_is_json_a_rule_and_the_exit_code_tells(
    smtpd: TestServer, capsys: pytest.CaptureFixture[str]
) -> None:
    smtpd.faults.on("NOOP").reply(251)
    code = main(["conform", f"127.0.0.1:{smtpd.port}", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 1
    assert len(rows) == len(RULES) + len(ATTACKS)
    assert {row["rule"] for row in rows if row["passed"] is False} >= {"NOOP takes an argument"}
    assert set(rows[0]) == set(Finding.__dataclass_fields__)


def test_a_server_beyond_loopback_needs_a_word_of_its_owner(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "192.0.2.1:25"]) == 2
    assert "--i-own-this" in capsys.readouterr().err


def test_it_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "conform", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "example:" in done.stdout


def test_a_port_where_nobody_answers_is_one_finding() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        found = list(findings("127.0.0.1", silent.getsockname()[1], "a@a.test", "b@b.test"))
    assert [one.passed for one in found] == [False]
