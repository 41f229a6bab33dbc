"""The PROXY header, as text and as bytes, in any pieces."""

from __future__ import annotations

import socket

import pytest

from smtpd_core.net.proxy_protocol import Header, Malformed, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command=1, family=1, transport=1, body=None):
    if body is None:
        body = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + (4000).to_bytes(2, "big") + (25).to_bytes(2, "big")
    return SIGNATURE + bytes([0x20 | command, family << 4 | transport]) + len(body).to_bytes(2, "big") + body


V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + (4000).to_bytes(2, "big") + (25).to_bytes(2, "big")


@pytest.mark.parametrize(
    "data, address, port",
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 25\r\n", "192.0.2.1", 4000),
        (b"PROXY TCP6 2001:db8::1 ::1 65535 25\r\n", "2001:db8::1", 65535),
        (b"PROXY UNKNOWN\r\n", "", 0),
        (b"PROXY UNKNOWN anything at all\r\n", "", 0),
        (v2(), "192.0.2.1", 4000),
        (v2(family=2, body=V6), "2001:db8::1", 4000),
        (v2(family=2, body=V6 + b"\x04\x00\x03abc"), "2001:db8::1", 4000),
        (v2(command=0), "", 0),
        (v2(command=0, family=0, transport=0, body=b""), "", 0),
        (v2(family=3, body=b"/path".ljust(216, b"\0")), "", 0),
    ],
)
def test_a_header_is_read_whole_and_what_follows_is_left(data, address, port):
    assert parse(data + b"EHLO x\r\n") == Header(address, port, len(data))
    for cut in range(len(data)):
        assert parse(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO there\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4000\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 25 9\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 4000 25\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 4000 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 040 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +40 25\r\n",
        b"PROXY TCP4 192.0.2.999 192.0.2.2 40 25\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 40 25\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"\r\n\r\n\x00\r\nQUIX\n" + b"\0" * 20,
        SIGNATURE + b"\x31\x11\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x22\x11\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\x00\x04" + b"\0" * 4,
        SIGNATURE + b"\x21\x12\x00\x0c" + b"\0" * 12,
    ],
)
def test_what_is_malformed_is_refused(data):
    with pytest.raises(Malformed):
        parse(data)
