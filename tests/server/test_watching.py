"""The debug log and the transcripts: what they show, what they hide, and that their troubles cost no session."""

from __future__ import annotations

import os
import re
import sys

import pytest

from smtpd_core import SmtpServer
from tests.server.people import Diary, Memory, talking


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
