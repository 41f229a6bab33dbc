"""Parameters of MAIL and RCPT, each by the grammar of its RFC, carried in the event."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.envelope import DeliverBy, MailParameters, Recipient
from smtpd_core.wire.parameters import decode_xtext, encode_xtext
from tests.support.transcript import play
from tests.wire.test_session_rfc5321 import HELLO

OK = "250 2.1.0 Sender ok"
BAD = "501 5.5.4 Bad parameter value"
UNKNOWN = "555 5.5.4 Parameter not recognised"
EVERYTHING = {"service": "submission", "mechanisms": ("PLAIN",), "requiretls": True}


def mail(words, reply=OK, **changes):
    played = play(HELLO + f"C: MAIL FROM:<ann@mx.test> {words}\nS: {reply}", **{**EVERYTHING, **changes})
    found = played.of(events.MailFrom)
    return found[0].parameters if found else None


@pytest.mark.parametrize(
    "words, parameters",
    [
        ("SIZE=1000", MailParameters(size=1000)),
        ("SIZE=0", MailParameters(size=0)),
        ("BODY=7BIT", MailParameters(body="7BIT")),
        ("body=8bitmime", MailParameters(body="8BITMIME")),
        ("BODY=BINARYMIME", MailParameters(body="BINARYMIME")),
        ("SMTPUTF8", MailParameters(smtputf8=True)),
        ("RET=FULL", MailParameters(ret="FULL")),
        ("ret=hdrs", MailParameters(ret="HDRS")),
        ("ENVID=QQ+2B314159", MailParameters(envid="QQ+314159")),
        ("AUTH=<>", MailParameters(auth="")),
        ("AUTH=e+3Dmc2@example.com", MailParameters(auth="e=mc2@example.com")),
        ("BY=120;R", MailParameters(by=DeliverBy(120, "R"))),
        ("BY=-30;NT", MailParameters(by=DeliverBy(-30, "N", True))),
        ("by=120;rt", MailParameters(by=DeliverBy(120, "R", True))),
        ("HOLDFOR=86400", MailParameters(hold_for=86400)),
        ("HOLDUNTIL=2026-12-24T18:00:00Z", MailParameters(hold_until="2026-12-24T18:00:00Z")),
        ("HOLDUNTIL=2026-12-24t18:00:00.5+01:00", MailParameters(hold_until="2026-12-24T18:00:00.5+01:00")),
        ("HOLDUNTIL=2026-12-31T23:59:60Z", MailParameters(hold_until="2026-12-31T23:59:59Z")),
        ("MT-PRIORITY=3", MailParameters(priority=3)),
        ("MT-PRIORITY=-9", MailParameters(priority=-9)),
        ("REQUIRETLS", MailParameters(require_tls=True)),
        (
            "SIZE=5 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x",
            MailParameters(size=5, body="8BITMIME", smtputf8=True, ret="HDRS", envid="x"),
        ),
    ],
)
def test_mail_parameters_are_read(words, parameters):
    assert mail(words) == parameters


@pytest.mark.parametrize(
    "words, reply",
    [
        ("SIZE", BAD),
        ("SIZE=", BAD),
        ("SIZE=-1", BAD),
        ("SIZE=1k", BAD),
        ("SIZE=\u0661", BAD),
        ("SIZE=" + "9" * 20, "552 5.3.4 Message too large"),
        ("SIZE=" + "9" * 21, BAD),
        ("SIZE=1 SIZE=2", "501 5.5.4 Parameter given twice"),
        ("SIZE=1 size=1", "501 5.5.4 Parameter given twice"),
        ("BODY", BAD),
        ("BODY=9BIT", BAD),
        ("SMTPUTF8=yes", BAD),
        ("RET=SOME", BAD),
        ("RET", BAD),
        ("ENVID=", BAD),
        ("ENVID=a+2", BAD),
        ("ENVID=a+2b", BAD),
        ("ENVID=a+0Db", BAD),
        ("ENVID=" + "x" * 101, BAD),
        ("AUTH=", BAD),
        ("AUTH=ann", BAD),
        ("BY=10", BAD),
        ("BY=0;R", BAD),
        ("BY=-1;R", BAD),
        ("BY=10;X", BAD),
        ("BY=1234567890;N", BAD),
        ("HOLDFOR=0", BAD),
        ("HOLDFOR=9999999", BAD),
        ("HOLDUNTIL=tomorrow", BAD),
        ("HOLDUNTIL=2026-13-01T00:00:00Z", BAD),
        ("HOLDUNTIL=2026-02-30T00:00:00Z", BAD),
        ("HOLDFOR=1 HOLDUNTIL=2026-12-24T18:00:00Z", BAD),
        ("MT-PRIORITY=-0", "501 5.5.4 MT-PRIORITY is -9 to 9"),
        ("MT-PRIORITY=10", "501 5.5.4 MT-PRIORITY is -9 to 9"),
        ("MT-PRIORITY=", BAD),
        ("MT-PRIORITY", "501 5.5.4 MT-PRIORITY is -9 to 9"),
        ("REQUIRETLS=1", BAD),
        ("XYZZY=1", UNKNOWN),
        ("XYZZY", UNKNOWN),
        ("NOTIFY=NEVER", UNKNOWN),
        ("=1", BAD),
        ("A=B=C", BAD),
    ],
)
def test_mail_parameters_are_judged(words, reply):
    assert mail(words, reply) is None


@pytest.mark.parametrize(
    "words, recipient",
    [
        ("NOTIFY=NEVER", ("NEVER",)),
        ("NOTIFY=SUCCESS,FAILURE", ("SUCCESS", "FAILURE")),
        ("notify=delay", ("DELAY",)),
        ("NOTIFY=DELAY,DELAY", ("DELAY",)),
        ("ORCPT=rfc822;Bob+40x@mx.test", "rfc822;Bob@x@mx.test"),
        (r"ORCPT=utf-8;b\\x{F6}b@mx.test", "utf-8;b\u00f6b@mx.test"),
        ("ORCPT=utf-8;b\u00f6b@mx.test", "utf-8;b\u00f6b@mx.test"),
    ],
)
def test_rcpt_parameters_are_read(words, recipient):
    """RFC 3461 4.1 and 4.2, RFC 6533 3."""
    played = play(
        HELLO
        + f"""
        C: MAIL FROM:<ann@mx.test> SMTPUTF8
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<bob@mx.test> {words}
        S: 250 2.1.5 Recipient ok
    """
    )
    expected = (
        Recipient("bob@mx.test", orcpt=recipient)
        if isinstance(recipient, str)
        else Recipient("bob@mx.test", notify=recipient)
    )
    assert played.of(events.RcptTo)[0].recipient == expected


@pytest.mark.parametrize(
    "words, reply",
    [
        ("NOTIFY", BAD),
        ("NOTIFY=", BAD),
        ("NOTIFY=NEVER,DELAY", BAD),
        ("NOTIFY=SOMETIMES", BAD),
        ("NOTIFY=SUCCESS,", BAD),
        ("ORCPT=bob@mx.test", BAD),
        ("ORCPT=rfc822;", BAD),
        ("ORCPT=rfc822;a+zz", BAD),
        ("ORCPT=rfc822;a+0D+0Ab", BAD),
        (r"ORCPT=utf-8;\\x{D800}", BAD),
        (r"ORCPT=utf-8;\\x{FFFFFF}", BAD),
        ("ORCPT=rfc822;" + "x" * 500, BAD),
        ("SIZE=1", UNKNOWN),
    ],
)
def test_rcpt_parameters_are_judged(words, reply):
    play(HELLO + f"C: MAIL FROM:<>\nS: {OK}\nC: RCPT TO:<bob@mx.test> {words}\nS: {reply}")


@pytest.mark.parametrize(
    "words, changes",
    [
        ("REQUIRETLS", {"requiretls": False}),
        ("AUTH=<>", {"mechanisms": ()}),
        ("HOLDFOR=1", {"service": "mx"}),
        ("RET=FULL", {"without": frozenset({"DSN"})}),
        ("SIZE=1", {"without": frozenset({"SIZE"})}),
        ("SMTPUTF8", {"without": frozenset({"SMTPUTF8"})}),
    ],
)
def test_what_is_not_offered_is_not_recognised(words, changes):
    """RFC 5321 4.1.1.11: 555."""
    assert mail(words, UNKNOWN, **changes) is None


def test_parameters_after_helo_are_taken_too():
    """A client that says HELO and still declares a size is understood, not refused."""
    play("S: 220 mx.test ready\nC: HELO probe\nS: 250 mx.test\nC: MAIL FROM:<> SIZE=10\nS: 250 2.1.0 Sender ok")


@pytest.mark.parametrize("text", ["", "plain", "a+b=c", "tab\there", "\u00fcmlaut", " "])
def test_xtext_there_and_back(text):
    """RFC 3461 4."""
    assert decode_xtext(encode_xtext(text)) == text


@pytest.mark.parametrize("text", ["+4", "+4x", "+4a", "a b", "=", "+FF", "\u00fc"])
def test_what_is_no_xtext(text):
    assert decode_xtext(text) is None
