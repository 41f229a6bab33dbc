"""One transaction: MAIL, RCPT, DATA, the content under DATA, and the end of content however it came.

Nearly all clients write MAIL and RCPT in the same few forms; these are read in one match, every other form by the full
grammar. Both say the same of the same line.
Not here: BDAT's chunks (chunks.py), the grammar itself (address.py, parameters.py), looking at octets (content.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smtpd_core.wire import events, replies
from smtpd_core.wire.address import read_path
from smtpd_core.wire.content import DataReader
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.events import NEED_BYTES, Event, Waiting
from smtpd_core.wire.parameters import read_parameters
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Phase
from smtpd_core.wire.verdict import Verdict, refused

if TYPE_CHECKING:
    from smtpd_core.wire.server import ServerProtocol

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
# The forms that nearly all clients use, read in one match; every other form takes the full grammar. Up to 64 characters
# no length limit of a part can be exceeded.
_COMMON = rf"<({_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*)?>"
_COMMON_MAIL = re.compile(
    rf"[Ff][Rr][Oo][Mm]:{_COMMON}(?: SIZE=([0-9]{{1,15}}))?(?: BODY=(7BIT|8BITMIME))?( SMTPUTF8)?\Z"
).match
_COMMON_RCPT = re.compile(rf"[Tt][Oo]:{_COMMON}\Z").match
_MAIL = re.compile(r"FROM: *(?=<)", re.IGNORECASE | re.ASCII)
_RCPT = re.compile(r"TO: *(?=<)", re.IGNORECASE | re.ASCII)

NO_PARAMETERS = MailParameters()  # between transactions; never handed out


# MAIL


def mail(p: ServerProtocol, argument: str) -> Event | None:
    match = _COMMON_MAIL(argument)
    if match is not None:
        mailbox, size, body, utf8 = match.groups("")
        settings = p.settings
        octets = int(size) if size else None
        common = not (size or body or utf8)
        if len(mailbox) <= 64 and (common or (settings.common_parameters and (octets or 0) <= settings.common_size)):
            parameters = MailParameters(octets, body, utf8 != "")
            p.pending = parameters
            p.verdict = _MAIL_VERDICT
            return events.MailFrom(mailbox, parameters)
    return _any_mail(p, argument)


def _any_mail(p: ServerProtocol, argument: str) -> Event | None:
    match = _MAIL.match(argument)
    if match is None:
        return p.complain(replies.mail_syntax_501)
    path = read_path(argument[match.end() :], null=True)
    if path is None:
        return p.complain(replies.bad_sender_501)
    mailbox, end = path
    found: dict[str, Any] = {}
    rest = argument[match.end() + end :]
    refusal = replies.bad_sender_501 if rest[:1] not in ("", " ") else None
    refusal = refusal or read_parameters(rest, p.settings.mail_parsers, found, p.settings.limits)
    if refusal is None and not found.get("smtputf8") and not argument.isascii():
        refusal = replies.not_ascii_553
    if refusal is not None:
        return _turn_down(p, refusal)
    parameters = MailParameters(**found)
    p.pending = parameters
    p.verdict = _MAIL_VERDICT
    return events.MailFrom(mailbox, parameters)


def _turn_down(p: ServerProtocol, refusal: Reply) -> Event | None:
    """Too large and not ASCII are facts about the mail, not mistakes of the client: they don't count as errors."""
    if refusal.code not in (552, 553):
        return p.complain(refusal)
    p.say(refusal)
    return None


def _mail_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    p.parameters = p.pending
    p.recipients = 0
    p.phase = Phase.SENDER
    p.say(reply or replies.sender_250)


_MAIL_VERDICT = Verdict(_mail_accepted, refused(replies.refused_550))


# RCPT


def rcpt(p: ServerProtocol, argument: str) -> Event | None:
    match = _COMMON_RCPT(argument)
    mailbox = match[1] if match is not None else None
    if mailbox is not None and len(mailbox) <= 64:
        recipient = Recipient(mailbox)
    else:
        answer = _any_rcpt(p, argument)
        if isinstance(answer, Reply):
            return _turn_down(p, answer)
        recipient = answer
    limit = p.settings.max_recipients
    if limit and p.recipients >= limit:
        p.say(replies.too_many_recipients_452)
        return None
    p.verdict = _RCPT_VERDICT
    return events.RcptTo(recipient)


def _any_rcpt(p: ServerProtocol, argument: str) -> Recipient | Reply:
    match = _RCPT.match(argument)
    if match is None:
        return replies.rcpt_syntax_501
    path = read_path(argument[match.end() :], postmaster=True)
    if path is None:
        return replies.bad_recipient_501
    mailbox, end = path
    found: dict[str, Any] = {}
    rest = argument[match.end() + end :]
    refusal = replies.bad_recipient_501 if rest[:1] not in ("", " ") else None
    refusal = refusal or read_parameters(rest, p.settings.rcpt_parsers, found, p.settings.limits)
    if refusal is None and not p.parameters.smtputf8 and not argument.isascii():
        refusal = replies.not_ascii_553
    return refusal or Recipient(mailbox, **found)


def _rcpt_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    p.recipients += 1
    p.phase = Phase.RECIPIENTS
    p.say(reply or replies.recipient_250)


_RCPT_VERDICT = Verdict(_rcpt_accepted, refused(replies.refused_550))


# DATA


def data(p: ServerProtocol, argument: str) -> Event | None:
    if argument:
        return p.complain(replies.no_argument_501)
    if p.parameters.body == "BINARYMIME":
        return p.complain(replies.binary_needs_bdat_503)
    p.verdict = _DATA_VERDICT
    return events.ContentBegins("DATA")


def _data_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    p.say(reply or replies.go_ahead_354)
    p.phase = Phase.CONTENT
    p.content = DataReader(p.settings.under_data)
    p.drop_is_told = False
    p.reading = read_data


_DATA_VERDICT = Verdict(_data_accepted, refused(replies.refused_550))


def read_data(p: ServerProtocol) -> Event | Waiting | None:
    content = p.content
    assert isinstance(content, DataReader)
    data = p.take_input(1 << 30)
    if not data:
        return NEED_BYTES
    piece, used = content.read(data)
    if used >= 0:
        p.give_back(data, used)
        p.reading = content_ends
    if content.refusal is not None and not p.drop_is_told:
        p.drop_is_told = True
        return events.ContentDropped(content.refusal)
    return events.BodyChunk(piece) if piece else None


def content_ends(p: ServerProtocol) -> Event | None:
    content = p.content
    assert content is not None
    refusal = content.refusal
    if refusal is None:
        p.verdict = ON_CONTENT
        return events.ContentEnds(content.size)
    told, p.drop_is_told = p.drop_is_told, True
    _conclude(p, refusal, None)
    return None if told else events.ContentDropped(refusal)


def _content_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    p.errors = 0  # a client that gets mail through is no attacker: a long-lived connection keeps its budget
    _conclude(p, reply or replies.ok_250, several)


def _content_refused(p: ServerProtocol, reply: Reply | None) -> None:
    _conclude(p, reply or replies.refused_550, None)


ON_CONTENT = Verdict(_content_accepted, _content_refused)


def _conclude(p: ServerProtocol, reply: Reply, several: Sequence[Reply] | None) -> None:
    """The transaction is over. LMTP answers once per recipient (RFC 2033 4.2)."""
    count = p.recipients if p.settings.service == "lmtp" else 1
    if several is not None and len(several) != count:
        raise ValueError(f"{count} replies are due, not {len(several)}")
    for one in several if several is not None else [reply] * count:
        p.say(one)
    p.content = None
    p.parameters = NO_PARAMETERS
    p.recipients = 0
    p.phase = Phase.READY
    p.read_commands()
