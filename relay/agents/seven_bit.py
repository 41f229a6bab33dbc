"""A message with 8-bit or binary parts as one of 7-bit lines: the parts get a transfer encoding, nothing else changes.

Header blocks are kept byte for byte, but for the Content-Transfer-Encoding field of the parts that change and of the
multiparts around them. Pure.
"""

from __future__ import annotations

import base64
import quopri
import re

MAX_DEPTH = 50

_FIELD = re.compile(rb"(?im)^content-transfer-encoding[ \t]*:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")
_TYPE = re.compile(rb"(?im)^content-type[ \t]*:[ \t]*((?:[^\r\n]|\r\n[ \t])*)")
_ENCODING = re.compile(rb"(?im)^content-transfer-encoding[ \t]*:[ \t]*([^\s;]*)")
_BOUNDARY = re.compile(rb'(?i);\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)+)"|([^\s;"]+))')
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Unchangeable(Exception):
    """Why this message can't be converted."""


def seven_bit(message: bytes) -> bytes:
    """The message in 7 bits. Raises Unchangeable where the header is not ASCII or a signature would break."""
    return _entity(message, 0)


def _entity(entity: bytes, depth: int) -> bytes:
    if entity.isascii() and not _is_binary(entity):
        return entity
    if depth > MAX_DEPTH:
        raise Unchangeable("its parts are nested too deep")
    if entity.startswith(b"\r\n"):
        header, content = b"", entity[2:]
    else:
        head, gap, content = entity.partition(b"\r\n\r\n")
        header = head + b"\r\n" if gap else entity
    if not header.isascii():
        raise Unchangeable("its header is not ASCII")
    found = _TYPE.search(header)
    kind = found[1].strip().lower() if found else b"text/plain"
    if kind.startswith((b"multipart/signed", b"multipart/encrypted")):
        raise Unchangeable("a signature in it would break")
    if kind.startswith(b"multipart/"):
        return _multipart(header, found[1] if found else b"", content, depth)
    if kind.startswith(b"message/") and not kind.startswith((b"message/global", b"message/partial")):
        return _with_encoding(header, b"7bit") + b"\r\n" + _entity(content, depth + 1)
    return _leaf(header, kind, content)


def _is_binary(entity: bytes) -> bool:
    return b"\0" in entity or bool(_BARE.search(entity))


def _multipart(header: bytes, kind: bytes, content: bytes, depth: int) -> bytes:
    found = _BOUNDARY.search(kind.replace(b"\r\n", b""))
    if found is None:
        raise Unchangeable("a multipart in it has no boundary")
    boundary = re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] else found[2]
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    pieces = []
    at = 0
    inside = False
    for line in delimiter.finditer(content):
        part = content[at : line.start()]
        pieces.append(_entity(part, depth + 1) if inside and at <= line.start() else _plain(part))
        pieces.append(line[0])
        at = line.end()
        inside = line[1] is None
        if not inside:
            break
    rest = content[at:]
    pieces.append(_entity(rest, depth + 1) if inside else _plain(rest))
    return _with_encoding(header, b"7bit") + b"\r\n" + b"".join(pieces)


def _plain(text: bytes) -> bytes:
    """Preamble and epilogue, which no one reads: what is not ASCII in them is no loss."""
    return bytes(byte if byte < 128 else 0x3F for byte in text) if not text.isascii() else text


def _leaf(header: bytes, kind: bytes, content: bytes) -> bytes:
    found = _ENCODING.search(header)
    encoding = found[1].lower() if found else b"7bit"
    if encoding in (b"base64", b"quoted-printable"):
        raise Unchangeable(f"a part of it is not the {encoding.decode()} that it says")
    if kind.startswith(b"text/") and not _is_binary(content):
        encoded = _quoted(content)
        return _with_encoding(header, b"quoted-printable") + b"\r\n" + encoded
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return _with_encoding(header, b"base64") + b"\r\n" + encoded


def _quoted(content: bytes) -> bytes:
    encoded = quopri.encodestring(content.replace(b"\r\n", b"\n"))
    return encoded.replace(b"\n", b"\r\n")


def _with_encoding(header: bytes, name: bytes) -> bytes:
    return _FIELD.sub(b"", header) + b"Content-Transfer-Encoding: " + name + b"\r\n"
