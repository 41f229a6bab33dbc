"""A notification is a valid multipart/report whatever the hop said, the sender wrote and the message held."""

from __future__ import annotations

import email
import io
import random
import re
from email.message import Message as Mime

import pytest

from relay.agents.seven_bit import seven_bit
from relay.bounce import Report, compose
from relay.mail import Envelope, Outcome, Parcel, Recipient, Result, Stop
from smtpd_core.wire.envelope import MailParameters, Origin

NOW = 1_800_000_000.0
LONG = "x" * 1000
EIGHT_BIT = "Postfach voll \u00fcber\ufffd " * 60


def report(
    text: str = "no such user",
    content: bytes = b"Subject: hi\r\n\r\ntext\r\n",
    address: str = "bob@there.test",
    orcpt: str = "",
    result: Result = Result.FAILED,
    enhanced: str = "5.1.1",
    **parameters: str,
) -> bytes:
    recipient = Recipient(address, (), orcpt)
    origin = Origin("192.0.2.1", 25, "client.test")
    envelope = Envelope("ann@here.test", (recipient,), MailParameters(**parameters), origin, NOW)  # type: ignore[arg-type]
    stop = Stop(0, recipient, "mx:there.test")
    parcel = Parcel("M1", envelope, b"Received: here\r\n", len(content), "mx:there.test", (stop,), 1)
    one = Outcome(0, result, 550, enhanced, text, "mx.there.test [192.0.2.2]", NOW)
    message = compose(parcel, [Report(stop, one, "failed")], lambda: io.BytesIO(content), "relay.test", NOW)
    assert message.envelope.sender == "" and message.body.content is not None
    return message.body.content


def parts(content: bytes) -> list[Mime]:
    mime = email.message_from_bytes(content)
    assert mime.get_content_type() == "multipart/report" and mime.get_param("report-type") == "delivery-status"
    assert not mime.defects
    found = mime.get_payload()
    assert isinstance(found, list) and len(found) == 3
    return found


HOSTILE = {
    "eight bits": {"text": EIGHT_BIT},
    "one long word": {"text": LONG},
    "a long address": {"address": "a" * 64 + "@" + "b" * 200 + ".test", "text": LONG},
    "a long original recipient": {"orcpt": "rfc822;" + "c" * 500, "text": LONG},
    "a long envelope id": {"envid": "e" * 100},
    "no header at all": {"content": b"\r\njust text\r\n"},
    "not even an empty line": {"content": b"one line without end"},
    "header only": {"content": b"Subject: hi\r\n"},
    "nothing": {"content": b""},
    "a header line of a megabyte": {"content": b"Subject: " + b"s" * 1_000_000 + b"\r\n\r\ntext\r\n"},
    "a header of a megabyte": {"content": b"X-Line: value\r\n" * 70_000 + b"\r\ntext\r\n"},
    "eight bits in the header": {"content": "Subject: \u00fc\r\n\r\ntext\r\n".encode("latin-1")},
    "binary content returned whole": {
        "content": b"Subject: x\r\n\r\n\0\r\n\n\r\r\xff\xff", "ret": "FULL", "body": "BINARYMIME"
    },
    "bare ends and NUL in the header": {"content": b"Subject: a\0b\nX: c\rd\r\n\r\ntext\r\n"},
    "its own boundary": {"content": b"--=_M1\r\n--=_M1--\r\n\r\n", "ret": "FULL"},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_notification_is_well_formed_whatever_it_reports(what: str) -> None:
    content = report(**HOSTILE[what])  # type: ignore[arg-type]
    told, status, returned = parts(content)
    assert told.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    # RFC 3464 2.1: fields in 7 bits; RFC 5322 2.1.1: lines of at most 998.
    assert status.as_bytes().isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\0" not in content and not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    message, recipient = status.get_payload()
    assert message["Reporting-MTA"] == "dns; relay.test"
    assert recipient["Action"] == "failed" and recipient["Status"] == "5.1.1"
    assert recipient["Final-Recipient"].startswith("rfc822;")
    assert recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1")
    assert returned.get_content_type() in ("text/rfc822-headers", "message/rfc822")
    # A hop without 8BITMIME gets it too.
    assert seven_bit(content).isascii()


def test_random_words_of_a_hop_never_break_a_notification() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    for _ in range(300):
        said = "".join(chr(source.choice((source.randrange(0x80), source.randrange(0xD7FF)))) for _ in range(400))
        _, status, _ = parts(report(text=said))
        assert len(status.get_payload()) == 2 and status.as_bytes().isascii()


def test_the_time_that_the_sender_gave_is_named_as_the_reason_where_it_ran_out() -> None:
    content = report(result=Result.EXPIRED, enhanced="5.4.7", text="too late")
    assert b"Status: 5.4.7\r\n" in content


def test_what_unicode_takes_for_a_line_end_begins_no_line() -> None:
    """An address with U+2028 in it began a line of the text with what followed, a boundary for one."""
    content = report(address="x\u2028--mark@there.test", text="no\x85--mark")
    assert b"\n--mark" not in content and "x\u2028--mark".encode() in content
