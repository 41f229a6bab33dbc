"""One captured message as a test looks at it: envelope, content, text, links, codes, attachments."""

from __future__ import annotations

import html
import re
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cached_property
from typing import cast

from smtpd_core.wire.envelope import Envelope

_LINK = re.compile(r"""https?://[^\s<>"'\])]+""")
_HREF = re.compile(r"""href\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]+>", re.IGNORECASE | re.DOTALL)

# A one-time code: 4 to 8 digits, or 6 to 8 capitals and digits with at least one of each, standing alone.
_CODE = re.compile(r"(?<![\w#/.=-])(\d{4,8}|(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z\d]{6,8})(?![\w/=-])")


class Letter:
    """A message that the server accepted. Read-only; everything is decoded when it is asked for.

    `content` is what the client sent, byte for byte; `trace` the header lines that the server would put before it.
    """

    def __init__(self, envelope: Envelope, content: bytes, trace: bytes = b"", id: str = "") -> None:
        self.envelope = envelope
        self.content = content
        self.trace = trace
        self.id = id

    def __repr__(self) -> str:
        return f"<Letter from <{self.sender}> to {', '.join(self.recipients)}: {self.subject!r}>"

    @property
    def sender(self) -> str:
        """The reverse-path, "" for the null one; not the From header."""
        return self.envelope.sender

    @property
    def recipients(self) -> list[str]:
        """The recipients of the envelope, in order; not the To header."""
        return [one.address for one in self.envelope.recipients]

    @cached_property
    def email(self) -> EmailMessage:
        """The parsed message."""
        return BytesParser(policy=policy.default).parsebytes(self.content)

    @property
    def subject(self) -> str:
        return str(self.email["subject"] or "")

    def header(self, name: str) -> str:
        """A header's decoded value, "" where it is missing."""
        return str(self.email[name] or "")

    @cached_property
    def text(self) -> str:
        """The plain text part with LF line ends, "" without one."""
        return self._body("plain")

    @cached_property
    def html(self) -> str:
        """The HTML part with LF line ends, "" without one."""
        return self._body("html")

    @cached_property
    def links(self) -> list[str]:
        """Every http(s) address of both parts, in order, each once."""
        found = _LINK.findall(self.text)
        for pair in _HREF.findall(self.html):
            address = html.unescape(pair[0] or pair[1])
            if address.startswith(("http://", "https://")):
                found.append(address)
        return list(dict.fromkeys(one.rstrip(".,;:!?") for one in found))

    @cached_property
    def codes(self) -> list[str]:
        """One-time codes: 4 to 8 digits (or 6 to 8 capitals and digits) that stand alone, in order, each once."""
        words = self.text or html.unescape(_TAG.sub(" ", self.html))
        return list(dict.fromkeys(_CODE.findall(_LINK.sub(" ", words))))

    @property
    def attachments(self) -> dict[str, bytes]:
        """Attached files by name; nameless ones are called part-1, part-2 and so on."""
        parts = list(self.email.iter_attachments())
        return {
            part.get_filename() or f"part-{n}": cast(bytes, part.get_payload(decode=True) or b"")
            for n, part in enumerate(parts, 1)
        }

    def _body(self, kind: str) -> str:
        part = self.email.get_body(preferencelist=(kind,))
        return str(part.get_content()).replace("\r\n", "\n") if part is not None else ""
