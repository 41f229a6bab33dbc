"""The trace that the server adds to a message: Received, and on submission a missing Date and Message-ID.

Received by RFC 5321 4.4, with the keywords of RFC 3848 and RFC 6531 4.3, and the TLS version as a comment. Pure.
Not here: Return-Path, which final delivery writes.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate

from smtpd_core.draft import Draft

# The header of a message is looked at up to here.
_HEADER_LIMIT = 262_144

_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)


class Clock:
    """Dates of Received lines: formatted once a second. Thread: any; the pair is replaced as one."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = (0, "")

    def date(self, now: float) -> str:
        second = int(now)
        last = self._last
        if last[0] != second:
            # The offset is the machine's, RFC 5322 3.3.
            self._last = last = (second, formatdate(second, localtime=True))
        return last[1]


def protocol_name(service: str, esmtp: bool, tls: bool, logged_in: bool, utf8: bool) -> str:
    """The `with` keyword of RFC 3848; RFC 6531 4.3 for SMTPUTF8."""
    name = "LMTP" if service == "lmtp" else "SMTP"
    if utf8:
        name = "UTF8" + name
    elif esmtp and name == "SMTP":
        name = "ESMTP"
    elif not esmtp:
        return name
    return name + ("S" if tls else "") + ("A" if logged_in else "")


def origin_line(hello: str, address: str, hostname: str, protocol: str, tls: str) -> str:
    """The first part of Received, up to the id; the same for all messages of a session's standing."""
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]" if address else "local"
    by = f"by {hostname} with {protocol}" + (f" ({tls})" if tls else "")
    return f"Received: from {hello or literal} ({literal})\r\n\t{by} id "


def received_line(origin: str, id: str, recipient: str, date: str) -> bytes:
    """`recipient` is named only where it is the only one: others would be disclosed."""
    if recipient:
        return f"{origin}{id}\r\n\tfor <{recipient}>;\r\n\t{date}\r\n".encode()
    return f"{origin}{id};\r\n\t{date}\r\n".encode()


def header_of(draft: Draft) -> bytes:
    """The content up to the end of its header."""
    content = draft.content
    if content is None:
        with draft.open() as file:
            content = file.read(_HEADER_LIMIT)
    end = content.find(b"\r\n\r\n", 0, _HEADER_LIMIT)
    return content[: end + 2] if end >= 0 else content[:_HEADER_LIMIT]


def loops(draft: Draft, limit: int) -> bool:
    """More Received lines than `limit` (RFC 5321 6.3)."""
    content = draft.content
    if content is not None and len(content) < limit * 9:
        return False  # there is no room for so many
    header = header_of(draft)
    return header.count(b"eceived") + header.count(b"ECEIVED") > limit and len(_RECEIVED.findall(header)) > limit


def missing_headers(draft: Draft, hostname: str, date: str) -> bytes:
    """Date and Message-ID for a submitted message that lacks them (RFC 6409 8.2, 8.3)."""
    header = header_of(draft)
    missing = b""
    if not _DATE.search(header):
        missing += f"Date: {date}\r\n".encode()
    if not _MESSAGE_ID.search(header):
        missing += f"Message-ID: <{draft.id}.{int(time.time())}@{hostname}>\r\n".encode()
    return missing
