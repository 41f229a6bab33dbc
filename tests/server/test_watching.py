"""The debug log and the transcripts: what they show, what they hide, and that their troubles cost no session."""

from __future__ import annotations

import os
import re
import sys

import pytest

from smtpd_core import SmtpServer, UserAccount
from smtpd_core.server.observers import MAX_LINE, MAX_LINES
from tests.server.people import HARMLESS, Diary, Memory, talking


def serve(**properties):
    return SmtpServer(**{"port": 0, "store": Memory(), **properties})


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_debug_log_that_can_not_be_written_costs_no_session(caplog):
    store = Memory()
    with serve(debug_log="/dev/full", store=store) as server, talking(server) as line:
        assert line.send().startswith("250")
    assert len(store.kept) == 1
    told = [record.getMessage() for record in caplog.records if "debug log /dev/full" in record.getMessage()]
    assert len(told) == 1 and "No space left" in told[0]


def test_a_command_is_one_line_of_the_debug_log_whatever_is_in_it(tmp_path):
    """Marks that some readers take for the end of a line made several commands of one."""
    path = tmp_path / "dialogue.log"
    with serve(debug_log=str(path)) as server, talking(server) as line:
        line.ask("NOOP a\u2028QUIT\u2029b")
        line.ask("QUIT")
    said = [one.partition(" C: ")[2] for one in path.read_text().split("\n") if " C: " in one]
    assert said[-2:] == [r"NOOP a\u2028QUIT\u2029b", "QUIT"]


def test_a_debug_log_is_opened_again_where_it_was_moved_away(tmp_path):
    path, moved = tmp_path / "dialogue", tmp_path / "dialogue.1"
    with serve(debug_log=path) as server, talking(server) as line:
        line.ask("VRFY before")
        path.rename(moved)
        line.ask("VRFY after")
    assert "VRFY before" in moved.read_text() and "VRFY after" not in moved.read_text()
    assert "VRFY after" in path.read_text()


def test_a_debug_log_that_can_not_be_opened_leaves_the_one_before(tmp_path):
    path = tmp_path / "dialogue"
    with serve(debug_log=str(path)) as server:
        with pytest.raises(OSError):
            server.debug_log = str(tmp_path / "nowhere" / "dialogue")
        with talking(server) as line:
            line.ask("VRFY x")
    assert "VRFY x" in path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_stopped_server_holds_no_log_file_and_goes_on_with_it_when_started_again(tmp_path):
    path = tmp_path / "dialogue"
    server = serve(debug_log=str(path))
    held = len(os.listdir("/proc/self/fd"))
    for word in ("first", "second"):
        with server, talking(server) as line:
            line.ask(f"VRFY {word}")
        assert len(os.listdir("/proc/self/fd")) <= held
    assert "VRFY first" in path.read_text() and "VRFY second" in path.read_text()


def test_the_text_log_shows_control_characters_and_forges_no_line(tmp_path):
    path = tmp_path / "dialogue"
    with serve(debug_log=str(path)) as server, talking(server) as line:
        line.ask("VRFY \x1b[2J\x85s-1 C: QUIT\u2028s-2 C: QUIT")
        line.ask("QUIT")
    text = path.read_text()
    assert "\x1b" not in text and "\\x1b[2J" in text
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d s-[0-9a-f-]+ ", row) for row in text.splitlines())


def test_a_transcript_names_the_real_port():
    closed = Diary()
    with serve(transcript_memory=1, on_close_connection=closed.note) as server:
        with talking(server) as line:
            line.ask("QUIT")
        closed.wait(lambda entries: entries)
        assert f"on mx 127.0.0.1:{server.address[1]}\n" in server.transcript(closed.entries[0].id)


SECRET = "AGFubgBzZWNyZXQ="  # ann, secret


@pytest.mark.parametrize(
    "lines",
    [
        [f"AUTH PLAIN {SECRET}"],
        [f"auth plain {SECRET}"],
        [f" AUTH PLAIN {SECRET}"],
        [f"AUTH\tPLAIN {SECRET}"],
        [f"AUTHPLAIN {SECRET}"],
        [f"AUTH XOAUTH2 {SECRET}"],
        [f"AUTH NOSUCH {SECRET}"],
        ["AUTH PLAIN", SECRET],
        ["AUTH LOGIN", "YW5u", SECRET],
        ["AUTH LOGIN", "YW5u", "*", SECRET],
        ["AUTH XOAUTH2", SECRET],
        ["AUTH OAUTHBEARER", SECRET],
        ["AUTH CRAM-MD5", SECRET],
        ["AUTH NTLM", SECRET, SECRET],
        ["AUTH SCRAM-SHA-256", SECRET],
        ["AUTH EXTERNAL", SECRET],
        ["AUTH ANONYMOUS", SECRET],
    ],
)
@pytest.mark.parametrize("offered", ["all", "encrypted only", "none"])
def test_no_line_of_a_login_is_shown_whatever_became_of_it(lines, offered, tmp_path):
    """A client that was refused AUTH goes on with its responses; they stood in the log as unknown commands."""
    path, told = tmp_path / "dialogue", []
    properties = {"user_accounts": [UserAccount("ann", "secret")]} if offered != "none" else {}
    server = serve(debug_log=path, clear_text_without_tls=offered == "all", guard=HARMLESS, **properties)
    server.on_receive_command = lambda session, command: told.append(command)
    with server, talking(server) as line:
        for one in lines:
            line.ask(one)
        line.ask("VRFY shown")
        line.ask("XSHOWN too")
        line.ask("QUIT")
    for shown in (path.read_text(), "\n".join(told)):
        assert SECRET not in shown and "VRFY shown" in shown and "XSHOWN too" in shown


def test_a_line_that_is_no_text_is_told_too(tmp_path):
    path = tmp_path / "dialogue"
    with serve(debug_log=path) as server, talking(server) as line:
        for one in (b"VRFY \xff\r\n", b"VRFY \0\r\n"):
            line.socket.sendall(one)
            assert line.hear()[:9] == "500 5.5.2"
    assert path.read_text().count("C: (a line that is none)") == 2


def test_a_transcript_is_bounded_in_lines_and_in_their_length():
    closed = Diary()
    with serve(transcript_memory=1, max_errors=0, on_close_connection=closed.note) as server:
        with talking(server) as line:
            for _ in range(MAX_LINES):
                line.ask("X" * 1000)
            line.ask("QUIT")
        closed.wait(lambda entries: entries)
        lines = server.transcript(closed.entries[0].id).splitlines()
    assert len(lines) <= MAX_LINES and max(map(len, lines)) < MAX_LINE + 30
