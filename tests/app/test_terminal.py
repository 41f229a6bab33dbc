"""What is shown on a terminal with rich and without it, and that a pipe gets the same plain lines as ever."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay.mail import Body, Message, Outcome, Recipient, Result, Stop
from relay.queue_sqlite import SqliteQueue
from smtpd_core.wire.envelope import Envelope, MailParameters, Origin
from smtpd_core.wire.shown import shown
from tests.app.daemon import ROOT
from tests.app.missing import without
from tests.app.terminals import OnTerminal

NOW = 1_000_000.0

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

WIDE = {"COLUMNS": "160"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A queue with one message that was deferred, with a reason that would like to clear the screen."""
    queue = SqliteQueue(tmp_path / "queue.db")
    envelope = Envelope("bob@here.test", (Recipient("ann@far.test"),), MailParameters(), Origin(), NOW)
    stop = Stop(0, envelope.recipients[0], "mx:far.test")
    queue.add([(Message("M1", envelope, b"", Body(6, b"hello\n")), [stop])], "s", 1, NOW)
    (parcel,) = queue.claim("mx:far.test", 1, NOW, 60)
    said = "[red]grey\x1b[2Jlisted[/red]"
    queue.settle(parcel, [Outcome(0, Result.DEFERRED, 451, "4.7.1", said, "mx1", NOW, 9e9)], [], NOW)
    queue.close()
    return tmp_path


def words(*command: str) -> list[str]:
    return [sys.executable, "-m", "smtpd_core", *command]


def piped(command: list[str], environment: dict[str, str] | None = None) -> str:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings).stdout


def seen(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What it writes to a terminal, lines ended by LF."""
    with OnTerminal(command, environment) as program:
        return program.read_all().replace("\r\n", "\n")


def test_the_queue_is_a_table_on_a_terminal(state: Path) -> None:
    pytest.importorskip("rich")
    shown = seen(words("queue", "list", "--state", str(state)), WIDE)
    assert COLOUR.search(shown), "a deferred message stands out"
    lines = ESCAPE.sub("", shown).splitlines()
    head = next(line for line in lines if "arrived" in line)
    row = next(line for line in lines if "M1" in line)
    assert head.split() == ["id", "size", "arrived", "from", "to", "status", "by", "next", "reason"]
    assert row.index("<bob@here.test>") == head.index("from") and row.index("deferred") == head.index("status")
    assert lines[-1] == "1 message"


def test_what_strangers_wrote_can_not_command_the_terminal(state: Path) -> None:
    shown = seen(words("queue", "list", "--state", str(state)), WIDE)
    assert "\x1b[2J" not in shown and "[red]grey" in shown


@pytest.mark.parametrize("command", [["list"], ["show", "M1"]], ids=" ".join)
def test_nor_where_lines_are_plain(command: list[str], state: Path) -> None:
    plain = piped(words("queue", *command, "--state", str(state)))
    assert "\x1b" not in plain and r"grey\x1b[2Jlisted" in plain


def test_nor_turn_the_order_of_what_follows() -> None:
    assert shown("ann\u202etset.raf@\u2066x\u2028y") == r"ann\u202etset.raf@\u2066x\u2028y"


def test_a_message_steers_no_terminal_and_is_itself_in_a_file(tmp_path: Path) -> None:
    content = b"Subject: \x1b[2Jgone\r\n\tfolded\r\n\r\ngr\xc3\xbc\xc3\x9fe \x9b2J\xff \x1b]0;title\x07\r\nno end"
    queue = SqliteQueue(tmp_path / "queue.db")
    envelope = Envelope("bob@here.test", (Recipient("ann@far.test"),), MailParameters(), Origin(), NOW)
    stop = Stop(0, envelope.recipients[0], "mx:far.test")
    queue.add([(Message("M1", envelope, b"Received: here\r\n", Body(len(content), content)), [stop])], "s", 1, NOW)
    queue.close()
    asked = words("queue", "cat", "M1", "--state", str(tmp_path))
    plain = subprocess.run(asked, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert plain.stdout == b"Received: here\r\n" + content
    told = seen(asked)
    assert "\x1b" not in told and "\x9b" not in told
    assert told.startswith("Received: here\nSubject: \\x1b[2Jgone\n") and told.endswith("]0;title\\x07\nno end")
    assert "\ngrüße" in told and ESCAPE.search(told) is None


def test_no_color_is_heeded(state: Path) -> None:
    shown = seen(words("queue", "list", "--state", str(state)), {**WIDE, "NO_COLOR": "1"})
    assert "M1" in shown and not COLOUR.search(shown)


@pytest.mark.parametrize("command", [["queue", "list"], ["queue", "stats"]], ids=" ".join)
@pytest.mark.parametrize("case", ["without rich", "on a dumb terminal", "in a pipe with colours forced"])
def test_elsewhere_lines_are_plain(case: str, command: list[str], state: Path, tmp_path: Path) -> None:
    asked = words(*command, "--state", str(state))
    plain = piped(asked)
    assert "deferred" in plain and not ESCAPE.search(plain)
    if case == "without rich":
        assert seen(asked, without(tmp_path / "gone", "rich")) == plain
    elif case == "on a dumb terminal":
        assert seen(asked, {"TERM": "dumb"}) == plain
    else:
        assert piped(asked, {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}) == plain


def test_stats_are_tables_on_a_terminal(state: Path) -> None:
    pytest.importorskip("rich")
    shown = ESCAPE.sub("", seen(words("queue", "stats", "--state", str(state)), WIDE)).splitlines()
    assert shown[0].startswith("1 messages, 6 bytes")
    assert any(line.split() == ["1", "deferred"] for line in shown)
    assert any(line.split()[:2] == ["1", "mx:far.test"] for line in shown)


def test_the_plan_of_check_has_its_subjects_in_a_column(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    asked = words("check", "--config", "docs/examples/catcher.toml")
    plain = piped(asked).splitlines()
    shown = ESCAPE.sub("", seen(asked, {"COLUMNS": "500"})).splitlines()
    assert [" ".join(line.split()) for line in shown] == [line.replace(": ", " ", 1) for line in plain]


STEPS = """
import sys, time
from smtpd_core.app.terminal import progress
with progress("counting", 4) as one_more:
    for n in range(4):
        time.sleep({seconds})
        print("line", n, flush=True)
        one_more()
print("done")
"""


def test_work_of_more_than_a_second_has_a_bar_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    shown = seen([sys.executable, "-c", STEPS.format(seconds=0.6)])
    assert "counting" in shown and "4/4" in shown
    assert [line for line in ESCAPE.sub("", shown).splitlines() if line.startswith("line")] == [
        f"line {n}" for n in range(4)
    ]


def test_short_work_has_none() -> None:
    assert seen([sys.executable, "-c", STEPS.format(seconds=0)]) == "line 0\nline 1\nline 2\nline 3\ndone\n"


def test_without_rich_long_work_says_how_far_it_is(tmp_path: Path) -> None:
    shown = seen([sys.executable, "-c", STEPS.format(seconds=0.6)], without(tmp_path / "gone", "rich"))
    assert "counting: 2 of 4\n" in shown and "\x1b" not in shown


def test_a_pipe_gets_no_bar() -> None:
    command = [sys.executable, "-c", STEPS.format(seconds=0.4)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.stdout, done.stderr) == ("line 0\nline 1\nline 2\nline 3\ndone\n", "")


@pytest.mark.parametrize(
    ("module", "words", "last"),
    [
        ("queue_reader", ["check", "--state", "{old}"], "0 faults"),
        ("queue_remains", ["import", "{old}", "--state", "{new}"], "12 messages imported"),
    ],
    ids=["check", "import"],
)
def test_a_large_queue_is_gone_through_with_a_bar(module: str, words: list[str], last: str, tmp_path: Path) -> None:
    """Made to take long: every message that is looked at takes a moment."""
    (tmp_path / "new").mkdir()
    given = [word.format(old=tmp_path, new=tmp_path / "new") for word in words]
    queue = SqliteQueue(tmp_path / "queue.db")
    for n in range(12):
        envelope = Envelope("bob@here.test", (Recipient("ann@far.test"),), MailParameters(), Origin(), NOW)
        stop = Stop(0, envelope.recipients[0], "mx:far.test")
        queue.add([(Message(f"M{n}", envelope, b"", Body(6, b"hello\n")), [stop])], "s", n + 1, NOW)
    queue.close()
    program = f"""
import time
from relay import {module}
unpack = {module}.unpack
{module}.unpack = lambda packed: (time.sleep(0.15), unpack(packed))[1]
from smtpd_core.app.cli import main
raise SystemExit(main(["queue", *{given!r}]))"""
    shown = seen([sys.executable, "-c", program])
    assert f"queue {words[0]}" in shown and "/12" in shown and last in shown
