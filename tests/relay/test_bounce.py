"""Delivery status notifications as RFC 3464, 6522 and 6533 write them, and who gets one (RFC 3461)."""

from __future__ import annotations

import email
import email.policy
import io
from email.message import Message as Mime

import pytest

from relay.bounce import MAX_HEADERS, MAX_RETURNED, Report, compose, headers_of, reports_due
from relay.mail import Message, Outcome, Parcel, Recipient, Result
from smtpd_core.wire.envelope import MailParameters
from tests.support.parcels import CONTENT, body, parcel

NOW = 1_800_000_000.0
REFUSED = Outcome(0, Result.FAILED, 550, "5.1.1", "no such user", "mx.there.test [192.0.2.1]", at=NOW)


def report(
    of: Parcel, action: str = "failed", outcome: Outcome = REFUSED, number: int = 0, retry_until: float = 0.0
) -> Report:
    return Report(of.stops[number], outcome, action, retry_until)


def written(message: Message) -> Mime:
    assert message.body.content is not None
    assert message.body.size == len(message.body.content)
    assert message.body.content.count(b"\n") == message.body.content.count(b"\r\n")
    return email.message_from_bytes(message.body.content)


def parts(letter: Mime) -> list[Mime]:
    found = letter.get_payload()
    assert isinstance(found, list) and len(found) == 3
    return found


def test_the_whole_of_a_failure_report() -> None:
    bob = Recipient("bob@there.test", (), "rfc822;Bob+40old@there.test")
    of = parcel(bob, parameters=MailParameters(envid="QQ314159"))
    message = compose(of, [report(of)], body(), "mx.here.test", NOW)
    assert message.envelope.sender == ""
    assert message.envelope.recipients == (Recipient("ann@here.test", ("NEVER",)),)
    letter = written(message)
    assert letter["To"] == "<ann@here.test>" and letter["Auto-Submitted"] == "auto-replied"
    assert letter.get_content_type() == "multipart/report"
    assert letter.get_param("report-type") == "delivery-status"
    human, status, returned = parts(letter)
    text = str(human.get_payload())
    assert "<bob@there.test>" in text and "no such user" in text and "mx.there.test [192.0.2.1] said" in text
    assert status.get_content_type() == "message/delivery-status"
    about, recipient = status.get_payload()  # type: ignore[misc]
    assert dict(about.items()) == {  # type: ignore[union-attr]
        "Original-Envelope-Id": "QQ314159",
        "Reporting-MTA": "dns; mx.here.test",
        "Arrival-Date": "Fri, 15 Jan 2027 08:00:00 -0000",
    }
    assert dict(recipient.items()) == {  # type: ignore[union-attr]
        "Original-Recipient": "rfc822;Bob+40old@there.test",
        "Final-Recipient": "rfc822;bob@there.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.there.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Fri, 15 Jan 2027 08:00:00 -0000",
    }
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload().strip().endswith("Subject: hello")  # type: ignore[union-attr]
    assert ".dot" not in str(returned)


@pytest.mark.parametrize(
    ("ret", "size", "kind"),
    [
        ("", 10, "text/rfc822-headers"),
        ("HDRS", 10, "text/rfc822-headers"),
        ("FULL", 10, "message/rfc822"),
        ("FULL", MAX_RETURNED, "text/rfc822-headers"),
    ],
)
def test_ret_says_how_much_comes_back_and_large_mail_comes_back_as_its_headers(ret: str, size: int, kind: str) -> None:
    content = CONTENT + b"x" * size
    of = parcel("bob@there.test", content=content, parameters=MailParameters(ret=ret))
    returned = parts(written(compose(of, [report(of)], body(content), "mx.here.test", NOW)))[2]
    assert returned.get_content_type() == kind


def test_a_delay_says_until_when_it_is_tried_and_returns_no_content() -> None:
    of = parcel("bob@there.test", parameters=MailParameters(ret="FULL"))
    late = Outcome(0, Result.DEFERRED, 0, "4.4.1", "connect: no answer in time", at=NOW)
    one = report(of, "delayed", late, retry_until=NOW + 86_400)
    letter = written(compose(of, [one], body(), "mx.here.test", NOW))
    assert "Delayed" in letter["Subject"]
    text = letter.as_string()
    assert "Will-Retry-Until: Sat, 16 Jan 2027 08:00:00 -0000" in text
    assert "Action: delayed\nStatus: 4.4.1" in text
    assert "Remote-MTA" not in text and "Diagnostic-Code: X-Local; connect" in text
    assert parts(letter)[2].get_content_type() == "text/rfc822-headers"


def test_what_expired_has_failed_with_4_4_7() -> None:
    of = parcel("bob@there.test")
    one = report(of, "failed", Outcome(0, Result.EXPIRED, 450, "4.2.0", "later", "mx [192.0.2.1]", at=NOW))
    text = written(compose(of, [one], body(), "mx.here.test", NOW)).as_string()
    assert "Action: failed\nStatus: 4.4.7" in text and "smtp; 450 4.2.0 later" in text


def test_several_recipients_share_a_report() -> None:
    of = parcel("a@x.test", "b@x.test")
    other = Outcome(1, Result.RELAYED, 250, "2.0.0", "ok", "mx.x.test [192.0.2.1]", at=NOW)
    letter = written(compose(of, [report(of), report(of, "relayed", other, 1)], body(), "mx.here.test", NOW))
    text = letter.as_string()
    assert "Action: failed" in text and "Action: relayed" in text
    assert "Undelivered" in letter["Subject"]


@pytest.mark.parametrize("sender", ["ann@here.test", "änn@here.test"])
def test_addresses_beyond_ascii_are_reported_as_rfc_6533_says(sender: str) -> None:
    of = parcel(Recipient("bøb@there.test", (), "utf-8;bøb@there.test"), sender=sender)
    message = compose(of, [report(of)], body(), "mx.here.test", NOW)
    assert message.envelope.parameters.smtputf8 is not sender.isascii()
    assert message.envelope.parameters.body == "8BITMIME"
    assert message.body.content is not None
    letter = email.message_from_bytes(message.body.content, policy=email.policy.default)
    kinds = [part.get_content_type() for part in letter.iter_parts()]  # type: ignore[attr-defined]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert "Final-Recipient: utf-8;bøb@there.test".encode() in message.body.content


def test_what_a_peer_says_makes_no_field_of_its_own() -> None:
    said = "no\r\nAction: delivered\n\nX: y\r\n\r\n--boundary"
    evil = Outcome(0, Result.FAILED, 550, "5.0.0", said, "evil\r\nX: z [192.0.2.1]", at=NOW)
    of = parcel(Recipient("bob@there.test", (), "rfc822;a\r\nAction: delivered"))
    status = parts(written(compose(of, [report(of, "failed", evil)], body(), "mx.here.test", NOW)))[1]
    blocks = status.get_payload()
    assert isinstance(blocks, list) and len(blocks) == 2
    assert blocks[1].get_all("Action") == ["failed"]
    assert "X" not in blocks[1]


@pytest.mark.parametrize(
    ("notify", "result", "passed_on", "late", "action"),
    [
        ((), Result.FAILED, False, False, "failed"),
        ((), Result.EXPIRED, False, False, "failed"),
        (("NEVER",), Result.EXPIRED, False, False, ""),
        (("SUCCESS", "DELAY"), Result.FAILED, False, False, ""),
        ((), Result.DEFERRED, False, True, "delayed"),
        ((), Result.DEFERRED, False, False, ""),
        (("FAILURE",), Result.DEFERRED, False, True, ""),
        (("DELAY",), Result.DEFERRED, False, True, "delayed"),
        (("SUCCESS",), Result.RELAYED, False, False, "relayed"),
        (("SUCCESS",), Result.RELAYED, True, False, ""),
        (("SUCCESS",), Result.DELIVERED, False, False, "delivered"),
        (("FAILURE",), Result.DELIVERED, False, False, ""),
    ],
)
def test_who_hears_of_what(notify: tuple[str, ...], result: Result, passed_on: bool, late: bool, action: str) -> None:
    of = parcel(Recipient("bob@there.test", notify))
    outcome = Outcome(0, result, dsn_passed_on=passed_on)
    due = reports_due(of, [outcome], [0] if late else [], NOW)
    assert [one.action for one in due] == ([action] if action else [])
    null = parcel(Recipient("bob@there.test", notify), sender="")
    assert reports_due(null, [outcome], [0], NOW) == []


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"A: b\r\nC: d\r\n\r\nbody", b"A: b\r\nC: d\r\n"),
        (b"A: b\r\nC: d\r\nE: cut", b"A: b\r\nC: d\r\n"),
        (b"\r\nbody", b""),
        (b"no line end at all", b"no line end at all"),
        (b"", b""),
    ],
)
def test_headers_end_at_the_empty_line_or_at_a_whole_line(data: bytes, headers: bytes) -> None:
    assert headers_of(data) == headers


def test_a_header_without_end_is_cut() -> None:
    content = b"X: y\r\n" * 20_000
    of = parcel("bob@there.test", content=content)
    message = compose(of, [report(of)], lambda: io.BytesIO(content), "mx.here.test", NOW)
    assert message.body.size < MAX_HEADERS + 4_000
