"""The same bytes in any pieces give the same events and replies; whatever arrives is answered, never an exception."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire import fuzz_core

# Short here; `make fuzz` runs a million.
CASES = 3_000


def test_cases_of_the_generator():
    """The seed is in the message of a violation."""
    fuzz_core.generate(CASES, random.SystemRandom().getrandbits(31))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=300),
    st.sampled_from(fuzz_core.STARTS),
)
@example(1, 0, 0, b"\r\n.\r", b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nDATA\r\n")
@example(0, 0, 0, b"\n", b"EHLO a\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@c.test>\r\nBDAT 1\r\n\r")
def test_any_soup_of_bytes(listener, cut, policy, soup, start):
    fuzz_core.case(bytes((listener, cut, policy)) + start + soup)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.lists(st.tuples(st.sampled_from(fuzz_core.WORDS), st.sampled_from(fuzz_core.ENDS))),
)
def test_any_dialogue_in_any_pieces(listener, policy, lines):
    stream = b"".join(word + end for word, end in lines)
    for cut in range(len(fuzz_core.CUTS)):
        fuzz_core.case(bytes((listener, cut, policy)) + stream)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_content_that_was_stuffed_arrives_as_it_was(content, cut):
    """Any content whose lines end in CRLF, whatever its dots and wherever it is cut."""
    body = content.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
    body += b"" if body.endswith(b"\r\n") or not body else b"\r\n"
    stuffed = b"".join(b"." + line if line.startswith(b".") else line for line in body.splitlines(keepends=True))
    stream = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nDATA\r\n" + stuffed + b".\r\n"
    events = fuzz_core.run(fuzz_core.SETTINGS[0], cut, 0, stream)[1]
    chunks = [one.data for one in events if isinstance(one, fuzz_core.events.BodyChunk)]
    assert b"".join(chunks) == body
