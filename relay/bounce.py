"""Delivery status notifications: which are due (RFC 3461 5.2, 6), and how they are written (RFC 3464, 6522, 6533).

Pure: the time is an argument, the message's head comes as a file that is read up to a bound.
Rules: the null sender; never a notification about a notification; nothing about a recipient who asked for none;
nothing that only the next hop can tell, where it took the request over.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import BinaryIO

from relay.mail import Body, Envelope, Message, Outcome, Parcel, Recipient, Result, Stop
from smtpd_core.draft import new_id
from smtpd_core.wire.envelope import MailParameters

# A header block longer than this is cut, at a line's end.
MAX_HEADERS = 32_768
# RET=FULL is honoured up to this; a larger message comes back as its headers (RFC 3461 6.2 leaves that open).
MAX_RETURNED = 262_144


_BARE = re.compile(rb"\0|\r(?!\n)|(?<!\r)\n")
_TOO_LONG = re.compile(rb"([^\r\n]{998})[^\r\n]+")
_UNSENDABLE = re.compile(_BARE.pattern + rb"|[^\r\n]{999}")


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient in a notification: `action` is failed, delayed, delivered, relayed or expanded."""

    stop: Stop
    outcome: Outcome
    action: str
    retry_until: float = 0.0


def reports_due(parcel: Parcel, outcomes: Sequence[Outcome], warned: Sequence[int], expire: float) -> list[Report]:
    """Who is to be reported after this attempt. `warned` are the numbers of recipients whose delay is worth telling
    now, `expire` is when the message will be given up (Unix time)."""
    if not parcel.envelope.sender:
        return []
    stops = {stop.number: stop for stop in parcel.stops}
    due = []
    for outcome in outcomes:
        stop = stops[outcome.number]
        action = _action(stop, outcome, outcome.number in warned)
        if action:
            due.append(Report(stop, outcome, action, expire if action == "delayed" else 0.0))
    return due


def _action(stop: Stop, outcome: Outcome, is_late: bool) -> str:
    notify = stop.recipient.notify
    if "NEVER" in notify:
        return ""
    if outcome.result in (Result.FAILED, Result.EXPIRED):
        return "failed" if not notify or "FAILURE" in notify else ""
    if outcome.result is Result.DEFERRED:
        return "delayed" if is_late and (not notify or "DELAY" in notify) else ""
    if "SUCCESS" not in notify or outcome.dsn_passed_on:
        return ""
    if stop.destination.startswith("expand:"):
        return "expanded"
    return "delivered" if outcome.result is Result.DELIVERED else "relayed"


_SUBJECTS = {
    "failed": "Undelivered mail: returned to you",
    "delayed": "Delayed mail: still being tried",
    "delivered": "Delivered mail: as you asked to be told",
    "relayed": "Relayed mail: as you asked to be told",
    "expanded": "Expanded mail: as you asked to be told",
}

_TEXTS = {
    "failed": "Your message could not be delivered to the following recipients. It will not be tried again.",
    "delayed": "Your message has not been delivered to the following recipients yet. You need not do anything:\n"
    "it will be tried until {until}.",
    "delivered": "Your message was delivered to the following recipients.",
    "relayed": "Your message was handed on for the following recipients, to a system that will not report its\n"
    "delivery.",
    "expanded": "Your message was delivered to the following recipients, and sent on from there to several others.\n"
    "You will hear of those where it fails.",
}


def compose(
    parcel: Parcel, reports: Sequence[Report], open_body: Callable[[], BinaryIO], hostname: str, now: float
) -> Message:
    """One notification for all `reports`, to the message's sender; the caller routes it."""
    envelope = parcel.envelope
    id = new_id(now)
    boundary = f"=_{id}_{parcel.message_id}"
    told = [
        envelope.sender,
        *(text for one in reports for text in (one.stop.recipient.address, one.stop.recipient.orcpt)),
    ]
    is_utf8 = not all(map(str.isascii, told))
    actions = [action for action in _SUBJECTS if any(one.action == action for one in reports)]
    whole = "failed" in actions and envelope.parameters.ret == "FULL" and _size(parcel) <= MAX_RETURNED
    returned = _returned(parcel, open_body, whole)
    if whole and _UNSENDABLE.search(returned):
        # Binary content and endless lines have no place in a text; their sender gets the headers (RFC 3461 4.3).
        whole = False
        returned = _returned(parcel, open_body, whole)
    human = _human(reports, actions, hostname).rstrip("\n").replace("\n", "\r\n")
    head = [
        f"Date: {formatdate(now)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{envelope.sender}>",
        f"Subject: {_SUBJECTS[actions[0]]}",
        f"Message-ID: <{id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
    ]
    status_type = "message/global-delivery-status" if is_utf8 else "message/delivery-status"
    plain = human.isascii()
    parts = [
        _part(f"text/plain; charset={'us-ascii' if plain else 'utf-8'}", human.encode(), "Notification"),
        _part(status_type, _status(parcel, reports, hostname, now, is_utf8).encode(), "Delivery report"),
        _part(_returned_type(whole, is_utf8), returned, "Undelivered message" if whole else "Message headers"),
    ]
    content = "\r\n".join(_clean(line) for line in head).encode() + b"\r\n"
    is_8bit = not content.isascii() or not all(part.isascii() for part in parts)
    content += b"Content-Transfer-Encoding: 8bit\r\n\r\n" if is_8bit else b"\r\n"
    content += b"This is a delivery report in MIME format.\r\n"
    for part in parts:
        content += f"\r\n--{boundary}\r\n".encode() + part
    content += f"\r\n--{boundary}--\r\n".encode()
    answer = Envelope(
        sender="",
        recipients=(Recipient(envelope.sender, ("NEVER",)),),
        # A sender with an ASCII address may live behind hosts without SMTPUTF8; the parts have ASCII encodings.
        parameters=MailParameters(body="8BITMIME" if is_8bit else "", smtputf8=not envelope.sender.isascii()),
        arrived=now,
    )
    return Message(id, answer, b"", Body(len(content), content))


def _part(kind: str, content: bytes, description: str) -> bytes:
    encoding = b"" if content.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return f"Content-Description: {description}\r\nContent-Type: {kind}\r\n".encode() + encoding + b"\r\n" + content


def _human(reports: Sequence[Report], actions: Sequence[str], hostname: str) -> str:
    lines = [f"This is the mail system at {hostname}.", ""]
    for action in actions:
        concerned = [one for one in reports if one.action == action]
        lines += [_TEXTS[action].format(until=formatdate(concerned[0].retry_until)), ""]
        for one in concerned:
            line = f"<{_clean(one.stop.recipient.address)}>: {_why(one.outcome)}"
            lines += textwrap.wrap(line, 240, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        lines.append("")
    return "\n".join(lines)


def _why(outcome: Outcome) -> str:
    said = _said(outcome)
    status = " ".join(part for part in (str(outcome.code) if outcome.code else "", outcome.enhanced) if part)
    if outcome.remote and outcome.code:
        return f"{_clean(outcome.remote)} said: {status} {said}"
    return f"{said} ({status})" if status else said


def _said(outcome: Outcome) -> str:
    """What was answered, in so many bytes that a line has room for it and its field's name."""
    return _clean(outcome.text).encode("utf-8", "replace")[:900].decode("utf-8", "ignore")


def _status(parcel: Parcel, reports: Sequence[Report], hostname: str, now: float, is_utf8: bool) -> str:
    """RFC 3464 2: fields for the message, then for each recipient."""
    envelope = parcel.envelope
    lines = []
    if envelope.parameters.envid:
        lines.append(f"Original-Envelope-Id: {_clean(envelope.parameters.envid)}")
    lines.append(f"Reporting-MTA: dns; {hostname}")
    if envelope.origin.hello:
        lines.append(f"Received-From-MTA: dns; {_clean(envelope.origin.hello)}")
    if envelope.arrived:
        lines.append(f"Arrival-Date: {formatdate(envelope.arrived)}")
    kind = "utf-8" if is_utf8 else "rfc822"
    for one in reports:
        outcome, recipient = one.outcome, one.stop.recipient
        lines.append("")
        if recipient.orcpt:
            original_kind, _, address = recipient.orcpt.partition(";")
            lines.append(f"Original-Recipient: {_clean(original_kind)};{_clean(address)}")
        lines.append(f"Final-Recipient: {kind};{_clean(recipient.address)}")
        lines.append(f"Action: {one.action}")
        lines.append(f"Status: {_status_code(outcome)}")
        if outcome.remote:
            lines.append(f"Remote-MTA: dns; {_clean(outcome.remote.partition(' ')[0])}")
        if outcome.code and outcome.remote:
            said = " ".join(part for part in (str(outcome.code), outcome.enhanced, _said(outcome)) if part)
            lines.append(f"Diagnostic-Code: smtp; {said}")
        elif outcome.text:
            lines.append(f"Diagnostic-Code: X-Local; {_said(outcome)}")
        lines.append(f"Last-Attempt-Date: {formatdate(outcome.at or now)}")
        if one.retry_until:
            lines.append(f"Will-Retry-Until: {formatdate(one.retry_until)}")
    if not is_utf8:
        # This type is 7 bits wide (RFC 3464 2.1); the text above has it all.
        lines = [line.encode("ascii", "replace").decode() for line in lines]
    return "\r\n".join(lines) + "\r\n"


def _status_code(outcome: Outcome) -> str:
    """A class that agrees with the action. What expired keeps the class of its last try: 4.4.7 (RFC 3463 3.5); where
    the sender's own time ran out it is 5.4.7 (RFC 2852 4.1.4.1)."""
    if outcome.result is Result.EXPIRED:
        return "5.4.7" if outcome.enhanced == "5.4.7" else "4.4.7"
    wanted = {Result.FAILED: "5", Result.DEFERRED: "4"}.get(outcome.result, "2")
    return outcome.enhanced if outcome.enhanced.startswith(wanted) else f"{wanted}.0.0"


def _size(parcel: Parcel) -> int:
    return len(parcel.trace) + parcel.size


def _returned(parcel: Parcel, open_body: Callable[[], BinaryIO], whole: bool) -> bytes:
    with open_body() as body:
        if whole:
            return parcel.trace + body.read(MAX_RETURNED)
        head = parcel.trace + body.read(MAX_HEADERS)
    return _TOO_LONG.sub(rb"\1", _BARE.sub(b" ", headers_of(head)))


def headers_of(data: bytes) -> bytes:
    """The header block, without the empty line; cut at a line's end where it is longer than what is there."""
    if data.startswith(b"\r\n"):
        return b""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        end = data.rfind(b"\r\n")
        if end < 0:
            return data[:998]
    return data[: end + 2]


def _returned_type(whole: bool, is_utf8: bool) -> str:
    if whole:
        return "message/global" if is_utf8 else "message/rfc822"
    return "message/global-headers" if is_utf8 else "text/rfc822-headers"


def _clean(text: str) -> str:
    """One line: a peer's reply or an address never makes a field of its own."""
    return " ".join("".join(c if c >= " " and c != "\x7f" else " " for c in text).split(" ")).strip()
