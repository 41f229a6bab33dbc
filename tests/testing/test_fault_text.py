"""Faults as text: the same as in Python, and what is none is explained."""

from __future__ import annotations

import pytest

from smtpd_core.testing import Fault, Faults
from smtpd_core.testing.fault_text import parse


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("RCPT", "a stage and an action"),
        ("RCPT to=a@b", "no action; one of"),
        ("RCPT explode", "no action 'explode'"),
        ("RCPT reply", "needs a code"),
        ("RCPT reply abc", "a whole number"),
        ("RCPT reply 999", "not an SMTP reply code"),
        ("RCPT delay soon", "seconds are due"),
        ("RCPT delay 1 2", "nothing is due after delay 1"),
        ("RCPT close now", "nothing is due after close"),
        ("RCPT 'reply 4", "no closing quotation"),
        ("RCTP reply 452", "did you mean RCPT"),
        ("RCPT drop SIZE", "drop is for EHLO, not for RCPT"),
        ("DATA hang-up 10", "hang_up is for CONTENT, not for DATA"),
        ("STARTTLS certificate expired", "certificate is for HANDSHAKE"),
        ("HANDSHAKE certificate old", "one of good, .*untrusted is due"),
        ("HANDSHAKE reply 454", "reply is nothing for HANDSHAKE; one of certificate, stall"),
        ("magic", "a domain is due"),
    ],
)
def test_a_fault_that_is_none_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Faults().add(text)


def on(stage: str, **where: str) -> Fault:
    return Faults().on(stage, **where)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("RCPT to=*@full.test reply 452 times=2", on("RCPT", to="*@full.test").reply(452, times=2)),
        (
            "mail sender=a@* user=ann hello=x.* reply 451 'Not now' after=3",
            on("MAIL", sender="a@*", user="ann", hello="x.*").reply(451, "Not now", after=3),
        ),
        ("content close", on("content").close()),
        ("content hang-up 100", on("content").hang_up(100)),
        ("EHLO drop size", on("EHLO").drop("SIZE")),
        ("CONNECT delay 0.5", on("CONNECT").delay(0.5)),
        ("DATA read-late 1", on("DATA").read_late(1)),
        ("EHLO split", on("EHLO").split()),
        ("MAIL cut 5", on("MAIL").cut(5)),
        ("MAIL send 'what is this'", on("MAIL").send(b"what is this\r\n")),
        ("NOOP stall", on("NOOP").stall()),
        ("HANDSHAKE certificate expired times=1", on("HANDSHAKE").certificate("expired", times=1)),
        ("* reply 421 after=4", on("*").reply(421, after=4)),
    ],
)
def test_the_text_says_what_the_same_words_say_in_python(text: str, fault: Fault) -> None:
    assert parse(text) == fault
