"""RFC 5321: the dialogue, section by section."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol
from tests.support.transcript import play

HELLO = """
    S: 220 mx.test ready
    C: EHLO probe.test
    S: 250 mx.test
"""

ENVELOPE = (
    HELLO
    + """
    C: MAIL FROM:<ann@probe.test>
    S: 250 2.1.0 Sender ok
    C: RCPT TO:<bob@mx.test>
    S: 250 2.1.5 Recipient ok
"""
)


LATER = {"DELIVERBY", "MT-PRIORITY"}


def test_one_message_in_full():
    """RFC 5321 3.3 and appendix D.1."""
    played = play(
        ENVELOPE
        + r"""
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        C: Subject: probe
        C:
        C: ..one dot was added
        C: .
        S: 250 2.0.0 Ok
        C: QUIT
        S: 221 2.0.0 Bye
        S: (closed)
    """
    )
    assert played.messages == [b"Subject: probe\r\n\r\n.one dot was added\r\n"]


def test_ehlo_says_what_the_listener_can_do():
    """RFC 5321 4.1.1.1: the host name first, then one keyword a line."""
    play("""
        S: 220 mx.test ready
        C: EHLO [192.0.2.1]
        S: 250-mx.test
        S: 250-PIPELINING
        S: 250-SIZE 52428800
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-CHUNKING
        S: 250-BINARYMIME
        S: 250-DSN
        S: 250-ENHANCEDSTATUSCODES
        S: 250-HELP
        S: 250-VRFY
        S: 250-LIMITS RCPTMAX=1000
        S: 250-DELIVERBY
        S: 250 MT-PRIORITY
    """)


def test_helo_shows_no_extensions():
    played = play("""
        S: 220 mx.test ready
        C: HELO probe
        S: 250 mx.test
    """)
    assert played.said[-1] == "250 mx.test"
    assert played.protocol is not None and not played.protocol.esmtp


def test_a_recipient_needs_a_sender():
    play(
        HELLO
        + """
        C: RCPT TO:<ann@mx.test>
        S: 503 5.5.1 Sender first
    """
    )


def test_a_second_sender_is_refused_until_reset():
    played = play(
        HELLO
        + """
        C: MAIL FROM:<ann@probe.test>
        S: 250 2.1.0 Sender ok
        C: MAIL FROM:<eve@probe.test>
        S: 503 5.5.1 Sender already given
        C: RSET
        S: 250 2.0.0 Ok
        C: MAIL FROM:<eve@probe.test>
        S: 250 2.1.0 Sender ok
    """
    )
    assert len(played.of(events.TransactionReset)) == 1


def test_reset_outside_a_transaction_resets_nothing():
    assert not play(HELLO + "C: RSET\nS: 250 2.0.0 Ok").of(events.TransactionReset)


def test_data_needs_a_recipient():
    """RFC 5321 4.1.1.4; also where all of them were refused."""
    play(
        HELLO
        + """
        C: DATA
        S: 503 5.5.1 Sender first
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: DATA
        S: 503 5.5.1 Recipient first
        H: RcptTo refuse 550 5.1.1 Nobody
        C: RCPT TO:<nobody@mx.test>
        S: 550 5.1.1 Nobody
        C: DATA
        S: 503 5.5.1 Recipient first
    """
    )


def test_a_new_hello_drops_the_transaction():
    """RFC 5321 4.1.4: EHLO in a session is RSET and more."""
    played = play(
        ENVELOPE
        + """
        C: EHLO again.test
        S: 250 mx.test
        C: RCPT TO:<bob@mx.test>
        S: 503 5.5.1 Sender first
    """
    )
    assert [type(one) for one in played.events[-2:]] == [events.Hello, events.TransactionReset]


def test_a_refused_hello_changes_nothing():
    play(
        ENVELOPE
        + """
        H: Hello refuse 550 5.7.1 Not you
        C: EHLO again.test
        S: 550 5.7.1 Not you
        C: RCPT TO:<carl@mx.test>
        S: 250 2.1.5 Recipient ok
    """
    )


@pytest.mark.parametrize(
    ("text", "line"), [("glad " * 200, "glad " * 80), ("", "mx.test"), ("a\nPIPELINING", "a PIPELINING")]
)
def test_a_hooks_own_greeting_is_one_line(text, line):
    protocol = ServerProtocol(ProtocolSettings(hostname="mx.test"))
    protocol.receive(b"EHLO probe\r\n")
    protocol.next_event()
    protocol.accept()
    protocol.next_event()
    protocol.take_output()
    protocol.accept(Reply(250, "", text))
    assert protocol.take_output().decode().startswith(f"250-{line.rstrip()}\r\n250-PIPELINING\r\n250-SIZE ")


def test_a_hooks_own_greeting_leaves_the_extensions_alone():
    play(
        """
        S: 220 mx.test ready
        H: Hello accept 250 mx.test is glad to see you
        C: EHLO probe
        S: 250-mx.test is glad to see you
        S: 250-ENHANCEDSTATUSCODES
        S: 250 HELP
        C: HELO probe
        S: 250 mx.test
        H: Hello accept 250 hi
        C: HELO probe
        S: 250 hi
    """,
        max_recipients=0,
        without=frozenset({"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "VRFY"} | LATER),
    )


def test_refused_content_ends_the_transaction():
    """RFC 5321 4.1.1.4: whatever the verdict, the buffers are cleared."""
    play(
        ENVELOPE
        + """
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        H: ContentEnds refuse 554 5.7.1 Spam
        C: buy
        C: .
        S: 554 5.7.1 Spam
        C: RCPT TO:<bob@mx.test>
        S: 503 5.5.1 Sender first
    """
    )


def test_content_refused_at_data_leaves_the_transaction():
    play(
        ENVELOPE
        + """
        H: ContentBegins refuse 451 4.3.0 Later
        C: DATA
        S: 451 4.3.0 Later
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        C: .
        S: 250 2.0.0 Ok
    """
    )


def test_everything_before_hello_is_out_of_order():
    """RFC 5321 4.1.4."""
    play("""
        S: 220 mx.test ready
        C: MAIL FROM:<ann@probe.test>
        S: 503 5.5.1 Say hello first
        C: DATA
        S: 503 5.5.1 Say hello first
        C: NOOP
        S: 250 2.0.0 Ok
        C: RSET
        S: 250 2.0.0 Ok
        C: MAIL FROM:<ann@probe.test>
        S: 503 5.5.1 Say hello first
    """)


@pytest.mark.parametrize(
    "hello", ["EHLO", "HELO", "EHLO a b", "EHLO [1.2.3]", "EHLO -x", "EHLO [IPv6:zz]", "EHLO h\xe9"]
)
def test_a_hello_needs_a_name(hello):
    """RFC 5321 4.1.1.1."""
    play(f"""
        S: 220 mx.test ready
        C: {hello}
        S: 501 5.5.4 A domain or an address literal is due after the verb
    """)


@pytest.mark.parametrize("name", ["probe", "my_pc", "[127.0.0.1]", "[IPv6:::1]", "127.0.0.1", "a.b.c.", "[x:y]"])
def test_a_client_is_not_refused_for_its_odd_name(name):
    """RFC 5321 4.1.4: the server must not refuse a client because its name doesn't verify."""
    played = play(f"S: 220 mx.test ready\nC: EHLO {name}\nS: 250 mx.test")
    assert played.of(events.Hello)[0].domain == name


def test_help_names_the_verbs_and_their_syntax():
    """RFC 5321 4.1.1.8."""
    play("""
        S: 220 mx.test ready
        C: HELP
        S: 214-2.0.0 Commands:
        S: 214-2.0.0   BDAT DATA EHLO HELO HELP MAIL NOOP QUIT
        S: 214-2.0.0   RCPT RSET VRFY
        S: 214 2.0.0 HELP verb says more
        C: HELP rcpt
        S: 214 2.0.0 RCPT TO:<address> [parameters]
        C: HELP XYZZY
        S: 504 5.5.4 No help for that
    """)


def test_vrfy_and_expn():
    """RFC 5321 3.5.3: 252 where the answer is not to be told; EXPN is off unless it was enabled."""
    play(
        HELLO
        + """
        C: VRFY ann
        S: 252 2.0.0 Cannot verify, but will take mail and try
        H: Verify accept 250 2.1.5 Ann <ann@mx.test>
        C: VRFY ann
        S: 250 2.1.5 Ann <ann@mx.test>
        C: VRFY
        S: 501 5.5.4 An argument is due after the verb
        C: EXPN staff
        S: 502 5.5.1 Command not implemented
    """
    )
    play(HELLO + "H: Expand accept 250 2.1.5 ann@mx.test\nC: EXPN staff\nS: 250 2.1.5 ann@mx.test", expn=True)


@pytest.mark.parametrize("verb", ["SEND FROM:<a@b.test>", "SOML FROM:<a@b.test>", "SAML FROM:<a@b.test>", "TURN"])
def test_old_verbs_are_known_and_not_served(verb):
    play(HELLO + f"C: {verb}\nS: 502 5.5.1 Command not implemented")


def test_verbs_and_keywords_are_case_insensitive():
    """RFC 5321 2.4."""
    play("""
        S: 220 mx.test ready
        C: ehlo probe
        S: 250 mx.test
        C: mAIL fROM:<ann@probe.test> size=10 Body=8bitmime
        S: 250 2.1.0 Sender ok
        C: rcpt to:<POSTMASTER>
        S: 250 2.1.5 Recipient ok
        C: data
        S: 354 End data with <CRLF>.<CRLF>
        C: .
        S: 250 2.0.0 Ok
        C: quit
        S: 221 2.0.0 Bye
    """)


def test_trailing_white_space_is_tolerated():
    """RFC 5321 4.1.1."""
    play(HELLO + r"C: NOOP \x20" + "\n    S: 250 2.0.0 Ok\n    C: RSET\\x20\\t\n    S: 250 2.0.0 Ok")


@pytest.mark.parametrize("line", ["DATA now", "RSET now", "QUIT now"])
def test_an_argument_where_none_is_due(line):
    """RFC 5321 4.3.2: 501."""
    play(ENVELOPE + f"C: {line}\nS: 501 5.5.4 This command takes no argument")


def test_a_hook_may_greet_and_refuse():
    play("""
        H: Connected accept 220 mx.test at your service
        S: 220 mx.test at your service
    """)
    play("""
        H: Connected refuse 421 4.3.2 Too many connections; try again later
        S: 421 4.3.2 Too many connections; try again later
        S: (closed)
    """)


def test_a_421_of_the_handler_ends_the_dialogue():
    """RFC 5321 3.8."""
    play(
        HELLO
        + """
        H: MailFrom refuse 421 4.7.0 Go away
        C: MAIL FROM:<ann@probe.test>
        S: 421 4.7.0 Go away
        S: (closed)
    """
    )


def test_more_recipients_than_allowed():
    """RFC 5321 4.5.3.1.10: 452, and those that were accepted stay."""
    play(
        ENVELOPE
        + """
        C: RCPT TO:<carl@mx.test>
        S: 250 2.1.5 Recipient ok
        C: RCPT TO:<dora@mx.test>
        S: 452 4.5.3 Too many recipients; send the rest in another transaction
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
    """,
        max_recipients=2,
    )


def test_a_pipelined_group_is_answered_in_order_and_in_one_piece():
    """RFC 2920 3.2."""
    played = play("""
        S: 220 mx.test ready
        C: EHLO probe
        C: MAIL FROM:<ann@probe.test>
        H: RcptTo accept
        H: RcptTo refuse 550 5.1.1 Nobody
        C: RCPT TO:<bob@mx.test>
        C: RCPT TO:<nobody@mx.test>
        C: DATA
        S: 250 mx.test
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 550 5.1.1 Nobody
        S: 354 End data with <CRLF>.<CRLF>
        C: text
        C: .
        C: QUIT
        S: 250 2.0.0 Ok
        S: 221 2.0.0 Bye
        S: (closed)
    """)
    assert played.messages == [b"text\r\n"]


def test_a_client_that_pipelines_quit_and_half_closes_gets_every_reply():
    play(
        HELLO
        + """
        C: MAIL FROM:<ann@probe.test>
        C: RCPT TO:<bob@mx.test>
        C: QUIT
        X: half-close
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 221 2.0.0 Bye
        S: (closed)
    """
    )


def test_a_client_that_leaves_inside_content_leaves_nothing():
    played = play(
        ENVELOPE
        + """
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        C: half a mess
        X: gone
    """
    )
    assert played.messages == []
    assert isinstance(played.events[-1], events.ContentDropped)
