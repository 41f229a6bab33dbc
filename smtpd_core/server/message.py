"""A message as hooks see it: an envelope and content, in bounded memory whatever its size.

Thread: the hook's. Valid until the hook returns (with a Ticket: until it is resolved); save() or read what you need.
Not here: parsing beyond the header, which is the standard library's email package (as_email).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from typing import BinaryIO

from smtpd_core.draft import Draft
from smtpd_core.wire.envelope import Envelope, MailParameters, Recipient

# The header is read up to this size; what follows is content in any case.
_MAX_HEADER = 1_048_576

# Any directory descriptor makes os.link follow /proc/self/fd (linkat with AT_SYMLINK_FOLLOW).
_HERE = "/proc/self/fd"


class Message:
    """Content is what the client sent, byte for byte; `trace` the header lines that the server adds before it.

    Everything that is read from it is read on demand.
    """

    __slots__ = ("_draft", "_file", "_headers", "envelope")

    def __init__(self, envelope: Envelope, draft: Draft) -> None:
        self.envelope = envelope
        self._draft = draft
        self._file: BinaryIO | None = None
        self._headers: EmailMessage | None = None

    def __repr__(self) -> str:
        to = ", ".join(one.address for one in self.envelope.recipients)
        return f"<Message {self.id}: {self.size} octets from <{self.sender}> to {to}>"

    # -- the envelope, in short

    @property
    def id(self) -> str:
        """The id that the client is told ("queued as ...") and that the Received line has."""
        return self._draft.id

    @property
    def sender(self) -> str:
        """The reverse-path; "" is the null path."""
        return self.envelope.sender

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """As accepted at RCPT, in order, with their DSN parameters."""
        return self.envelope.recipients

    @property
    def addresses(self) -> list[str]:
        """The recipients' addresses."""
        return [one.address for one in self.envelope.recipients]

    @property
    def parameters(self) -> MailParameters:
        """What MAIL carried."""
        return self.envelope.parameters

    @property
    def user(self) -> str:
        """The authenticated user or ""."""
        return self.envelope.origin.user

    @property
    def tls(self) -> str:
        """TLS version and cipher, or ""."""
        return self.envelope.origin.tls

    # -- content

    @property
    def size(self) -> int:
        """Octets of content, the trace not counted."""
        return self._draft.size

    @property
    def trace(self) -> bytes:
        """The header lines that the server adds: Received, and on submission a Date or Message-ID that lacked."""
        return self._draft.trace

    @property
    def file(self) -> BinaryIO:
        """The content as a seekable binary file; the same object each time, closed after the hook."""
        if self._file is None:
            self._file = self._draft.open()
        return self._file

    def open(self) -> BinaryIO:
        """The content as a seekable binary file of its own, at its start; close it."""
        return self._draft.open()

    def chunks(self, size: int = 65_536) -> Iterator[bytes]:
        """The content in pieces of at most `size` octets."""
        return self._draft.chunks(size)

    def as_bytes(self, *, trace: bool = False) -> bytes:
        """The whole content in memory, after the trace where asked for."""
        with self._draft.open() as file:
            content = file.read()
        return self._draft.trace + content if trace else content

    def as_email(self) -> EmailMessage:
        """The whole message parsed, in memory."""
        with self._draft.open() as file:
            return BytesParser(policy=policy.default).parse(file)

    @property
    def headers(self) -> EmailMessage:
        """The header alone, parsed when first asked for: message.headers["subject"]."""
        if self._headers is None:
            with self._draft.open() as file:
                block = file.read(_MAX_HEADER)
            end = block.find(b"\r\n\r\n")
            parser = BytesHeaderParser(policy=policy.default)
            self._headers = parser.parsebytes(block if end < 0 else block[: end + 4])
        return self._headers

    def save(self, path: str | os.PathLike[str], *, trace: bool = False) -> None:
        """Write the content to `path`, which must not exist (FileExistsError).

        A large message is linked there without a copy where the draft lies on the same filesystem (give the server
        `drafts=` a directory there). It is synced neither way: for a promise use store= and outbox=.
        """
        target = os.fspath(path)
        if not trace and self._draft.content is None and self._link(target):
            return
        with open(target, "xb") as file:
            if trace:
                file.write(self._draft.trace)
            for piece in self._draft.chunks():
                file.write(piece)

    def _link(self, target: str) -> bool:
        try:
            here = os.open(_HERE, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        except OSError:
            return False  # no /proc: copy
        try:
            os.link(str(self._draft.fileno()), target, src_dir_fd=here, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:
            return False  # another filesystem, or a file that can't be linked: copy
        finally:
            os.close(here)
        return True

    def close(self) -> None:
        """After the hook, by the server."""
        if self._file is not None:
            self._file.close()
            self._file = None
