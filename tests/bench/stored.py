"""What the servers stored, read from their own files after their end, and held against what the load was told.

Each reader yields the messages that a server keeps in its folder. A message may begin with the trace that its server
wrote; behind it every octet has to be the sender's. Postfix, OpenSMTPD and Exim end lines with LF on disk.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from relay.intake import Intake
from relay.queue_reader import SqliteReader
from relay.queue_sqlite import SqliteQueue
from relay.view import Filter
from tests.bench.keep import stops
from tests.bench.letters import content, number_of

_EXIM_LINE = re.compile(rb"(\d{3,}). ")

Reader = Callable[[Path], Iterator[bytes]]


class Miscounted(RuntimeError):
    """What is stored is not what was promised."""


def compare(found: Iterator[bytes], promised: int, size: int, dots: bool) -> None:
    """Raises Miscounted unless the messages 0 to `promised` - 1 are there, once each, with every octet."""
    seen = bytearray(promised)
    for text in found:
        number = _number(text)
        if number >= promised or seen[number]:
            raise Miscounted(f"message {number} is stored {'twice' if number < promised else 'but was not accepted'}")
        seen[number] = 1
        sent = content(size, dots, number)
        if not (text.endswith((sent, sent.replace(b"\r\n", b"\n")))):
            raise Miscounted(f"message {number} is stored, but not octet for octet")
    if missing := promised - sum(seen):
        raise Miscounted(f"{missing} of {promised} messages that were answered 250 are not stored")


def _number(text: bytes) -> int:
    try:
        return number_of(text)
    except ValueError:
        raise Miscounted(f"something that nobody sent is stored: {text[:80]!r}") from None


def files(name: str) -> Reader:
    """Every file that matches, as it is."""

    def read(folder: Path) -> Iterator[bytes]:
        for path in folder.glob(name):
            yield path.read_bytes()

    return read


def queue(folder: Path) -> Iterator[bytes]:
    """This server's queue, after intake of what a stopped server left in its spool, as at the next start."""
    taking_in = SqliteQueue(folder / "queue.db")
    Intake(folder / "spool", taking_in, stops).import_all()
    taking_in.close()
    reader = SqliteReader(folder / "queue.db")
    for listed in reader.messages(Filter(), time.time()):
        with reader.open_body(listed.id) as body:
            yield body.read()
    reader.close()


def daemon(folder: Path) -> Iterator[bytes]:
    """The daemon's queue and what it has delivered to the Maildir meanwhile."""
    yield from files("mail/new/*")(folder)
    yield from queue(folder)


def postfix(folder: Path) -> Iterator[bytes]:
    """Records of a type, a length in seven-bit groups and data; content lies between the types M and X."""
    for path in (folder / "queue" / "hold").rglob("*"):
        if path.is_file():
            yield _postfix_content(path.read_bytes())


def _postfix_content(data: bytes) -> bytes:
    at, inside, pieces = 0, False, []
    while at < len(data):
        kind, length, shift = data[at : at + 1], 0, 0
        at += 1
        while True:
            octet = data[at]
            at += 1
            length |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                break
        if inside and kind in b"NL":
            pieces.append(data[at : at + length] + (b"\n" if kind == b"N" else b""))
        inside = (inside or kind == b"M") and kind != b"X"
        at += length
    return b"".join(pieces)


def exim(folder: Path) -> Iterator[bytes]:
    """The header lies in one file, each line of it behind its length and a flag; the body in another."""
    for path in (folder / "spool" / "input").rglob("*-D"):
        envelope = path.with_name(path.name[:-1] + "H").read_bytes()
        lines, at = [], envelope.index(b"\n\n") + 2
        while mark := _EXIM_LINE.match(envelope, at):
            at = mark.end() + int(mark[1])
            lines.append(envelope[mark.end() : at])
        yield b"".join(lines) + b"\n" + path.read_bytes().partition(b"\n")[2]
