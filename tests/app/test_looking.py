"""Commands that only look: mx, trace."""

from __future__ import annotations

import json
import logging
import re
import smtplib
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from smtpd_core.app.cli import main
from smtpd_core.app.logs import FORMS
from tests.app.daemon import ROOT, DaemonProcess
from tests.app.terminals import OnTerminal

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


TROUBLE = """\
2026-01-01T00:00:00.000Z ERROR server.house s-1a-1: on_mail_from failed
Traceback (most recent call last):
  File "policy.py", line 1, in <module>
ValueError: no policy
2026-01-01T00:00:01.000Z INFO app.cmd_serve reloaded
"""


def test_a_traceback_belongs_to_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(TROUBLE)
    assert main(["trace", "--log", str(log), "s-1a-1"]) == 0
    assert capsys.readouterr().out == TROUBLE.partition("2026-01-01T00:00:01")[0]


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_strangers_said_can_not_command_the_terminal(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log in JSON keeps what was said, and so does one that another program wrote."""
    said = "s-1a-1: said \x1b[2Jgone \x9b2J"
    entry = {"time": "2026-01-01T00:00:00.000Z", "level": "info", "room": "server", "message": said}
    text = f"2026-01-01T00:00:00.000Z INFO server {said}"
    log = tmp_path / "log"
    log.write_text((json.dumps(entry) if form == "json" else text) + "\n")
    assert main(["trace", "--log", str(log), "s-1a-1"]) == 0
    assert capsys.readouterr().out.endswith(r" INFO server s-1a-1: said \x1b[2Jgone \x9b2J" + "\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_form_of_the_log_commands_a_terminal(form: str) -> None:
    record = logging.makeLogRecord({"name": "smtpd_core.server", "msg": "said \x1b[2J \x9b2J \x7f"})
    line = FORMS[form].format(record)
    assert line.isprintable()
    assert form == "text" or json.loads(line)["message"] == "said \x1b[2J \x9b2J \x7f"


def test_logs_of_several_files_and_processes_are_put_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = LOG.splitlines(keepends=True)
    older, newer = tmp_path / "log.1", tmp_path / "log"
    older.write_text("".join(reversed(lines[:4])))
    newer.write_text("".join(lines[4:]))
    assert main(["trace", "--log", str(newer), "--log", str(older), "AAAAAAAAAAAAAAA"]) == 0
    assert [line[18] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "5"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stranger_that_names_a_message_of_another_is_no_part_of_its_story(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever knew an id could have a whole session of his own shown as that message's."""
    said = [
        "m-AAAAAAAAAAAAAAA: s-1a-1 from <a@b.test> to <c@d.test>, 9 bytes",
        "s-1a-1 S: 250 2.0.0 Ok: queued as AAAAAAAAAAAAAAA",
        "s-9f-1 C: EHLO AAAAAAAAAAAAAAA",
        "s-9f-1 C: NOOP S: 250 2.0.0 Ok: queued as AAAAAAAAAAAAAAA",
        "m-BBBBBBBBBBBBBBB: s-9f-1 from <m-AAAAAAAAAAAAAAA@b.test> to <s-1a-1@d.test>, 9 bytes",
        "d-BBBBBBBBBBBBBBB: failed to m-AAAAAAAAAAAAAAA@d.test by mx:d.test: 550 5.1.1 no d-AAAAAAAAAAAAAAA here",
        "s-9f-1: 'm-AAAAAAAAAAAAAAA' is gone",
        "d-AAAAAAAAAAAAAAA: delivered to c@d.test by maildir:mail",
    ]
    records = [
        logging.makeLogRecord({"name": "smtpd_core.server", "msg": line, "created": n}) for n, line in enumerate(said)
    ]
    log = tmp_path / "log"
    log.write_text("".join(FORMS[form].format(record) + "\n" for record in records))
    for id in ("AAAAAAAAAAAAAAA", "s-1a-1"):
        assert main(["trace", "--log", str(log), id]) == 0
        told = capsys.readouterr().out.splitlines()
        assert [line.partition(" server ")[2] for line in told] == [said[0], said[1], said[7]]


def test_what_an_exception_says_begins_no_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reply or an address in it could have forged one."""
    try:
        raise ValueError("no such\n2026-01-01T00:00:00.000Z INFO relay d-AAAAAAAAAAAAAAA: delivered \x1b[2J")
    except ValueError:
        record = logging.makeLogRecord(
            {"name": "smtpd_core.server", "msg": "s-1a-1: failed", "exc_info": sys.exc_info()}
        )
    log = tmp_path / "log"
    log.write_text(FORMS["text"].format(record) + "\n")
    assert "\x1b" not in log.read_text()
    assert main(["trace", "--log", str(log), "AAAAAAAAAAAAAAA"]) == 1
    assert main(["trace", "--log", str(log), "s-1a-1"]) == 0
    assert capsys.readouterr().out == log.read_text()


def test_a_spoilt_log_still_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NULs of a lost power, octets that are no text, objects without end, and lines without one."""
    spoilt = bytes(range(256)) * 10 + b"\n" + b'{"time": "2026-01-01T00:00:00.000Z", "x": ' + b"[" * 200_000
    spoilt += b"d-AAAAAAAAAAAAAAA\n" + b"{" * 300_000 + b"\n" + bytes(200_000)
    log = tmp_path / "log"
    log.write_bytes(LOG.encode().replace(b"\n", b"\n" + spoilt, 2))
    for more in ([], ["--json"]):
        assert main(["trace", "--log", str(log), "AAAAAAAAAAAAAAA", *more]) == 0
        told = capsys.readouterr().out
        assert "m-AAAAAAAAAAAAAAA: s-1a-1 from" in told and "d-AAAAAAAAAAAAAAA: delivered" in told
        assert {one for one in told if not one.isprintable()} == {"\n"}


@pytest.mark.parametrize("form", ["a file", "a pipe"])
def test_a_large_log_is_read_in_little_memory(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It took five times the log's size."""
    log = tmp_path / "log"
    with open(log, "w") as file:
        for n in range(50_000):
            file.write(f"2026-01-01T00:00:03.000Z INFO keeping m-{n:015}: s-2b-{n:x} from <a@b.test> to <c@d.test>\n")
        file.write(LOG)
    with subprocess.Popen(["cat", log], stdout=subprocess.PIPE) as pipe:
        assert pipe.stdout is not None
        path = log if form == "a file" else f"/dev/fd/{pipe.stdout.fileno()}"
        tracemalloc.start()
        code = main(["trace", "AAAAAAAAAAAAAAA", "--log", str(path)])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert code == 0 and [line[18] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "5"]
    assert peak < log.stat().st_size / 2


def test_a_log_that_is_no_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        assert main(["trace", "--log", str(path), "AAAAAAAAAAAAAAA"]) == 1
        assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_story_of_a_message_goes_from_its_client_to_the_next_hop_and_back(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two recipients elsewhere, of which one is refused there; the notification comes home."""
    with DaemonProcess(tmp_path / "second", "--fault", "RCPT to=*@gone.test reply 550") as second:
        config = tmp_path / "smtpd.toml"
        config.write_text(
            f"""
            hostname = "mx.our.test"
            listener = [{{ bind = "127.0.0.1:0" }}]
            domains = {{ "our.test" = {{ users = ["ann"] }} }}
            relay = {{ enabled = true, allow_networks = ["127.0.0.0/8"], smarthost = "{second.text}" }}
            log = {{ format = "{form}", transcript_for = ["127.0.0.1"] }}
            """
        )
        with DaemonProcess(tmp_path / "first", "--config", str(config), listen="") as first:
            with smtplib.SMTP(*first.address, timeout=20) as client:
                client.sendmail("ann@our.test", ["eve@far.test", "who@gone.test"], "Subject: one\n\nx")
                client.sendmail("ann@our.test", ["eve@far.test"], "Subject: other\n\nx")
            first.wait_for_log("delivered to ann@our.test")
            second.wait_for(2)
        there = re.findall(r"m-([0-9A-Z]{15}): s-", second.log.read_text())
    said = first.log.read_text()
    message, other = re.findall(r"m-([0-9A-Z]{15}): s-", said)
    session = re.search(r"s-[0-9a-z-]+", said)[0]  # type: ignore[index]

    def told(id: str) -> str:
        assert main(["trace", "--log", str(first.log), id]) == 0
        return capsys.readouterr().out

    story = told(message)
    steps = [
        f"{session} -- connect from 127.0.0.1",
        f"{session} C: rcpt TO:<who@gone.test>",
        f"m-{message}: {session} from <ann@our.test>",
        f"{session} S: 250 2.0.0 Ok: queued as {message}",
        "relayed to eve@far.test",
        "failed to who@gone.test",
        f": notification of what became of d-{message}, to <ann@our.test>",
        "delivered to ann@our.test by maildir",
    ]
    # How smtplib writes FROM and TO differs between versions of Python.
    places = [story.lower().find(step.lower()) for step in steps]
    assert -1 not in places, story
    assert places[:4] == sorted(places[:4]) and places[6:] == sorted(places[6:]) and places[3] < min(places[4:6])
    assert any(f"queued as {id}" in story for id in there), "the next hop's own name for it"
    assert f"d-{other}" not in story and f"d-{other}" in told(session)
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in story.splitlines())
    assert told(f"d-{message}") == told(f"m-{message}") == story


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


@pytest.mark.parametrize("command", [["smtpd_core", "mx"], ["relay", "mx"]], ids=" ".join)
def test_a_plan_commands_no_terminal(command: list[str]) -> None:
    words = [sys.executable, "-m", *command, "--dns-server", "127.0.0.1:1", "far\x1b[2J.test"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    said = told.stdout + told.stderr
    assert "far\\x1b[2j.test" in said.lower() and "\x1b" not in said


def test_mx_without_an_answer_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mx", "--dns-server", "127.0.0.1:1", "far.test"]) == 1
    assert "no way:" in capsys.readouterr().err


def test_trace_at_a_terminal_asks_for_a_log() -> None:
    """It waited for one to be typed, without a word."""
    with OnTerminal([sys.executable, "-m", "smtpd_core", "trace", "AAAAAAAAAAAAAAA"]) as program:
        assert "which log?" in program.read_until(lambda text: text.endswith("\n"))
        assert program.process.wait(60) == 2
