"""An envelope as bytes: the one form in which the spool and the queue store it.

Every field is text between NUL bytes, in a fixed order, recipients last; that takes a few microseconds where JSON of
nested data takes sixty. An envelope whose text itself holds a NUL (no client can send one, a program might) is kept
as JSON instead; the first byte tells which. What was not valid UTF-8 survives as it was.
"""

from __future__ import annotations

import json
from functools import lru_cache

from smtpd_core.wire.envelope import DeliverBy, Envelope, MailParameters, Origin, Recipient

# First byte: the form. A new form gets a new letter, so that old records stay readable.
_FIXED = "E"
_JSON = "{"

# Fields that precede the recipients, the form's letter included, and fields for each recipient.
_HEAD = 21
_EACH = 3

# Origins and parameters that were unpacked last are given again: those of one session, of one kind of client. Making
# them anew took two thirds of the time.
_REMEMBERED = 512

# None for a text that may also be empty; no address or token begins with it.
_NONE = "\x01"


def pack(envelope: Envelope) -> bytes:
    """The envelope as bytes."""
    p, o = envelope.parameters, envelope.origin
    fields = [
        _FIXED + envelope.sender,
        repr(envelope.arrived),
        o.address,
        str(o.port),
        o.hello,
        o.protocol,
        o.tls,
        o.user,
        o.listener,
        o.session,
        "" if p.size is None else str(p.size),
        p.body,
        "1" if p.smtputf8 else "",
        p.ret,
        p.envid,
        _NONE if p.auth is None else p.auth,
        "" if p.by is None else f"{p.by.seconds};{p.by.mode};{'1' if p.by.trace else ''}",
        "" if p.hold_for is None else str(p.hold_for),
        p.hold_until,
        "" if p.priority is None else str(p.priority),
        "1" if p.require_tls else "",
    ]
    for one in envelope.recipients:
        fields += (one.address, ",".join(one.notify), one.orcpt)
    text = "\0".join(fields)
    if text.count("\0") != len(fields) - 1:
        return json.dumps(envelope.to_record()).encode("ascii")
    return text.encode("utf-8", "surrogateescape")


def unpack(data: bytes) -> Envelope:
    """The inverse of pack. Raises ValueError on bytes that are no envelope."""
    text = data.decode("utf-8", "surrogateescape")
    if text[:1] == _JSON:
        try:
            return Envelope.from_record(json.loads(text))
        except (KeyError, TypeError) as error:
            raise ValueError(f"an envelope lacks or misspells {error}") from error
    fields = text.split("\0")
    if text[:1] != _FIXED or len(fields) < _HEAD or (len(fields) - _HEAD) % _EACH:
        raise ValueError(f"no envelope: {len(fields)} fields, first byte {text[:1]!r}")
    recipients = [
        Recipient(fields[at], tuple(fields[at + 1].split(",")) if fields[at + 1] else (), fields[at + 2])
        for at in range(_HEAD, len(fields), _EACH)
    ]
    origin, parameters = _origin(*fields[2:10]), _parameters(*fields[10:_HEAD])
    return Envelope(fields[0][1:], tuple(recipients), parameters, origin, float(fields[1]))


@lru_cache(_REMEMBERED)
def _origin(*fields: str) -> Origin:
    address, port, hello, protocol, tls, user, listener, session = fields
    return Origin(address, int(port), hello, protocol, tls, user, listener, session)


@lru_cache(_REMEMBERED)
def _parameters(*fields: str) -> MailParameters:
    size, body, smtputf8, ret, envid, auth, by, hold_for, hold_until, priority, require_tls = fields
    deliver_by = None
    if by:
        seconds, mode, trace = by.split(";")
        deliver_by = DeliverBy(int(seconds), mode, bool(trace))
    return MailParameters(
        size=int(size) if size else None,
        body=body,
        smtputf8=bool(smtputf8),
        ret=ret,
        envid=envid,
        auth=None if auth == _NONE else auth,
        by=deliver_by,
        hold_for=int(hold_for) if hold_for else None,
        hold_until=hold_until,
        priority=int(priority) if priority else None,
        require_tls=bool(require_tls),
    )
