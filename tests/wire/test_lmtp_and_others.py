"""LMTP (RFC 2033), ETRN (RFC 1985), XCLIENT and XFORWARD, and verbs of the embedding program."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.command_table import CustomVerb
from smtpd_core.wire.events import ENDED
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Gate, Phase
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol
from tests.support.transcript import play
from tests.wire.test_session_rfc5321 import ENVELOPE, HELLO

LMTP = """
    S: 220 mx.test ready
    C: LHLO probe
    S: 250 mx.test
    C: MAIL FROM:<ann@probe.test>
    S: 250 2.1.0 Sender ok
    C: RCPT TO:<bob@mx.test>
    S: 250 2.1.5 Recipient ok
    H: RcptTo refuse 550 5.1.1 Nobody
    C: RCPT TO:<nobody@mx.test>
    S: 550 5.1.1 Nobody
    C: RCPT TO:<carl@mx.test>
    S: 250 2.1.5 Recipient ok
"""
GO_AHEAD = "C: DATA\nS: 354 End data with <CRLF>.<CRLF>\n"


def test_lmtp_answers_once_per_accepted_recipient():
    """RFC 2033 4.2."""
    play(
        LMTP
        + GO_AHEAD
        + """
        H: ContentEnds accept each 250 2.0.0 Kept|452 4.2.2 Mailbox full
        C: text
        C: .
        S: 250 2.0.0 Kept
        S: 452 4.2.2 Mailbox full
        C: NOOP
        S: 250 2.0.0 Ok
    """,
        service="lmtp",
    )


def test_lmtp_repeats_one_verdict_for_all():
    play(LMTP + GO_AHEAD + "C: .\nS: 250 2.0.0 Ok\nS: 250 2.0.0 Ok", service="lmtp")
    play(LMTP + GO_AHEAD + "H: ContentEnds refuse 554 5.7.1 No\nC: .\nS: 554 5.7.1 No\nS: 554 5.7.1 No", service="lmtp")
    play(
        LMTP + GO_AHEAD + "C| a\\nb\\r\\n.\\r\\n\n" + "S: 550 5.6.0 Bare CR or LF in content; lines end in CRLF\n" * 2,
        service="lmtp",
    )


def test_a_421_among_the_replies_of_lmtp_ends_the_dialogue():
    play(
        """
        S: 220 mx.test ready
        C: LHLO probe
        S: 250 mx.test
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<a@here.test>
        S: 250 2.1.5 Recipient ok
        C: RCPT TO:<b@here.test>
        S: 250 2.1.5 Recipient ok
        C: DATA
        S: 354 End data with <CRLF>.<CRLF>
        H: ContentEnds accept each 250 2.0.0 Kept|421 4.3.2 Not now
        C: .
        S: 250 2.0.0 Kept
        S: 421 4.3.2 Not now
        S: (closed)
    """,
        service="lmtp",
    )


def test_lmtp_with_chunks():
    """RFC 2033 4.2: only the last chunk is answered per recipient."""
    play(
        LMTP
        + """
        C: BDAT 2
        C| hi
        S: 250 2.0.0 2 octets received
        C: BDAT 0 LAST
        S: 250 2.0.0 Ok
        S: 250 2.0.0 Ok
    """,
        service="lmtp",
    )


@pytest.mark.parametrize("verb", ["HELO", "EHLO"])
def test_lmtp_knows_no_other_hello(verb):
    """RFC 2033 4.1."""
    play(f"S: 220 mx.test ready\nC: {verb} probe\nS: 500 5.5.2 Unknown command", service="lmtp")


def test_replies_that_are_not_one_per_recipient_are_our_mistake():
    protocol = ServerProtocol(ProtocolSettings(service="lmtp"))
    protocol.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nDATA\r\n.\r\n")
    while not isinstance(protocol.next_event(), events.ContentEnds):
        if protocol.verdict is not None:
            protocol.accept()
    with pytest.raises(ValueError, match="1 replies are due, not 2"):
        protocol.accept(replies=[Reply(250), Reply(250)])


def test_etrn_is_for_the_handler():
    """RFC 1985 5.3."""
    played = play(
        HELLO
        + """
        C: ETRN probe.test
        S: 250 2.0.0 Queueing started
        H: Etrn refuse 458 4.3.0 Unable to queue
        C: ETRN @probe.test
        S: 458 4.3.0 Unable to queue
        H: Etrn refuse
        C: ETRN #queue-1
        S: 459 4.7.1 Node not allowed
        C: ETRN
        S: 501 5.5.4 Syntax: ETRN node
        C: ETRN not a node
        S: 501 5.5.4 Syntax: ETRN node
    """,
        etrn=True,
    )
    assert [one.text for one in played.of(events.Etrn)] == ["probe.test", "@probe.test", "#queue-1"]
    play(HELLO + "C: ETRN probe.test\nS: 502 5.5.1 Command not implemented")


def test_xclient_starts_the_session_over():
    played = play(
        HELLO
        + """
        C: XCLIENT NAME=spike.example ADDR=168.100.189.2 HELO=spike LOGIN=[UNAVAILABLE]
        S: 220 mx.test ready
        C: MAIL FROM:<>
        S: 503 5.5.1 Say hello first
        C: EHLO again
        S: 250 mx.test
        C: XFORWARD NAME=a+2Bb SOURCE=REMOTE
        S: 250 2.0.0 Ok
        C: XCLIENT COLOUR=blue
        S: 501 5.5.4 Bad parameter value
        C: XCLIENT NAME=a+zz
        S: 501 5.5.4 Bad parameter value
        C: XCLIENT
        S: 501 5.5.4 An argument is due after the verb
    """,
        trusted=True,
    )
    first, second = played.of(events.ClientFacts)
    assert first.attributes == {"NAME": "spike.example", "ADDR": "168.100.189.2", "HELO": "spike", "LOGIN": ""}
    assert (second.verb, second.attributes) == ("XFORWARD", {"NAME": "a+b", "SOURCE": "REMOTE"})
    assert any("XCLIENT" in line for line in played.said)


@pytest.mark.parametrize(
    "fact",
    [
        "HELO=a+0D+0AX-Evil:+20yes",
        "NAME=a+00b",
        "LOGIN=a+0Ab",
        "PORT=+C2+B2",
        "PORT=65536",
        "PORT=-1",
        "PORT=999999999999",
        "ADDR=bogus",
        "ADDR=1.2.3",
        "ADDR=IPV6:fe80::1%25eth0",
        "ADDR=1.2.3.4+0A",
        "DESTADDR=x",
        "DESTPORT=x",
        "NAME=",
    ],
)
def test_facts_that_can_not_be_are_refused(fact):
    """They would go into the trace, the log and the lists of networks."""
    play(HELLO + f"C: XCLIENT {fact}\nS: 501 5.5.4 Bad parameter value", trusted=True)


def test_a_hello_told_by_xclient_that_is_no_name_is_left_out():
    played = play(HELLO + "C: XCLIENT HELO=my+20host+28x+29\nS: 220 mx.test ready", trusted=True)
    assert played.protocol is not None and played.protocol.hello == ""


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
def test_strangers_are_not_believed(verb):
    played = play(HELLO + f"C: {verb} NAME=x ADDR=1.2.3.4\nS: 550 5.7.1 Not permitted for this client")
    assert not any(verb in line for line in played.said)


# Verbs of the embedding program


def test_a_verb_can_be_added():
    played = play(
        HELLO
        + """
        C: XYZZY  with  care
        S: 250 2.0.0 Nothing happens
        H: CustomCommand refuse 550 5.7.1 No magic here
        C: xyzzy
        S: 550 5.7.1 No magic here
        C: HELP
        S: 214 2.0.0 Commands:
    """,
        commands=(CustomVerb("XYZZY", reply=Reply(250, "2.0.0", "Nothing happens")),),
    )
    assert [one.argument for one in played.of(events.CustomCommand)] == [" with  care", ""]
    assert any("XYZZY" in line for line in played.said)


def test_an_added_verb_has_its_phases_and_gates():
    verb = CustomVerb("XYZZY", legal=frozenset({Phase.SENDER}), gates=(Gate.LOGIN_IF_REQUIRED,))
    play(
        HELLO + "C: XYZZY\nS: 503 5.5.1 Not in this phase of the dialogue\nC: MAIL FROM:<>\nS: 250 2.1.0 Sender ok\n"
        "C: XYZZY\nS: 250 2.0.0 Ok",
        commands=(verb,),
    )
    play(
        HELLO + "C: XYZZY\nS: 530 5.7.0 Authentication required",
        commands=(verb,),
        mechanisms=("PLAIN",),
        login_required=True,
    )


def test_a_verb_can_be_replaced():
    play(
        HELLO
        + "H: CustomCommand accept 250 2.1.5 Everybody lives here\nC: VRFY ann\nS: 250 2.1.5 Everybody lives here",
        commands=(CustomVerb("VRFY", "replace"),),
    )


def test_a_verb_can_be_wrapped():
    """The embedding program is asked first; then the built-in step goes its way."""
    played = play(
        HELLO
        + """
        H: CustomCommand refuse 450 4.7.1 Not yet
        C: MAIL FROM:<ann@probe.test>
        S: 450 4.7.1 Not yet
        C: MAIL FROM:<ann@probe.test>
        S: 250 2.1.0 Sender ok
        C: MAIL FROM:<ann@probe.test>
        S: 503 5.5.1 Sender already given
    """,
        commands=(CustomVerb("MAIL", "wrap"),),
    )
    assert [type(one).__name__ for one in played.events[2:]] == ["CustomCommand", "CustomCommand", "MailFrom"]


def test_wrapped_data_and_quit_go_on_as_ever():
    played = play(
        ENVELOPE + GO_AHEAD + "C: text\nC: .\nS: 250 2.0.0 Ok\nC: RSET\nS: 250 2.0.0 Ok\nC: QUIT\nS: 221 2.0.0 Bye",
        commands=(CustomVerb("DATA", "wrap"), CustomVerb("QUIT", "wrap"), CustomVerb("RSET", "wrap")),
    )
    assert played.messages == [b"text\r\n"]


def test_a_verb_can_be_removed():
    play(HELLO + "C: VRFY ann\nS: 502 5.5.1 Command not implemented", commands=(CustomVerb("VRFY", "remove"),))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CustomVerb("no"), "upper-case"),
        (lambda: CustomVerb("X Y"), "upper-case"),
        (lambda: CustomVerb("XYZZY", "twist"), "how is one of"),
        (lambda: CustomVerb("XYZZY", legal=frozenset({Phase.CONTENT})), "phases that read commands"),
        (lambda: ProtocolSettings(commands=(CustomVerb("MAIL"),)), "is there already"),
        (lambda: ProtocolSettings(commands=(CustomVerb("XYZZY", "wrap"),)), "there is none to wrap"),
        (lambda: ProtocolSettings(commands=(CustomVerb("BDAT", "wrap"),)), "only be removed"),
        (lambda: ProtocolSettings(commands=(CustomVerb("DATA", "replace"),)), "can't be replaced"),
        (lambda: ProtocolSettings(service="smtp"), "one of mx, submission, lmtp"),
        (lambda: ProtocolSettings(hostname="two words"), "a domain name"),
        (lambda: ProtocolSettings(hostname="b\u00fccher.test"), "ASCII"),
        (lambda: ProtocolSettings(max_command_line=100), "512"),
        (lambda: ProtocolSettings(max_message_size=-1), "0 .no limit. or more"),
        (lambda: ProtocolSettings(without=frozenset({"XYZZY"})), "no such extension"),
        (lambda: ProtocolSettings(mechanisms=("GSSAPI",)), "is due"),
        (lambda: ProtocolSettings(login_required=True), "nobody could ever log in"),
    ],
)
def test_settings_that_can_not_be_are_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_verdict_that_nobody_asked_for_is_our_mistake():
    protocol = ServerProtocol(ProtocolSettings())
    with pytest.raises(ValueError, match="no verdict is awaited"):
        protocol.accept()
    protocol.next_event()
    with pytest.raises(ValueError, match="no secret was asked for"):
        protocol.supply("x")


def test_the_end_of_input_in_silence_is_the_end():
    protocol = ServerProtocol(ProtocolSettings())
    protocol.next_event()
    protocol.accept()
    protocol.end_of_input()
    assert protocol.next_event() is ENDED
