"""The rules of RFC 5321 5, RFC 7505 and RFC 3464, one row each, by their sections."""

from __future__ import annotations

import email
import io
import re
from dataclasses import replace

import pytest

from relay.bounce import Report, compose
from relay.hop import StepTimes
from relay.mail import Envelope, Outcome, Parcel, Recipient, Result, Stop
from relay.mx import Known
from relay.plan import NoRoute
from smtpd_core.wire.envelope import MailParameters, Origin
from tests.relay.test_mx import way

A, B = ["192.0.2.1"], ["192.0.2.2"]

# Section, its rule, what DNS says, the hops in order or the status of the failure.
ROUTES = [
    ("5.1", "the MX hosts, the most preferred first",
     {"MX d.test": [(20, "b.test"), (10, "a.test")], "A a.test": A, "A b.test": B}, ["a.test", "b.test"]),
    ("5.1", "no MX: the address as an implicit MX of preference 0", {"A d.test": A}, ["d.test"]),
    ("5.1", "no MX: an IPv6 address is as good", {"AAAA d.test": ["2001:db8::1"]}, ["d.test"]),
    ("5.1", "with MX, the domain's own address is never used", {"MX d.test": [(1, "a.test")], "A d.test": A}, "5.4.4"),
    ("5.1", "with MX of which none is usable, an error", {"MX d.test": [(1, "a.test")]}, "5.4.4"),
    ("5.1", "a name that does not exist, an error", {"MX d.test": Known.NO_DOMAIN}, "5.1.2"),
    ("5.1", "a look-up that fails for now is tried again later", {"MX d.test": Known.FAILED}, "4.4.3"),
    ("5.1", "and so is one without an answer", {"MX d.test": Known.TIMED_OUT}, "4.4.3"),
    ("5.1", "each address of a host with several is tried",
     {"MX d.test": [(1, "a.test")], "A a.test": A + B}, ["a.test", "a.test"]),
    ("5.1", "ourselves in the list: we and the less preferred are left out",
     {"MX d.test": [(1, "a.test"), (5, "me.test"), (5, "b.test")], "A a.test": A, "A b.test": B}, ["a.test"]),
    ("5.1", "ourselves as the most preferred: an error, not a circle",
     {"MX d.test": [(1, "me.test"), (5, "b.test")], "A b.test": B}, "5.4.6"),
    ("5.2", "addresses of both families take turns",
     {"MX d.test": [(1, "a.test")], "A a.test": A, "AAAA a.test": ["2001:db8::1"]}, ["a.test", "a.test"]),
    ("RFC 7505 3", "a null MX: the domain takes no mail", {"MX d.test": [(0, "")], "A d.test": A}, "5.1.10"),
    ("RFC 7505 3", "its preference does not matter", {"MX d.test": [(10, "")]}, "5.1.10"),
    ("RFC 7505 3", "beside others it is none", {"MX d.test": [(0, ""), (5, "a.test")], "A a.test": A}, ["a.test"]),
]  # fmt: skip


@pytest.mark.parametrize(("section", "rule", "answers", "expected"), ROUTES, ids=[row[1] for row in ROUTES])
def test_the_way_to_a_domain(section: str, rule: str, answers: dict[str, object], expected: list[str] | str) -> None:
    if isinstance(expected, list):
        assert [hop.split()[0] for hop in way("d.test", answers, own_names=("me.test",))] == expected
        return
    with pytest.raises(NoRoute) as caught:
        way("d.test", answers, own_names=("me.test",))
    assert caught.value.enhanced == expected
    assert caught.value.permanent == expected.startswith("5")


# RFC 5321 4.5.3.2, in seconds.
LEAST = {
    "greeting": 300,
    "mail": 300,
    "rcpt": 300,
    "data": 120,
    "block": 180,
    "content": 600,
}


@pytest.mark.parametrize(("step", "least"), LEAST.items())
def test_no_step_has_less_time_than_the_rfc_asks_for(step: str, least: int) -> None:
    assert getattr(StepTimes(), step) >= least
    # The time for all of it leaves room for slow steps and never touches the last answer.
    assert StepTimes().transaction >= LEAST["mail"] + LEAST["rcpt"] + LEAST["data"]
    assert StepTimes().opening >= LEAST["greeting"] * 2


FAILED = Outcome(0, Result.FAILED, 550, "5.1.1", "no such user", "mx.far.test [192.0.2.1]", at=1_800_000_100.0)
DELAYED = replace(FAILED, result=Result.DEFERRED, code=450, enhanced="4.2.0", text="later")
ENVELOPE = Envelope(
    "ann@here.test",
    (Recipient("bob@far.test", (), "rfc822;Bob@list.test"),),
    MailParameters(envid="e+1"),
    origin=Origin("192.0.2.9", 1, "client.test"),
    arrived=1_800_000_000.0,
)


def fields(outcome: Outcome, action: str, envelope: Envelope = ENVELOPE, until: float = 0.0) -> tuple[str, str, str]:
    """The notification's header, its message fields and its recipient's fields."""
    stop = Stop(0, envelope.recipients[0], "mx:far.test")
    parcel = Parcel("ABC", envelope, b"", 20, "mx:far.test", (stop,), 1)
    content = b"Subject: x\r\n\r\nx\r\n"
    reports = [Report(stop, outcome, action, until)]
    made = compose(parcel, reports, lambda: io.BytesIO(content), "mx.here.test", 1_800_000_200.0)
    assert made.body.content is not None
    whole = made.body.content.decode()
    kinds = [part.get_content_type() for part in email.message_from_string(whole).walk()]
    assert kinds[:3] == ["multipart/report", "text/plain", "message/delivery-status"]
    status = re.split(r"\r\nContent-Type: message/[a-z-]+\r\n(?:[^\r\n]+\r\n)*\r\n", whole)[1].partition("\r\n--")[0]
    about_message, _, about_recipient = status.partition("\r\n\r\n")
    assert made.envelope.sender == ""
    return whole.partition("\r\n\r\n")[0], about_message, about_recipient


# Section, its rule, the outcome and action, where the line is, and the line.
REPORTS = [
    ("2", "multipart/report with its type", FAILED, "failed", 0, "multipart/report; report-type=delivery-status"),
    ("2", "the null sender and no auto-reply to it", FAILED, "failed", 0, "Auto-Submitted: auto-replied"),
    ("2.2.1", "the envelope id, as it was given", FAILED, "failed", 1, "Original-Envelope-Id: e+1"),
    ("2.2.2", "who reports", FAILED, "failed", 1, "Reporting-MTA: dns; mx.here.test"),
    ("2.2.4", "whom the message came from", FAILED, "failed", 1, "Received-From-MTA: dns; client.test"),
    ("2.2.5", "when it came", FAILED, "failed", 1, "Arrival-Date: Fri, 15 Jan 2027 08:00:00 -0000"),
    ("2.3.1", "the recipient as the sender knows it", FAILED, "failed", 2, "Original-Recipient: rfc822;Bob@list.test"),
    ("2.3.2", "the recipient as it was last known", FAILED, "failed", 2, "Final-Recipient: rfc822;bob@far.test"),
    ("2.3.3", "failed", FAILED, "failed", 2, "Action: failed"),
    ("2.3.3", "delayed", DELAYED, "delayed", 2, "Action: delayed"),
    ("2.3.3", "delivered", replace(FAILED, result=Result.DELIVERED), "delivered", 2, "Action: delivered"),
    ("2.3.3", "relayed", replace(FAILED, result=Result.RELAYED), "relayed", 2, "Action: relayed"),
    ("2.3.3", "expanded", replace(FAILED, result=Result.DELIVERED), "expanded", 2, "Action: expanded"),
    ("2.3.4", "the status in three numbers", FAILED, "failed", 2, "Status: 5.1.1"),
    ("2.3.4", "of the action's class", replace(FAILED, enhanced=""), "failed", 2, "Status: 5.0.0"),
    ("2.3.4", "success is 2", replace(FAILED, result=Result.RELAYED), "relayed", 2, "Status: 2.0.0"),
    ("2.3.5", "who said so", FAILED, "failed", 2, "Remote-MTA: dns; mx.far.test"),
    ("2.3.6", "what it said", FAILED, "failed", 2, "Diagnostic-Code: smtp; 550 5.1.1 no such user"),
    ("2.3.6", "our own words are not the hop's", replace(FAILED, remote=""), "failed", 2,
     "Diagnostic-Code: X-Local; no such user"),
    ("2.3.7", "the last attempt", FAILED, "failed", 2, "Last-Attempt-Date: Fri, 15 Jan 2027 08:01:40 -0000"),
    ("2.3.9", "until when a delay goes on", DELAYED, "delayed", 2, "Will-Retry-Until: Fri, 15 Jan 2027 09:46:40 -0000"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "rule", "outcome", "action", "part", "line"), REPORTS, ids=[f"{row[0]} {row[1]}" for row in REPORTS]
)
def test_a_notification(section: str, rule: str, outcome: Outcome, action: str, part: int, line: str) -> None:
    found = fields(outcome, action, until=1_800_006_400.0 if action == "delayed" else 0.0)[part]
    if part == 0:
        assert line in found
    else:
        assert line in found.splitlines()


@pytest.mark.parametrize("action", ["failed", "delivered", "relayed", "expanded"])
def test_will_retry_until_is_for_delays_only(action: str) -> None:
    """RFC 3464 2.3.9."""
    assert "Will-Retry-Until" not in fields(FAILED, action)[2]


def test_what_was_not_given_is_left_out() -> None:
    """RFC 3464 2.2.1 and 2.3.1: neither an envelope id nor an original recipient is made up."""
    bare = replace(ENVELOPE, parameters=MailParameters(), recipients=(Recipient("bob@far.test"),))
    _, about_message, about_recipient = fields(FAILED, "failed", bare)
    assert "Original-Envelope-Id" not in about_message
    assert "Original-Recipient" not in about_recipient
