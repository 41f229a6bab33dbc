"""Content going out under DATA: whatever it holds, no server can see its end, or a line end that is none, too early."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.wire.stuffing import Stuffer


def stuffed(content: bytes, size: int = 1 << 20) -> bytes:
    stuffer = Stuffer()
    pieces = [stuffer.stuffed(content[at : at + size]) for at in range(0, len(content), size)]
    return b"".join(pieces) + stuffer.finish()


def unstuffed(data: bytes) -> bytes:
    """As RFC 5321 4.5.2 has a server do it."""
    assert data.endswith(b".\r\n")
    return re.sub(rb"(?m)^\.", b"", data[:-3].replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


TABLE = [
    (b"", b".\r\n"),
    (b"a\r\n", b"a\r\n.\r\n"),
    (b"a", b"a\r\n.\r\n"),
    (b".\r\n", b"..\r\n.\r\n"),
    (b"..\r\n", b"...\r\n.\r\n"),
    (b"a\r\n.b\r\n", b"a\r\n..b\r\n.\r\n"),
    (b"a.\r\n", b"a.\r\n.\r\n"),
    # Spellings of an early end that some server takes for one: every line end becomes CRLF, every dot behind it two.
    (b"a\n.\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\r\n.\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\r.\rb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\r\n.\rb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\r\r\n.\r\r\nb", b"a\r\n\r\n..\r\n\r\nb\r\n.\r\n"),
    (b"a\n\r.\n\rb", b"a\r\n\r\n..\r\n\r\nb\r\n.\r\n"),
    (b"a\r", b"a\r\n.\r\n"),
    (b"a\n", b"a\r\n.\r\n"),
    (b"\n.\r\nMAIL FROM:<x@y>\r\n", b"\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"),
    (b"a\0\r\n.\0\r\n", b"a\0\r\n..\0\r\n.\r\n"),
]


@pytest.mark.parametrize(("content", "sent"), TABLE)
def test_the_table_of_spellings_in_pieces_of_every_size(content: bytes, sent: bytes) -> None:
    for size in (1, 2, 3, 5, 100):
        assert stuffed(content, size) == sent


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"..", b"\0"]), max_size=40), st.integers(1, 7))
def test_whatever_the_content_its_end_is_seen_once_and_no_bare_line_end_goes_out(parts: list[bytes], size: int) -> None:
    content = b"".join(parts)
    sent = stuffed(content, size)
    assert sent.count(b"\r\n") == sent.count(b"\r") == sent.count(b"\n")
    assert (b"\r\n" + sent).find(b"\r\n.\r\n") == len(sent) - 3
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = lines if not lines or lines.endswith(b"\n") else lines + b"\n"
    assert unstuffed(sent) == lines.replace(b"\n", b"\r\n")
