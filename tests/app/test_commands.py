"""Every command of the three programs: help with an example that works, exit codes, and JSON for machines."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import certs.__main__
import relay.__main__
from relay.mail import Body, Message, Recipient, Stop
from relay.queue_sqlite import SqliteQueue
from smtpd_core.app import cli
from smtpd_core.app.cli import available, parser_of
from smtpd_core.testing import TestServer
from smtpd_core.wire.envelope import Envelope, MailParameters, Origin

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NOW = 1_000_000.0

MAINS: dict[str, Callable[[list[str]], int]] = {
    "smtpd_core": cli.main,
    "relay": relay.__main__.main,
    "certs": certs.__main__.main,
}


def verbs_of(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    """The words of every verb below a parser; [] where it has none."""
    inner = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not inner:
        yield []
    for name, sub in inner[0].choices.items() if inner else ():
        for words in verbs_of(sub):
            yield [name, *words]


def all_verbs() -> list[tuple[str, ...]]:
    found = [("smtpd_core", command.name, *words) for command in available() for words in verbs_of(parser_of(command))]
    found += [("relay", "mx"), ("relay", "schedule")]
    return found + [("certs", *words) for words in verbs_of(certs.__main__._parser())]


def called(words: tuple[str, ...] | list[str]) -> int:
    """The exit code of `python -m PROGRAM WORD...`."""
    try:
        return MAINS[words[0]](list(words[1:]))
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("verb", all_verbs(), ids=" ".join)
def test_a_verb_helps_with_an_example_that_its_parser_takes(
    verb: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called([*verb, "--help"]) == 0
    said = capsys.readouterr().out
    (_, examples) = said.split("\nexample:\n")
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, and_no_further(getattr(argparse.ArgumentParser, name)))
    for line in examples.strip().splitlines():
        words = shlex.split(line.partition(">")[0])
        assert words[:3] == ["python", "-m", verb[0]]
        assert words[3 : 2 + len(verb)] == list(verb[1:])
        assert called(words[2:]) == 0, capsys.readouterr().err


def and_no_further(parse: Callable[..., object]) -> Callable[..., object]:
    def end(*arguments: object) -> object:
        parse(*arguments)
        raise SystemExit(0)

    return end


CODES = (
    ("smtpd_core --version", 0),
    ("smtpd_core srve", 2),
    ("smtpd_core serve --config no.toml", 2),
    ("smtpd_core serve --listen nonsense", 2),
    ("smtpd_core serve --prot 25", 2),
    ("smtpd_core check", 2),
    ("smtpd_core check --config no.toml", 2),
    ("smtpd_core check --config bad.toml --json", 2),
    ("smtpd_core check --config good.toml", 0),
    ("smtpd_core reference", 0),
    ("smtpd_core user list", 2),
    ("smtpd_core user list --store file:users.toml --config good.toml", 2),
    ("smtpd_core user add --store file:users.toml", 2),
    ("smtpd_core user add --store file:users.toml ann", 2),
    ("smtpd_core user add --store nonsense: bob", 2),
    ("smtpd_core user passwd --store file:users.toml eve", 2),
    ("smtpd_core user check --store file:users.toml ann", 0),
    ("smtpd_core user check --store file:users.toml eve", 1),
    ("smtpd_core user list --config good.toml", 2),
    ("smtpd_core queue", 2),
    ("smtpd_core queue list --state nowhere", 1),
    ("smtpd_core queue list --state state", 0),
    ("smtpd_core queue list --state state --older never", 2),
    ("smtpd_core queue list --state state --limit 0", 2),
    ("smtpd_core queue show --state state M9", 1),
    ("smtpd_core queue cat --state state M9", 1),
    ("smtpd_core queue hold --state state", 2),
    ("smtpd_core queue hold --state state --all M1", 2),
    ("smtpd_core queue hold --state state M1", 0),
    ("smtpd_core queue hold --state state M9", 1),
    ("smtpd_core queue check --state state", 0),
    ("smtpd_core send --to a@b.test --server nonsense", 2),
    ("smtpd_core send --to a@b.test --server 127.0.0.1:1 letter.eml", 1),
    ("smtpd_core send --to a@b.test no.eml", 1),
    ("smtpd_core send letter.eml", 2),
    ("smtpd_core mx --dns-server 127.0.0.1:1 far.test", 1),
    ("smtpd_core mx --config no.toml far.test", 2),
    ("smtpd_core trace --log smtpd.log s-1a-1", 0),
    ("smtpd_core trace --log smtpd.log s-9z-9", 1),
    ("smtpd_core trace --log no.log s-1a-1", 1),
    ("smtpd_core trace --log smtpd.log ../../etc", 2),
    ("smtpd_core top nonsense", 2),
    ("smtpd_core top 127.0.0.1:1", 1),
    ("smtpd_core conform nonsense", 2),
    ("smtpd_core conform 192.0.2.1:25", 2),
    ("smtpd_core replay --server 127.0.0.1:1 no.txt", 2),
    ("smtpd_core replay --server nonsense smtpd.log", 2),
    ("smtpd_core completion fish", 2),
    ("smtpd_core completion bash", 0),
    ("relay", 2),
    ("relay mx --dns-server 127.0.0.1:1 far.test", 75),
    ("relay mx --smarthost 127.0.0.1:25 far.test", 0),
    ("relay schedule --expire soon", 2),
    ("relay schedule", 0),
    ("certs", 2),
    ("certs show no.pem", 2),
    ("certs self-signed mx.test --days 0", 2),
    ("certs self-signed mx.test --key-type ec-p256", 0),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with what the calls name; a password waits on standard input."""
    monkeypatch.chdir(tmp_path)
    Path("good.toml").write_text('listener = [{ bind = "127.0.0.1:0" }]\nstate = "state"\n')
    Path("bad.toml").write_text("[[listener]]\nauht = 'off'\n")
    Path("letter.eml").write_text("Subject: x\n\nx\n")
    Path("smtpd.log").write_text(
        "2026-01-01T00:00:00.000Z INFO app.keeping m-AAAAAAAAAAAAAAA: s-1a-1 from <a@b.test>\n"
    )
    Path("session.txt").write_text("S: 220 mx.test ready\nC: NOOP\nS: 250 2.0.0 OK\nC: QUIT\nS: 221 2.0.0 Bye\n")
    Path("state").mkdir()
    queue = SqliteQueue(tmp_path / "state" / "queue.db")
    envelope = Envelope("bob@here.test", (Recipient("ann@far.test"),), MailParameters(), Origin(), NOW)
    stop = Stop(0, envelope.recipients[0], "mx:far.test")
    queue.add([(Message("M1", envelope, b"Received: x\r\n", Body(6, b"hello\n")), [stop])], "s", 1, NOW)
    queue.close()
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    assert cli.main(["user", "add", "--store", "file:users.toml", "ann"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    return tmp_path


@pytest.mark.parametrize(("call", "code"), CODES, ids=[call for call, _ in CODES])
def test_exit_codes(call: str, code: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 done, 1 it did not work, 2 the call or the configuration is wrong; what is wrong is on standard error."""
    capsys.readouterr()
    assert called(shlex.split(call)) == code
    said = capsys.readouterr()
    assert (said.err if code == 2 and "--json" not in call else said.out + said.err).strip()
    assert "Traceback" not in said.err


JSON = (
    "smtpd_core check --config good.toml",
    "smtpd_core check --config bad.toml",
    "smtpd_core reference",
    "smtpd_core user add --store file:users.toml bob",
    "smtpd_core user passwd --store file:users.toml ann",
    "smtpd_core user list --store file:users.toml",
    "smtpd_core user check --store file:users.toml",
    "smtpd_core user check --store file:users.toml ann",
    "smtpd_core user del --store file:users.toml ann",
    "smtpd_core queue list --state state",
    "smtpd_core queue show --state state M1",
    "smtpd_core queue retry --state state M1",
    "smtpd_core queue hold --state state --all",
    "smtpd_core queue release --state state --all",
    "smtpd_core queue delete --state state M1",
    "smtpd_core queue stats --state state",
    "smtpd_core queue check --state state",
    "smtpd_core send --to a@b.test --to c@d.test --server SERVER letter.eml",
    "smtpd_core mx --dns-server 127.0.0.1:1 far.test",
    "smtpd_core trace --log smtpd.log s-1a-1",
    "smtpd_core conform SERVER",
    "smtpd_core replay --server SERVER session.txt",
    "relay mx --smarthost 127.0.0.1:25 far.test",
    "relay mx --dns-server 127.0.0.1:1 far.test",
    "relay schedule",
    "certs self-signed mx.test --key-type ec-p256",
    "certs list",
    "certs show no.pem",
)


@pytest.mark.parametrize("call", JSON)
def test_with_json_all_that_is_said_is_json(call: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One value, or one object a line."""
    capsys.readouterr()
    with TestServer() as server:
        called(shlex.split(call.replace("SERVER", f"{server.host}:{server.port}")) + ["--json"])
    said = capsys.readouterr().out
    assert said.strip()
    try:
        json.loads(said)
    except ValueError:
        assert all(isinstance(json.loads(line), dict) for line in said.splitlines())


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("smtpd_core serve --config ''", "--config"),
        ("smtpd_core check --config ''", "--config"),
        ("smtpd_core queue delete --all --state ''", "--state"),
        ("smtpd_core user list --config ''", "--config"),
        ("smtpd_core trace --log '' AAAAAAAAAAAAAAA", "--log"),
        ("relay mx --port 99999 far.test", "99999"),
        ("relay mx --port -1 far.test", "-1"),
        ("relay mx ''", "domain"),
        ("relay schedule --delay-warning nan", "delay_warning"),
        ("relay schedule --delay-warning=-1", "delay_warning"),
        ("certs tlsa --port 0 chain.pem", "--port"),
    ],
)
def test_a_value_that_means_nothing_is_refused(line: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty path was none given, so that "$UNSET" served the defaults, or emptied the queue of the default state."""
    assert called(shlex.split(line)) == 2
    said = capsys.readouterr()
    assert named in said.err and said.out == ""
