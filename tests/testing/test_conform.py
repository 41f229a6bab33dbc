"""Our own server keeps every rule and withstands every attack; so do other servers, but for what is known of them; and
a server that breaks a rule is found out."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from certs.files import write_pair
from smtpd_core.app.cli import main
from smtpd_core.testing import TestServer
from smtpd_core.testing.attacks import ATTACKS, Attack, too_much_content
from smtpd_core.testing.certificates import Certificates
from smtpd_core.testing.conform import Finding, findings, play
from smtpd_core.testing.probe import Broken, Target
from smtpd_core.testing.rules import RULES, Rule
from smtpd_core.wire.sasl.client import Credentials
from tests.support.meddler import Meddler
from tests.support.naive import FAULTS, Naive
from tests.support.peer import ScriptedPeer
from tests.support.postfix import Postfix

SIZE = 200_000


@pytest.fixture(scope="module")
def ours() -> Iterator[Target]:
    with TestServer(tls="starttls", accounts={"ann": "secret"}, max_data_size=SIZE) as server:
        yield Target(server.host, server.port, to="b@b.test")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    paths = (folder / "certificate.pem", folder / "key.pem")
    write_pair(Certificates("localhost").pair("good"), *paths)
    return paths


@pytest.fixture(scope="module")
def context(pair: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


def broken(target: Target) -> dict[str, str]:
    return {one.rule: one.why for one in findings(target) if one.passed is False}


# Our own server


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_our_server_keeps_each_rule(rule: Rule, ours: Target) -> None:
    assert play(rule, ours) is True


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_our_server_withstands_each_attack(attack: Attack, ours: Target) -> None:
    assert attack.run(ours) is True


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_our_server_keeps_every_rule_under_tls_with_a_login(tls: str) -> None:
    mode = "starttls-required" if tls == "starttls" else tls
    with TestServer(tls=mode, accounts={"ann": "secret"}, auth="required", max_data_size=SIZE) as server:
        target = Target(server.host, server.port, tls=tls, credentials=Credentials("ann", "secret"))
        assert broken(target) == {}


# Others, and what is known of them

AIOSMTPD = {
    "HELP is answered",  # 250 instead of 214
    "a path without brackets' end is refused",
    "a non-ASCII address wants SMTPUTF8",
    "an address that is no UTF-8 is refused",
    "a second STARTTLS is refused",
    "HTTP gets nowhere",
    "a bare LF ends no command",
}

POSTFIX = {
    "MAIL comes after the greeting of the client",
    "a non-ASCII address wants SMTPUTF8",
    "a bare LF ends no command",
}

# Postfix before its bare line ends were forbidden: what "SMTP smuggling" was about.
SMUGGLED = {
    "LF.LF ends no message",
    "LF.CRLF ends no message",
    "CRLF.LF ends no message",
    "LF.LF in single octets ends no message",
}


class _Taking:
    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        return "250 taken"


@pytest.mark.filterwarnings("ignore")
def test_aiosmtpd_is_found_to_be_what_it_is(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_exception_handler", lambda self, context: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(_Taking(), hostname="127.0.0.1", port=port, tls_context=context)
    controller.start()
    try:
        found = broken(Target("127.0.0.1", port, patience=3))
    finally:
        controller.stop()
    assert {"a bare LF ends no command", "HTTP gets nowhere"} <= set(found) <= AIOSMTPD, found


@pytest.mark.debian("postfix")
@pytest.mark.parametrize(("forbidden", "known"), [("no", POSTFIX | SMUGGLED), ("yes", POSTFIX)])
def test_postfix_is_found_to_be_what_it_is(forbidden: str, known: set[str], pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    with Postfix(
        smtpd_tls_security_level="may",
        smtpd_tls_cert_file=str(certificate),
        smtpd_tls_key_file=str(key),
        smtpd_client_connection_count_limit="0",
        smtpd_error_sleep_time="0",
        smtpd_forbid_bare_newline=forbidden,
        smtpd_forbid_bare_newline_exclusions="",
    ) as postfix:
        assert set(broken(Target("127.0.0.1", postfix.port, to="bob@there.test"))) == known


# Servers that break a rule


@pytest.mark.parametrize("rule", [rule for rule in RULES if "TLS" not in rule.script.split()], ids=lambda one: one.name)
def test_each_rule_is_broken_by_a_server_with_another_last_reply(rule: Rule, ours: Target) -> None:
    replies = sum(line.startswith("S: ") and line != "S: closed" for line in rule.script.split("\n"))
    before = 0 if rule.script.startswith("S:") else 1 if rule.needs == "no hello" else 2
    with Meddler(ours.port, before + replies - 1) as meddler, pytest.raises(Broken, match="got 199"):
        play(rule, Target("127.0.0.1", meddler.port, to=ours.to, patience=3))


@pytest.mark.parametrize("rule", [rule for rule in RULES if "TLS" in rule.script.split()], ids=lambda one: one.name)
def test_each_rule_of_tls_is_broken_by_a_server_that_has_none(rule: Rule, context: ssl.SSLContext) -> None:
    with TestServer(tls="starttls") as server:
        server.faults.on("HANDSHAKE").close()
        with pytest.raises((Broken, OSError)):
            play(rule, Target(server.host, server.port, patience=3))


# Attack, and what a server has to do wrong to fall to it.
FALLS = {
    **{attack.name: "any dot" for attack in ATTACKS if attack.name.endswith("ends no message")},
    "nothing before TLS is answered under it": "keeps the buffer",
    "the client's greeting does not outlast STARTTLS": "remembers the greeting",
    "a transaction does not outlast STARTTLS": "remembers",
    "a failed handshake is not followed by plain text": "falls back",
    "HTTP gets nowhere": "endless patience",
    "endless mistakes end the session": "endless patience",
    "more content than announced is refused": "any size",
    "silent clients hold up nobody": "one at a time",
    "clients within a command hold up nobody": "one at a time",
    "a command in single octets is a command": "no pieces",
    "a client that half-closes gets its replies": "drops on half-close",
    "a bare LF ends no command": "any line end",
    "a bare CR ends no command": "any line end",
    "a NUL is in no command": "NUL is a line end",
    "a percent-hack address is answered": "silent at odd addresses",
    "a bang path is answered": "silent at odd addresses",
    "a source route is answered": "silent at odd addresses",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_each_attack_finds_the_server_that_falls_to_it(attack: Attack, context: ssl.SSLContext) -> None:
    with Naive(FALLS[attack.name], tls=context) as server, pytest.raises((Broken, OSError)):
        attack.run(Target("127.0.0.1", server.port, patience=0.5))


def test_a_simple_server_without_those_faults_withstands_them_all(context: ssl.SSLContext) -> None:
    with Naive(tls=context) as server:
        target = Target("127.0.0.1", server.port, patience=5)
        assert [one.name for one in ATTACKS if one.run(target) is False] == []
    assert set(FALLS.values()) == set(FAULTS)


def test_a_server_that_stalls_is_found_out(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT").stall()
    rule = next(one for one in RULES if one.name == "a message is accepted")
    with pytest.raises(Broken, match=r"no reply within 0\.2 s"):
        play(rule, Target(smtpd.host, smtpd.port, patience=0.2))


# The command


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


def test_the_table_ends_with_a_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SMTPD_PASSWORD", "secret")
    with TestServer(tls="implicit", accounts={"ann": "secret"}, auth="required") as server:
        assert main(["conform", f"127.0.0.1:{server.port}", "--tls", "implicit", "--user", "ann"]) == 0
    said = capsys.readouterr().out
    assert "ok           RFC 5321 3.1         the banner is 220" in said
    assert ", 0 broken, " in said.splitlines()[-1]


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
        found = list(findings(Target("127.0.0.1", silent.getsockname()[1])))
    assert [one.passed for one in found] == [False]


# Servers that mean harm


ENDLESS = {
    "a line": "-- say 220-" + "x" * 100_000 + "\n-- hang",
    "lines": "S: 220-x\n" * 20_000 + "-- hang",
    "octets now and then": "-- drip 2",
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
def test_a_reply_that_never_ends_is_not_waited_for(script: str) -> None:
    """Each octet began the wait anew, and all of them were kept."""
    with ScriptedPeer(script) as peer:
        [found] = findings(Target("127.0.0.1", peer.port, patience=0.5))
    assert found.passed is False
    assert re.match(r"a reply of more than 65536 octets|no reply within 0\.5 s", found.why)


def test_what_a_server_says_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedPeer("-- say \\x1b]0;mine\\x07\\r\\n") as peer:
        assert main(["conform", f"127.0.0.1:{peer.port}"]) == 1
    assert "\\x1b]0;mine" in capsys.readouterr().out


def test_a_size_of_a_thousand_digits_is_no_limit() -> None:
    with ScriptedPeer(f"S: 220 x\nC: EHLO\nS: 250-x\nS: 250 SIZE {'9' * 5000}") as peer:
        assert too_much_content(Target("127.0.0.1", peer.port)) is None


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("command", [["conform", "127.0.0.1:25"], ["replay", "session.txt"]], ids=lambda one: one[0])
def test_a_time_that_is_none_is_a_wrong_call(command: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--timeout", text])
    assert f"'{text}': seconds above 0 are due" in capsys.readouterr().err
