"""The table of bad input: each row's reply, once, and the dialogue goes on where it may."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events, replies
from smtpd_core.wire.events import ENDED, NEED_BYTES, OUTPUT_FULL
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol
from tests.support.transcript import play
from tests.wire.test_session_rfc5321 import ENVELOPE, HELLO

GO_AHEAD = "C: DATA\nS: 354 End data with <CRLF>.<CRLF>\n"


def test_a_command_line_over_its_limit():
    """500 at once, the rest up to CRLF dropped."""
    play(
        HELLO
        + f"""
        C: NOOP {"x" * 2041}
        S: 250 2.0.0 Ok
        C: NOOP {"x" * 3000}
        S: 500 5.5.2 Command line too long
        C: NOOP
        S: 250 2.0.0 Ok
    """
    )


def test_two_megabytes_of_command_line_are_not_kept():
    protocol = ServerProtocol(ProtocolSettings())
    protocol.next_event()
    protocol.accept()
    for _ in range(2_000):
        protocol.receive(b"x" * 1_000)
        assert protocol.next_event() is NEED_BYTES
    assert protocol.take_output().count(b"\r\n") == 2
    assert len(protocol._data) <= 1_000


@pytest.mark.parametrize("octet", [r"\0", r"\r", r"\n"])
@pytest.mark.parametrize("where", ["{}NOOP", "NO{}OP", "NOOP{} x"])
def test_a_command_with_nul_or_half_a_line_end(octet, where):
    play(
        HELLO
        + f"""
        C: {where.format(octet)}
        S: 500 5.5.2 NUL, bare CR or bare LF in a command
        C: NOOP
        S: 250 2.0.0 Ok
    """
    )


def test_octets_that_are_no_text():
    play(HELLO + "C: NOOP \\xff\\xfe\nS: 500 5.5.2 Command is not UTF-8 text\nC: NOOP\nS: 250 2.0.0 Ok")


def test_declared_size_over_the_limit():
    """RFC 1870 6.1."""
    play(
        HELLO
        + """
        C: MAIL FROM:<ann@probe.test> SIZE=101
        S: 552 5.3.4 Message too large
        C: MAIL FROM:<ann@probe.test> SIZE=0
        S: 250 2.1.0 Sender ok
    """,
        max_message_size=100,
    )


def test_more_content_than_allowed_is_refused_once_after_its_end():
    played = play(
        ENVELOPE
        + GO_AHEAD
        + f"""
        C: {"x" * 98}
        C: .
        S: 250 2.0.0 Ok
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<bob@mx.test>
        S: 250 2.1.5 Recipient ok
        {GO_AHEAD}
        C: {"x" * 99}
        C: NOOP
        C: .
        S: 552 5.3.4 Message too large
        C: NOOP
        S: 250 2.0.0 Ok
    """,
        max_message_size=100,
    )
    assert [len(one) for one in played.messages] == [100]
    assert len(played.of(events.ContentDropped)) == 1


def test_the_first_mistake_in_the_content_is_the_one_that_is_told():
    play(
        ENVELOPE
        + GO_AHEAD
        + f"""
        C| {"x" * 98}\\n{"x" * 300}\\0\\r\\n.\\r\\n
        S: 550 5.6.0 Bare CR or LF in content; lines end in CRLF
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<bob@mx.test>
        S: 250 2.1.5 Recipient ok
        {GO_AHEAD}
        C| {"x" * 101}\\n\\r\\n.\\r\\n
        S: 552 5.3.4 Message too large
    """,
        max_message_size=100,
    )


def test_no_limit_is_no_limit():
    played = play(ENVELOPE + GO_AHEAD + f"C: {'x' * 5000}\nC: .\nS: 250 2.0.0 Ok", max_message_size=0)
    assert len(played.messages[0]) == 5002


def test_a_full_disk_is_told_at_the_end():
    """spoil(): the rest is swallowed, one reply, no ContentEnds."""
    played = play(
        ENVELOPE
        + GO_AHEAD
        + """
        H: BodyChunk spoil 452 4.3.1 Insufficient storage; try again later
        C: some text
        C: more text
        C: .
        S: 452 4.3.1 Insufficient storage; try again later
        C: RCPT TO:<bob@mx.test>
        S: 503 5.5.1 Sender first
    """
    )
    assert not played.of(events.ContentEnds) and not played.of(events.ContentDropped)


@pytest.mark.parametrize(
    "length, reply", [(998, "250 2.0.0 Ok"), (999, "550 5.6.0 Line longer than 998 octets in content")]
)
def test_strict_lines(length, reply):
    """RFC 5321 4.5.3.1.6; long lines are let in unless strict_lines is set."""
    text = ENVELOPE + GO_AHEAD + f"C: short\nC: {'x' * length}\nC: last\nC: .\nS: {{}}"
    play(text.format(reply), strict_lines=True)
    play(text.format("250 2.0.0 Ok"))


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /x HTTP/1.0", "CONNECT a:1 HTTP/1.1", "PRI * HTTP/2.0"])
def test_http_is_told_so_and_closed(line):
    request = f"C: {line}\nC: Host: mx.test\nC:\n"
    play(f"S: 220 mx.test ready\n{request}S: 421 4.7.0 This is SMTP, not HTTP; closing\nS: (closed)")


def test_too_many_errors():
    play(
        HELLO
        + """
        C: XYZZY
        S: 500 5.5.2 Unknown command
        C: RCPT TO:<a@b.test>
        S: 503 5.5.1 Sender first
        C: PLUGH
        S: 421 4.7.0 Too many errors; closing
        S: (closed)
    """,
        max_errors=2,
    )


def test_recipients_that_policy_refused_are_no_errors():
    refused = "".join(f"H: RcptTo refuse 550 5.1.1 No\nC: RCPT TO:<u{n}@mx.test>\nS: 550 5.1.1 No\n" for n in range(30))
    play(HELLO + "C: MAIL FROM:<>\nS: 250 2.1.0 Sender ok\n" + refused)


def test_mail_that_is_too_large_is_no_error_of_the_client():
    play(HELLO + "C: MAIL FROM:<> SIZE=101\nS: 552 5.3.4 Message too large\n" * 5, max_message_size=100, max_errors=2)


@pytest.mark.parametrize("word", ["STARTTLSX", "STARTTLSFOO bar", "starttls-", "S TARTTLS", "STARTTL"])
def test_a_word_that_only_begins_like_starttls_is_unknown(word):
    play(HELLO + f"C: {word}\nS: 500 5.5.2 Unknown command", starttls=True)


@pytest.mark.parametrize("verb", ["\u017fTARTTLS", "QU\u0131T", "MA\u0130L"])
def test_letters_that_only_fold_to_ascii_make_no_verb(verb):
    play(HELLO + f"C: {verb}\nS: 500 5.5.2 Unknown command", starttls=True)


def test_what_is_left_of_a_timed_out_message_is_never_read_as_commands():
    protocol = ServerProtocol(ProtocolSettings())
    protocol.receive(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nDATA\r\nsome text\r\n")
    while protocol.next_event() is not NEED_BYTES:
        if protocol.verdict is not None:
            protocol.accept()
    protocol.take_output()
    protocol.say_and_end(replies.time_out_421)
    protocol.receive(b"MAIL FROM:<evil@x.test>\r\nRSET\r\n.\r\nMAIL FROM:<>\r\n")
    assert protocol.next_event() is ENDED
    assert protocol.take_output() == replies.time_out_421.wire


def test_a_verdict_that_comes_after_the_end_changes_nothing():
    protocol = ServerProtocol(ProtocolSettings())
    protocol.next_event()
    protocol.say_and_end(replies.shutting_down_421)
    protocol.accept()
    assert protocol.next_event() is ENDED
    assert protocol.take_output() == replies.shutting_down_421.wire


def test_an_early_talker_can_be_seen_and_refused():
    protocol = ServerProtocol(ProtocolSettings())
    protocol.receive(b"EHLO spammer\r\n")
    assert isinstance(protocol.next_event(), events.Connected) and protocol.has_input
    protocol.refuse(replies.early_talker_554)
    assert protocol.next_event() is ENDED
    assert protocol.take_output() == b"554 5.5.1 Wait for the greeting before you speak\r\n"


def test_a_flood_of_commands_does_not_pile_up_replies():
    protocol = ServerProtocol(ProtocolSettings())
    protocol.next_event()
    protocol.accept()
    protocol.receive(b"HELP\r\n" * 20_000)
    most = answered = 0
    while (event := protocol.next_event()) is OUTPUT_FULL:
        said = protocol.take_output()
        most, answered = max(most, len(said)), answered + said.count(b"214 ")
    assert event is NEED_BYTES
    assert answered + protocol.take_output().count(b"214 ") == 20_000
    assert most < 20_000
