"""Replies: code, enhanced code and text as one value; whatever a handler says goes out as a legal reply."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpd_core.wire import replies
from smtpd_core.wire.replies import MAX_REPLY_LINE, Reply, queued_250

CATALOGUE = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
LEGAL = re.compile(rb"(?:\d{3}-[ -~]*\r\n)*\d{3}(?: [ -~]*)?\r\n")


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_constant_ends_in_its_code(name):
    assert name.endswith(f"_{CATALOGUE[name].code}")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_reply_carries_its_enhanced_code(name):
    """RFC 2034 4: all but the greeting, hello's replies, 334 and 354."""
    reply = CATALOGUE[name]
    assert reply.code == 354 or reply.enhanced


@pytest.mark.parametrize(
    "code, enhanced", [(250, "5.1.1"), (550, "4.7.1"), (199, ""), (600, ""), (560, ""), (250, "2.1"), (250, "2.1.1 x")]
)
def test_codes_that_disagree_make_no_reply(code, enhanced):
    with pytest.raises(ValueError):
        Reply(code, enhanced, "text")


@pytest.mark.parametrize(
    "reply, wire",
    [
        (Reply(250, "2.0.0", "Ok"), b"250 2.0.0 Ok\r\n"),
        (Reply(250, "2.0.0", "one\ntwo"), b"250-2.0.0 one\r\n250 2.0.0 two\r\n"),
        (Reply(250, "", "one\r\ntwo\n"), b"250-one\r\n250 two\r\n"),
        (Reply(334), b"334 \r\n"),
        (Reply(550, "5.1.1", "n\u00f6 \t such"), b"550 5.1.1 n? ? such\r\n"),
        (Reply(550, "5.1.1", "a\x00b\x85c"), b"550-5.1.1 a?b\r\n550 5.1.1 c\r\n"),
        (queued_250("abc"), b"250 2.0.0 Ok: queued as abc\r\n"),
    ],
)
def test_how_a_reply_goes_out(reply, wire):
    assert reply.wire == wire


@given(st.sampled_from([250, 354, 421, 550]), st.text(max_size=3000))
@example(354, "\x1e\x85")
def test_any_text_of_a_handler_becomes_a_legal_reply(code, text):
    """RFC 5321 4.2 and 4.5.3.1.5: lines of at most 512 octets, printable ASCII, one code."""
    wire = Reply(code, f"{str(code)[0]}.0.0" if code != 354 else "", text).wire
    assert LEGAL.fullmatch(wire)
    assert all(len(line) + 2 <= MAX_REPLY_LINE for line in wire.split(b"\r\n"))
    assert {line[:3] for line in wire.split(b"\r\n")[:-1]} == {str(code).encode()}


def test_an_endless_text_is_cut():
    assert Reply(250, "2.0.0", "x\n" * 10_000).wire.count(b"\r\n") == replies.MAX_REPLY_LINES
