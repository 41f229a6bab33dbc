"""Parameters of MAIL and RCPT: one parser per keyword, each by the grammar of its own RFC.

A parser puts what it read into `found` (the fields of MailParameters or Recipient) or answers with the reply that says
what is wrong. Which parameters a listener knows is said by the rows of extensions.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smtpd_core.wire import replies
from smtpd_core.wire.address import is_mailbox
from smtpd_core.wire.envelope import DeliverBy
from smtpd_core.wire.replies import Reply

# Octets of the decoded values. RFC 3461 4.2 and 4.4.
MAX_ORCPT = 500
MAX_ENVID = 100

_SPLIT = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u00a0-\U0010ffff]+))?\Z")
_SIZE = re.compile(r"[0-9]{1,20}\Z")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_XCHAR = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")
_UTF8_XTEXT = re.compile(r"(?:[!-*,-<>-\[\]-~\u00a0-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})*\Z")
_UTF8_CHAR = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_BY = re.compile(r"(-?[0-9]{1,9});([NR])(T?)\Z", re.IGNORECASE | re.ASCII)
_SECONDS = re.compile(r"[1-9][0-9]{0,8}\Z")
_DATE_TIME = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
    r"(?:\.[0-9]+)?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])\Z"
)
_PRIORITY = re.compile(r"(?:0|-?[1-9])\Z")
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ParameterLimits:
    """What the parsers check values against. `size` in octets and `hold` in seconds; 0 is no limit."""

    size: int = 0
    hold: int = 0
    deliver_by: int = 0  # the smallest BY= that mode R may ask for


Parser = Callable[[str | None, Found, ParameterLimits], Reply | None]


def read_parameters(text: str, parsers: dict[str, Parser], found: Found, limits: ParameterLimits) -> Reply | None:
    """Read "KEY=VALUE KEY ..." into `found`. None, or the reply to the first mistake."""
    seen = set()
    for word in text.split(" "):
        if not word:
            continue  # RFC 5321 4.1.1 wants single spaces; more of them hurt nobody
        match = _SPLIT.match(word)
        if match is None:
            return replies.bad_parameter_501
        keyword = match[1].upper()
        parser = parsers.get(keyword)
        if parser is None:
            return replies.unknown_parameter_555
        if keyword in seen:
            return replies.parameter_twice_501
        seen.add(keyword)
        if (refusal := parser(match[2], found, limits)) is not None:
            return refusal
    if "hold_for" in found and "hold_until" in found:
        return replies.bad_parameter_501  # RFC 4865 4: one of the two
    return None


def decode_xtext(text: str) -> str | None:
    """RFC 3461 4: "+" and two hexadecimal digits stand for an octet. None where `text` is no xtext, or not UTF-8."""
    if not _XTEXT.match(text):
        return None
    if "+" not in text:
        return text
    octets = _XCHAR.sub(lambda m: chr(int(m[1], 16)), text).encode("latin-1")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


def encode_xtext(text: str) -> str:
    """The inverse of decode_xtext."""
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in (43, 61) else f"+{octet:02X}"
        for octet in text.encode("utf-8")
    )


def is_printable(text: str) -> bool:
    """No control characters, those above ASCII included."""
    return not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


def size(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 1870 6: digits. A declared size of 0 is a size, not a limit."""
    if value is None or not _SIZE.match(value):
        return replies.bad_parameter_501
    found["size"] = octets = int(value)
    if limits.size and octets > limits.size:
        return replies.too_large_552
    return None


def _body(value: str | None, found: Found, allowed: tuple[str, ...]) -> Reply | None:
    kind = (value or "").upper()
    if kind not in allowed:
        return replies.bad_parameter_501
    found["body"] = kind
    return None


def body(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 6152 2."""
    return _body(value, found, ("7BIT", "8BITMIME"))


def body_or_binary(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 3030 3."""
    return _body(value, found, ("7BIT", "8BITMIME", "BINARYMIME"))


def smtputf8(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 6531 3.1: no value."""
    if value is not None:
        return replies.bad_parameter_501
    found["smtputf8"] = True
    return None


def ret(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 3461 4.3."""
    kind = (value or "").upper()
    if kind not in ("FULL", "HDRS"):
        return replies.bad_parameter_501
    found["ret"] = kind
    return None


def envid(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 3461 4.4: xtext of printable characters, 100 at most."""
    text = decode_xtext(value or "")
    if not text or len(text.encode()) > MAX_ENVID or not is_printable(text):
        return replies.bad_parameter_501
    found["envid"] = text
    return None


def notify(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 3461 4.1: NEVER alone, or a list of the others."""
    words = tuple(dict.fromkeys((value or "").upper().split(",")))
    if words != ("NEVER",) and not _NOTIFY.issuperset(words):
        return replies.bad_parameter_501
    found["notify"] = words
    return None


def orcpt(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 3461 4.2 and, for the address type utf-8, RFC 6533 3."""
    kind, semicolon, rest = (value or "").partition(";")
    if not semicolon or not rest or not _ADDRESS_TYPE.match(kind) or len((value or "").encode()) > MAX_ORCPT:
        return replies.bad_parameter_501
    address = decode_utf8_address(rest) if kind.lower() == "utf-8" else decode_xtext(rest)
    if not address or not is_printable(address):
        return replies.bad_parameter_501
    found["orcpt"] = f"{kind};{address}"
    return None


def decode_utf8_address(text: str) -> str | None:
    r"""RFC 6533 3: utf-8-addr-xtext (\x{...} stands for a character) and plain UTF-8; "+XX" of older senders too."""
    if not _UTF8_XTEXT.match(text):
        return decode_xtext(text)
    points = [int(one, 16) for one in _UTF8_CHAR.findall(text)]
    if any(one > 0x10FFFF or 0xD800 <= one <= 0xDFFF for one in points):
        return None
    return _UTF8_CHAR.sub(lambda m: chr(int(m[1], 16)), text)


def auth(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 4954 5: "<>", or the xtext of a mailbox. Whether it is believed is the floor above's decision."""
    text = decode_xtext(value or "")
    if not text:
        return replies.bad_parameter_501
    if text == "<>":
        found["auth"] = ""
        return None
    if not is_mailbox(text):
        return replies.bad_parameter_501
    found["auth"] = text
    return None


def by(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 2852 4: seconds;mode. Mode R needs time to be left, and no less than was announced."""
    match = _BY.match(value or "")
    if match is None:
        return replies.bad_parameter_501
    seconds, mode = int(match[1]), match[2].upper()
    if mode == "R" and seconds < max(limits.deliver_by, 1):
        return replies.bad_parameter_501
    found["by"] = DeliverBy(seconds, mode, bool(match[3]))
    return None


def hold_for(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 4865 4.1."""
    if value is None or not _SECONDS.match(value) or (limits.hold and int(value) > limits.hold):
        return replies.bad_parameter_501
    found["hold_for"] = int(value)
    return None


def hold_until(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 4865 4.2: a date-time of RFC 3339. Whether it is too far away is judged where the clock is."""
    text = (value or "").upper()
    if not _DATE_TIME.match(text):
        return replies.bad_parameter_501
    text = text.replace(":60", ":59")  # a leap second is a second to RFC 3339 and none to Python
    try:
        moment(text)
    except ValueError:
        return replies.bad_parameter_501
    found["hold_until"] = text
    return None


def moment(text: str) -> float:
    """The Unix time of a HOLDUNTIL as the core hands it on. Raises ValueError where it is none."""
    return datetime.fromisoformat(text).timestamp()


def priority(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 6710 3: -9 to 9."""
    if value is None or not _PRIORITY.match(value):
        return replies.priority_501
    found["priority"] = int(value)
    return None


def require_tls(value: str | None, found: Found, limits: ParameterLimits) -> Reply | None:
    """RFC 8689 2: no value."""
    if value is not None:
        return replies.bad_parameter_501
    found["require_tls"] = True
    return None
