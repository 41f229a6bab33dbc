"""Transcripts are read as sessions: steps, replies, log-ins, content, TLS from the beginning."""

from __future__ import annotations

import re

import pytest

from smtpd_core.testing.recorded import recorded


def shown(text: str) -> list[tuple[str, str]]:
    (session,) = recorded(text.strip().splitlines())
    return [(step.shown, " ".join(step.codes)) for step in session.steps]


def test_steps_are_what_the_client_said_with_the_codes_that_came_after_it() -> None:
    text = """
        0.000 -- connect from 127.0.0.1:1 on mx 127.0.0.1:25
        0.000 S: 220 mx.test ready
        0.001 C: EHLO probe.test
        0.001 S: 250-mx.test
        0.001 S: 250 SIZE 1000
        0.002 C: DATA
        0.002 S: 354 go on
        0.003 -- content 40 octets
        0.004 S: 250 kept
        0.005 -- close ended
    """
    assert shown(text) == [
        ("(connect)", "220"),
        ("EHLO probe.test", "250"),
        ("DATA", "354"),
        ("(content, 40 octets)", "250"),
    ]


def test_a_masked_login_is_one_step_with_its_last_reply() -> None:
    text = """
        S: 220 x
        C: AUTH SCRAM-SHA-256-PLUS ****
        S: 334 ****
        C: ****
        S: 334 ****
        C: ****
        S: 235 welcome
        C: NOOP
        S: 250 ok
    """
    assert shown(text) == [("(connect)", "220"), ("AUTH SCRAM-SHA-256", "235"), ("NOOP", "250")]


def test_a_login_that_is_not_masked_is_played_as_it_stands() -> None:
    assert shown("S: 220 x\nC: AUTH PLAIN AGEAYg==\nS: 535 no")[1] == ("AUTH PLAIN AGEAYg==", "535")


def test_content_that_a_client_did_not_record_is_put_in_its_place() -> None:
    text = (
        "C: MAIL FROM:<>\nC: RCPT TO:<a@a.test>\nC: DATA\nS: 250 x\nS: 250 x\nS: 354 x\nS: 250 kept\nC: QUIT\nS: 221 x"
    )
    assert shown(text)[3:] == [("DATA", "250 250 354"), ("(content, not recorded)", "250"), ("QUIT", "221")]


@pytest.mark.parametrize("count", [0, 2, 3, 22, 23, 24, 95, 96, 97, 1000])
def test_content_is_as_long_as_it_was(count: int) -> None:
    (session,) = recorded(["S: 354 x", f"-- content {count} octets", "S: 250 x"])
    octets = session.steps[-1].octets
    assert octets.endswith(b".\r\n") and len(octets) == count + 3
    assert count == 0 or octets.endswith(b"\r\n.\r\n")


@pytest.mark.parametrize("count", [0, 1, 5, 73, 500])
def test_a_chunk_brings_its_octets(count: int) -> None:
    (session,) = recorded([f"C: BDAT {count} LAST", "S: 250 x"])
    line, _, chunk = session.steps[-1].octets.partition(b"\r\n")
    assert line == f"BDAT {count} LAST".encode() and len(chunk) == count


def test_sessions_of_one_transcript_are_told_apart() -> None:
    text = ["-- connect from a", "S: 220 x", "C: QUIT", "S: 221 x", "-- connect from b", "-- tls TLSv1.3", "S: 220 y"]
    first, second = recorded(text)
    assert (first.implicit_tls, len(first.steps)) == (False, 2)
    assert (second.implicit_tls, len(second.steps)) == (True, 1)


def test_sessions_of_a_debug_log_are_told_apart_by_their_ids() -> None:
    text = [
        "t s-1a S: 220 x",
        "t s-1b S: 220 x",
        "t s-1a C: NOOP",
        "t s-1b C: QUIT",
        "t s-1a S: 250 x",
        "t s-1b S: 221",
    ]
    assert {one.name: one.steps[-1].shown for one in recorded(text)} == {"s-1a": "NOOP", "s-1b": "QUIT"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "this is no transcript"),
        ("hello\nthere", "this is no transcript"),
        ("S: 220 x\nC: AUTH XOAUTH2 ****\nS: 235 ok", "line 2: a log-in by XOAUTH2 can't be played"),
        ("S: 220 x\nC: XSECRET ****\nS: 250 ok", "line 2: 'XSECRET [*]+' is masked"),
    ],
)
def test_what_cannot_be_played_is_told_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        recorded(text.splitlines())


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["S: 354 go", "-- content some octets"], "line 2: '-- content some octets': a number of octets is due"),
        (["S: 354 go", "-- content -5 octets"], "line 2: '-- content -5 octets': a number"),
        (["S: 354 go", "-- content"], "line 2: '-- content ': a number"),
        (["S: 354 go", "-- content 99999999999 octets"], "line 2: 99999999999 octets of content; at most 268435456"),
        (["S: 250 x", "C: BDAT 999999999 LAST"], "line 2: 999999999 octets of content; at most 268435456"),
    ],
)
def test_a_content_that_can_not_be_made_is_named_with_its_line(lines: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        recorded(lines)


def test_a_content_of_50_mib_is_made_at_once() -> None:
    """It was made line by line, each time copied whole: an hour's work."""
    [session] = recorded(["S: 354 go", "-- content 52428800 octets"])
    assert len(session.steps[-1].octets) == 52_428_800 + len(b".\r\n")
