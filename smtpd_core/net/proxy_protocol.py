"""The PROXY protocol header, versions 1 and 2: who the client behind a load balancer is.

A pure parser: bytes in, a header or "not yet" out. Anything malformed closes the connection, as the specification
asks (haproxy.org, proxy-protocol.txt, sections 2.1 and 2.2).
Not here: from whom a header is accepted (ListenerSettings.proxy_from, checked at accept).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_MAX_V1 = 107  # the longest line of version 1 with its CRLF

# Addresses take 36 bytes at most (version 2 over TCP); the rest are TLVs, of which a peer may send this much.
_MAX_V2 = 4096


class Malformed(ValueError):
    """The header is not one."""


@dataclass(frozen=True, slots=True)
class Header:
    """`address` is "" where the proxy speaks for itself (LOCAL, UNKNOWN). `size` is the header's length in bytes."""

    address: str
    port: int
    size: int


def parse(data: bytes) -> Header | None:
    """The header at the start of `data`, None while more bytes are needed. Raises Malformed."""
    if data[:12] == _SIGNATURE[: len(data)]:
        return _parse_v2(data) if len(data) >= 16 else None
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise Malformed("no PROXY header")


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _MAX_V1)
    if end < 0:
        if len(data) >= _MAX_V1:
            raise Malformed("PROXY header of version 1 is too long")
        return None
    size = end + 2
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return Header("", 0, size)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise Malformed("PROXY header of version 1 is malformed")
    version = 4 if words[1] == b"TCP4" else 6
    source = _address(words[2], version)
    _address(words[3], version)
    _port(words[5])
    return Header(source, _port(words[4]), size)


def _address(word: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(word.decode("ascii"))
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise Malformed("PROXY header of version 1 has a bad address")
    return str(address)


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (len(word) > 1 and word[:1] == b"0") or int(word) > 65_535:
        raise Malformed("PROXY header of version 1 has a bad port")
    return int(word)


def _parse_v2(data: bytes) -> Header | None:
    version, command = data[12] >> 4, data[12] & 15
    family, transport = data[13] >> 4, data[13] & 15
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or family > 3 or transport > 2:
        raise Malformed("PROXY header of version 2 is malformed")
    if length > _MAX_V2:
        raise Malformed("PROXY header of version 2 is too long")
    size = 16 + length
    if len(data) < size:
        return None
    if command == 0 or family == 0 or family == 3:  # LOCAL, unspecified, unix: the proxy's own address stands
        return Header("", 0, size)
    width = 4 if family == 1 else 16
    if transport != 1 or length < 2 * width + 4:
        raise Malformed("PROXY header of version 2 has bad addresses")
    source = ipaddress.ip_address(data[16 : 16 + width])
    port = int.from_bytes(data[16 + 2 * width : 18 + 2 * width], "big")
    return Header(str(source), port, size)
