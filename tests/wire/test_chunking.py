"""BDAT and BINARYMIME (RFC 3030): every chunk's octets are consumed, whatever the verdict."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.events import NEED_BYTES
from smtpd_core.wire.server import CustomVerb, ProtocolSettings, ServerProtocol
from tests.support.transcript import play
from tests.wire.test_session_rfc5321 import ENVELOPE, HELLO


def test_a_message_in_chunks():
    """RFC 3030 4.2: each chunk is answered, the last one for the message. Content is taken as it is, dots included."""
    played = play(
        ENVELOPE
        + r"""
        C: BDAT 8
        C| .\r\nDATA\r
        S: 250 2.0.0 8 octets received
        C: BDAT 9 LAST
        C| \nQUIT\r\n.\r
        S: 550 5.6.0 Bare CR or LF in content; lines end in CRLF
        C: NOOP
        S: 250 2.0.0 Ok
    """
    )
    assert played.messages == []


def test_a_crlf_may_lie_across_two_chunks():
    played = play(
        ENVELOPE
        + r"""
        C: BDAT 3
        C| .a\r
        S: 250 2.0.0 3 octets received
        C: BDAT 5
        C| \n.\r\n.
        S: 250 2.0.0 5 octets received
        C: bdat 0 last
        S: 250 2.0.0 Ok
        C: QUIT
        S: 221 2.0.0 Bye
    """
    )
    assert played.messages == [b".a\r\n.\r\n."]


def test_a_line_feed_after_a_chunk_that_ends_in_cr_is_bare():
    """The CR is the chunk's, so the LF begins the next command line and ends nothing."""
    played = play(
        ENVELOPE
        + r"""
        C: BDAT 2
        C| a\r
        S: 250 2.0.0 2 octets received
        C| \nNOOP\r\n
        S: 500 5.5.2 NUL, bare CR or bare LF in a command
        C: BDAT 1 LAST
        C| \n
        S: 250 2.0.0 Ok
    """
    )
    assert played.messages == [b"a\r\n"]


def test_an_empty_message():
    assert play(ENVELOPE + "C: BDAT 0 LAST\nS: 250 2.0.0 Ok").messages == [b""]


@pytest.mark.parametrize(
    "before, reply",
    [
        ("", "503 5.5.1 Sender first"),
        ("C: MAIL FROM:<>\nS: 250 2.1.0 Sender ok\n", "503 5.5.1 Recipient first"),
    ],
)
@pytest.mark.parametrize("last", ["", " LAST"])
def test_a_chunk_out_of_order_is_never_read_as_commands(before, reply, last):
    played = play(
        HELLO
        + before
        + f"""
        C: BDAT 29{last}
        C| MAIL FROM:<evil@probe.test>\\r\\n
        S: {reply}
        C: NOOP
        S: 250 2.0.0 Ok
    """
    )
    assert "evil@probe.test" not in [one.reverse_path for one in played.of(events.MailFrom)]


def test_a_chunk_before_tls_or_login_is_consumed_too():
    play(HELLO + "C: BDAT 6\nC| QUIT\\r\\n\nS: 530 5.7.0 STARTTLS first", starttls=True, tls_required=True)
    play(
        HELLO + "C: BDAT 6\nC| QUIT\\r\\n\nS: 530 5.7.0 Authentication required",
        mechanisms=("PLAIN",),
        login_required=True,
    )


def test_after_a_refused_chunk_the_rest_is_swallowed_and_refused():
    played = play(
        ENVELOPE
        + r"""
        H: ContentBegins refuse 554 5.7.1 No
        C: BDAT 6
        C| QUIT\r\n
        C: BDAT 6
        C| RSET\r\n
        C: BDAT 6 LAST
        C| NOOP\r\n
        S: 554 5.7.1 No
        S: 554 5.7.1 No
        S: 554 5.7.1 No
        C: MAIL FROM:<ann@probe.test>
        S: 250 2.1.0 Sender ok
    """
    )
    assert played.messages == [] and not played.of(events.BodyChunk)


def test_reset_between_chunks():
    played = play(
        ENVELOPE
        + """
        C: BDAT 3
        C| abc
        S: 250 2.0.0 3 octets received
        C: RSET
        S: 250 2.0.0 Ok
        C: BDAT 3 LAST
        C| abc
        S: 503 5.5.1 Sender first
    """
    )
    assert len(played.of(events.TransactionReset)) == 1


@pytest.mark.parametrize("line", ["DATA", "RCPT TO:<carl@mx.test>"])
def test_only_bdat_goes_on_after_bdat(line):
    """RFC 3030 2: DATA and BDAT are not mixed in a transaction."""
    play(
        ENVELOPE
        + f"""
        C: BDAT 3
        C| abc
        S: 250 2.0.0 3 octets received
        C: {line}
        S: 503 5.5.1 BDAT is under way; go on with BDAT or RSET
        C: BDAT 0 LAST
        S: 250 2.0.0 Ok
    """
    )


def test_a_chunk_over_the_limit_is_swallowed_and_refused():
    """552 5.3.4 per chunk (RFC 1870, RFC 3030 2), once it was told that it is too large."""
    played = play(
        ENVELOPE
        + f"""
        C: BDAT 60
        C| {"x" * 60}
        S: 250 2.0.0 60 octets received
        C: BDAT 60
        C| {"QUIT" * 15}
        S: 552 5.3.4 Message too large
        C: BDAT 6 LAST
        C| QUIT\\r\\n
        S: 552 5.3.4 Message too large
        C: NOOP
        S: 250 2.0.0 Ok
    """,
        max_message_size=100,
    )
    assert len(played.of(events.ContentDropped)) == 1


def test_a_count_costs_nothing_until_octets_come():
    protocol = ServerProtocol(ProtocolSettings(max_message_size=0))
    protocol.receive(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nBDAT 99999999999999999999 LAST\r\nabc")
    found = []
    while (event := protocol.next_event()) is not NEED_BYTES:
        found.append(event)
        if protocol.verdict is not None:
            protocol.accept()
    assert found[-1] == events.BodyChunk(b"abc")
    assert protocol.chunk is not None and protocol.chunk.left == 10**20 - 4


@pytest.mark.parametrize("argument", ["", "-1", "abc", "1x", "100000000000000000000", "0x10", "LAST", "\u0661"])
def test_where_no_count_can_be_read_the_dialogue_ends(argument):
    """The octets that follow can't be told from commands any more."""
    play(ENVELOPE + f"C: BDAT {argument}\nC: QUIT\nS: 501 5.5.4 Syntax: BDAT octets [LAST]\nS: (closed)")


def test_a_word_that_is_not_last_refuses_the_chunk():
    play(
        ENVELOPE
        + r"""
        C: BDAT 6 FIRST
        C| QUIT\r\n
        S: 501 5.5.4 Syntax: BDAT octets [LAST]
        C: BDAT 2 LAST
        C| ok
        S: 501 5.5.4 Syntax: BDAT octets [LAST]
        C: NOOP
        S: 250 2.0.0 Ok
    """
    )


def test_a_message_that_lost_a_chunk_on_the_way_is_not_taken():
    played = play(
        ENVELOPE
        + r"""
        C: BDAT 3
        C| abc
        S: 250 2.0.0 3 octets received
        C: BDAT 4 LAST NOW
        C| defg
        S: 501 5.5.4 Syntax: BDAT octets [LAST]
        C: BDAT 1 LAST
        C| h
        S: 501 5.5.4 Syntax: BDAT octets [LAST]
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
    """
    )
    assert not played.messages and len(played.of(events.ContentDropped)) == 1


BAD_LINE = "NUL, bare CR or bare LF in a command"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (r"BDAT 6 LAST\n", BAD_LINE),
        (r"BDAT 6 LAST\r.\r\n", BAD_LINE),
        (r"BDAT 6 LAST\0\r\n", BAD_LINE),
        (r"bdat\t6 LAST\r\n", "Unknown command"),
        (r" BDAT 6 LAST\r\n", "Unknown command"),
        (r"BDAT 6 L\xffST\r\n", "Command is not UTF-8 text"),
        ("BDAT 6 " + " " * 3000 + r"LAST\r\n", "Command line too long"),
    ],
)
def test_a_line_that_may_be_a_bdat_and_can_not_be_read_ends_the_dialogue(line, text):
    """Its octets can't be told from commands."""
    play(ENVELOPE + f"C| {line}\nC: NOOP\nS: 500 5.5.2 {text}\nS: (closed)", max_errors=0)


def test_what_stands_behind_a_bad_octet_is_not_looked_at():
    play(ENVELOPE + r"C: \0BDAT 6" + f"\nS: 500 5.5.2 {BAD_LINE}\nC: NOOP\nS: 250 2.0.0 Ok")


def test_words_that_only_begin_like_bdat_are_unknown():
    play(ENVELOPE + "C: BDATX 5\nS: 500 5.5.2 Unknown command\nC: BDAT-5\nS: 500 5.5.2 Unknown command")


@pytest.mark.parametrize("how", ["replace", "wrap"])
def test_bdat_can_only_be_removed(how):
    with pytest.raises(ValueError, match="only be removed"):
        ProtocolSettings(commands=(CustomVerb("BDAT", how),))


def test_a_421_instead_of_the_first_chunk_is_said():
    play(
        ENVELOPE
        + """
        H: ContentBegins refuse 421 4.3.2 Not now
        C: BDAT 6 LAST
        S: 421 4.3.2 Not now
        S: (closed)
    """
    )


def test_binarymime_keeps_every_octet():
    """RFC 3030 3."""
    played = play(
        HELLO
        + r"""
        C: MAIL FROM:<ann@probe.test> BODY=BINARYMIME
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<bob@mx.test>
        S: 250 2.1.5 Recipient ok
        C: DATA
        S: 503 5.5.1 BODY=BINARYMIME needs BDAT
        C: BDAT 8 LAST
        C| \0\r\n\n\r.\xff\r
        S: 250 2.0.0 Ok
    """
    )
    assert played.messages == [b"\0\r\n\n\r.\xff\r"]


@pytest.mark.parametrize(
    "changes, kept",
    [
        ({"normalise_line_ends": True}, b"a\r\nb\r\n"),
        ({"normalise_chunks": True}, b"a\r\nb\r\n"),
        ({"normalise_line_ends": True, "normalise_chunks": False}, None),
        ({}, None),
    ],
)
def test_senders_that_keep_bare_lf_can_be_let_in(changes, kept):
    """BDAT has a setting of its own."""
    reply = "250 2.0.0 Ok" if kept else "550 5.6.0 Bare CR or LF in content; lines end in CRLF"
    played = play(ENVELOPE + f"C: BDAT 4 LAST\nC| a\\nb\\n\nS: {reply}", **changes)
    assert played.messages == ([kept] if kept else [])


def test_a_client_that_leaves_inside_a_chunk_leaves_nothing():
    played = play(ENVELOPE + "C: BDAT 100 LAST\nC| half\nX: gone")
    assert played.messages == [] and isinstance(played.events[-1], events.ContentDropped)


def test_without_chunking_there_is_no_bdat():
    """Its octets are not read as commands all the same."""
    play(ENVELOPE + "C: BDAT 0 LAST\nS: 502 5.5.1 Command not implemented", without=frozenset({"CHUNKING"}))
    for changes in ({"without": frozenset({"CHUNKING"})}, {"commands": (CustomVerb("BDAT", "remove"),)}):
        play(
            ENVELOPE
            + r"""
            C: BDAT 6 LAST
            C| QUIT\r\n
            S: 502 5.5.1 Command not implemented
            C: NOOP
            S: 250 2.0.0 Ok
        """,
            **changes,
        )
    play(HELLO + "C: MAIL FROM:<> BODY=BINARYMIME\nS: 501 5.5.4 Bad parameter value", without=frozenset({"CHUNKING"}))
