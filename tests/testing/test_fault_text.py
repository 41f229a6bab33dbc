"""Faults as text: the same as in Python, and what is none is explained."""

from __future__ import annotations

from collections.abc import Callable

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
        ("CONNECT hello=x close", "at CONNECT the server does not know hello yet: this never acts"),
        ("MAIL to=b@b.test reply 452", "at MAIL the server does not know to yet"),
        ("AUTH sender=a to=b reply 535", "at AUTH the server does not know sender and to yet"),
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


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (lambda fault: fault.send("250 Ok\r\n"), r"send\('250 Ok.*octets are due"),
        (lambda fault: fault.reply("452"), "reply '452': a whole number is due"),
        (lambda fault: fault.delay("1"), "delay '1': seconds are due"),
        (lambda fault: fault.delay(-1), "delay -1: seconds are due, 0 or more"),
        (lambda fault: fault.read_late(float("nan")), "read_late nan: seconds"),
        (lambda fault: fault.cut(-3), "cut -3: a whole number is due, 0 or more"),
        (lambda fault: fault.stall(times=-1), "times -1: a whole number"),
        (lambda fault: fault.stall(after=0.5), "after 0.5: a whole number"),
    ],
)
def test_a_wrong_argument_is_the_tests_error_and_not_the_servers(
    write: Callable[[Fault], object], complaint: str
) -> None:
    """A text where octets are due ended the turn of the server's thread, and the client waited for its time-out."""
    with pytest.raises((TypeError, ValueError), match=complaint):
        write(on("RCPT"))
