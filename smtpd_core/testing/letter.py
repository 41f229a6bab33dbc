"""One captured message as a test looks at it: envelope, content, text, links, codes, attachments."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cached_property
from typing import cast

from smtpd_core.testing.codes import codes_in
from smtpd_core.wire.envelope import Envelope

_LINK = re.compile(r"""https?://(?:[^\s<>"'\]()]|\([^\s<>"'()]*\))+""", re.IGNORECASE)
_HREF = re.compile(r"""href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]+>", re.IGNORECASE | re.DOTALL)


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
        return self.header("subject")

    def header(self, name: str) -> str:
        """A header's decoded value, "" where it is missing; as it stands where it can't be parsed."""
        try:
            return str(self.email[name] or "")
        except Exception:  # the parser of Python 3.11 fails in many ways on broken values
            raw = next(value for key, value in self.email.raw_items() if key.lower() == name.lower())
            return " ".join(str(raw).split())

    def has(self, name: str) -> bool:
        """Whether there is such a header, empty or not."""
        return name in self.email

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
        for spellings in _HREF.findall(self.html):
            address = html.unescape("".join(spellings)).strip()
            if address.lower().startswith(("http://", "https://")):
                found.append(address)
        return list(dict.fromkeys(one.rstrip(".,;:!?") for one in found))

    @cached_property
    def codes(self) -> list[str]:
        """One-time codes of subject, text or HTML, in order, each once: numbers (4 to 8 digits) and words of capitals
        and digits that the mail calls a code, PIN or the like, or shows alone on a line. See codes.py."""
        for words in (self.text, html.unescape(_TAG.sub("\n", self.html))):
            if found := codes_in(f"{self.subject}\n\n{words}"):
                return found
        return []

    @property
    def attachments(self) -> dict[str, bytes]:
        """Every part that is not the text or the HTML, by name, at whatever depth: files, pictures, invitations,
        forwarded messages. Nameless ones are called part-1, part-2 and so on; a name that comes again gets a
        number: "a.csv", "a.csv (2)".
        """
        bodies = [self._part("plain"), self._part("html")]
        found: dict[str, bytes] = {}
        for n, part in enumerate((one for one in _leaves(self.email) if not any(one is b for b in bodies)), 1):
            name = unique = part.get_filename() or f"part-{n}"
            again = 1
            while unique in found:
                again += 1
                unique = f"{name} ({again})"
            found[unique] = _octets(part)
        return found

    def _part(self, kind: str) -> EmailMessage | None:
        return cast("EmailMessage | None", self.email.get_body(preferencelist=(kind,)))

    def _body(self, kind: str) -> str:
        part = self._part(kind)
        if part is None:
            return ""
        try:
            words = str(part.get_content())
        except LookupError:  # a charset that nobody knows
            words = _octets(part).decode("utf-8", "replace")
        return words.replace("\r\n", "\n")


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """The parts that are no multiparts, in order; a forwarded message is one part."""
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        for part in cast("list[EmailMessage]", message.get_payload()):
            yield from _leaves(part)
    elif message.get_payload():
        yield message


def _octets(part: EmailMessage) -> bytes:
    if part.is_multipart():  # message/rfc822: the message itself
        return b"".join(one.as_bytes() for one in cast("list[EmailMessage]", part.get_payload()))
    return cast(bytes, part.get_payload(decode=True) or b"")
