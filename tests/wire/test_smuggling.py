"""Only CRLF ends a line, and only CRLF.CRLF ends a message: no other spelling of either does."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.stuffing import Stuffer
from tests.support.transcript import octets, play
from tests.wire.test_session_rfc5321 import ENVELOPE, HELLO

SPELLINGS = [
    r"\n.\n",
    r"\n.\r\n",
    r"\r\n.\n",
    r"\r.\r",
    r"\r.\r\n",
    r"\r\n.\r",
    r"\n.\r",
    r"\r.\n",
    r"\r\n\0.\r\n",
    r"\r\n.\0\r\n",
    r"\r\0\n.\r\n",
    r"\r\r\n.\n",
    r"\n\n.\r\n",
    r"\r\n.\r\r\n",
    r"\r\n.\r\0\n",
    r"\r\n\r.\r\n",
    r"\n\r.\n\r",
]

BARE = "550 5.6.0 Bare CR or LF in content; lines end in CRLF"
NUL = "550 5.6.0 NUL in content"

ATTACK = r"MAIL FROM:<evil@probe.test>\r\nRCPT TO:<bob@mx.test>\r\nDATA\r\nevil"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_other_spelling_ends_a_message(spelling: str) -> None:
    """What follows is content of one message, which is refused as a whole."""
    played = play(
        ENVELOPE
        + f"""
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        C| first{spelling}{ATTACK}\\r\\n.\\r\\n
    """
        + f"S: {first_violation(spelling)}"
    )
    assert played.messages == []
    assert len(played.of(events.MailFrom)) == 1


def first_violation(spelling: str) -> str:
    text = spelling.encode().decode("unicode_escape")
    for at, one in enumerate(text):
        if one == "\0":
            return NUL
        if one == "\r" and text[at + 1 : at + 2] != "\n":
            return BARE
        if one == "\n" and text[at - 1 : at] != "\r":
            return BARE
    raise AssertionError(spelling)


@pytest.mark.parametrize("spelling", [one for one in SPELLINGS if r"\0" not in one])
def test_normalising_does_not_let_them_in_either(spelling: str) -> None:
    """With normalise_line_ends bare CR and LF become CRLF; the message still ends at CRLF.CRLF alone."""
    played = play(
        ENVELOPE
        + f"""
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        C| first{spelling}{ATTACK}\\r\\n.\\r\\n
        S: 250 2.0.0 Ok
    """,
        normalise_line_ends=True,
    )
    assert len(played.of(events.MailFrom)) == 1
    (message,) = played.messages
    assert message.endswith(b"evil\r\n")
    assert message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n")


@pytest.mark.parametrize("spelling", [one for one in SPELLINGS if r"\r\n" not in one])
def test_no_other_spelling_ends_a_command(spelling: str) -> None:
    """The line is refused at once, and the rest up to CRLF is dropped, commands in it included."""
    played = play(
        HELLO
        + f"""
        C| NOOP{spelling.replace(".", "VRFY evil")}MAIL FROM:<evil@probe.test>
        S: 500 5.5.2 NUL, bare CR or bare LF in a command
    """
    )
    assert not played.of(events.MailFrom)


def test_a_client_that_ends_lines_in_bare_lf_is_not_left_waiting():
    """The reply comes at the first LF, not at a CRLF that never comes."""
    play(
        HELLO
        + r"""
        C| NOOP\n
        S: 500 5.5.2 NUL, bare CR or bare LF in a command
        C| NOOP\nNOOP\r\n
        C: NOOP
        S: 250 2.0.0 Ok
    """
    )


@pytest.mark.parametrize(
    "stuffed, kept",
    [
        (r".\r\n", b""),
        (r"..\r\n.\r\n", b".\r\n"),
        (r".x\r\n.\r\n", b"x\r\n"),
        (r"..x\r\n.\r\n", b".x\r\n"),
        (r"\r\n.\r\n", b"\r\n"),
        (r"...\r\n..\r\n.\r\n", b"..\r\n.\r\n"),
        (r"a.\r\n.b\r\n.\r\n", b"a.\r\nb\r\n"),
        (r"\r\n\r\n..\r\n\r\n.\r\n", b"\r\n\r\n.\r\n\r\n"),
    ],
)
def test_dots_at_the_start_of_a_line(stuffed: str, kept: bytes) -> None:
    """RFC 5321 4.5.2; the first line counts as the start of a line too."""
    played = play(ENVELOPE + f"C: DATA\nS: 354 End data with <CRLF>.<CRLF>\nC| {stuffed}\nS: 250 2.0.0 Ok")
    assert played.messages == [kept]


def test_nul_in_content_is_kept_where_that_is_set():
    played = play(
        ENVELOPE + "C: DATA\nS: 354 End data with <CRLF>.<CRLF>\nC| a\\0b\\r\\n.\\r\\n\nS: 250 2.0.0 Ok", keep_nul=True
    )
    assert played.messages == [b"a\0b\r\n"]


@pytest.mark.parametrize("cut", [1, 2, 3, 1000])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nothing_of_it_goes_out_either(spelling: str, cut: int) -> None:
    """What the client half sends has one end, and no bare CR or LF on the way to it."""
    content = octets(f"first{spelling}{ATTACK}\\r\\n")
    stuffer = Stuffer()
    sent = b"".join(stuffer.stuffed(content[at : at + cut]) for at in range(0, len(content), cut)) + stuffer.finish()
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    assert sent.index(b"\r\n.\r\n") == len(sent) - 5
