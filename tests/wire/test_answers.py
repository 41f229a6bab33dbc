"""Answers of peers: whole, byte by byte, multi-line, and what is none."""

from __future__ import annotations

import pytest

from smtpd_core.wire.answers import MAX_LINE, MAX_LINES, Answer, AnswerReader, BrokenAnswer

GOOD = [
    (b"250 2.1.0 Ok\r\n", Answer(250, "2.1.0", "Ok")),
    (b"250\r\n", Answer(250)),
    (b"250 \r\n", Answer(250)),
    (b"550 5.1.1 <a@b>: no such user\r\n", Answer(550, "5.1.1", "<a@b>: no such user")),
    (b"250-mx.test\r\n250-SIZE 100\r\n250 DSN\r\n", Answer(250, "", "mx.test\nSIZE 100\nDSN")),
    (b"451-4.7.1 Greylisted\r\n451 4.7.1 try later\r\n", Answer(451, "4.7.1", "Greylisted\ntry later")),
    # An enhanced code of another class is text: the code counts.
    (b"450 5.1.1 odd\r\n", Answer(450, "", "5.1.1 odd")),
    # Old servers end lines with a bare LF; in a reply that confuses nobody.
    (b"220 hello\n", Answer(220, "", "hello")),
    ("250 grüße\r\n".encode(), Answer(250, "", "grüße")),
]


@pytest.mark.parametrize(("data", "answer"), GOOD)
def test_an_answer_is_the_same_in_any_pieces(data: bytes, answer: Answer) -> None:
    for size in (len(data), 1, 2, 3, 7):
        reader = AnswerReader()
        found = []
        for at in range(0, len(data), size):
            reader.receive(data[at : at + size])
            one = reader.next()
            if one is not None:
                found.append(one)
        assert found == [answer]
        assert not reader.is_inside


def test_answers_that_come_together_are_told_apart() -> None:
    reader = AnswerReader()
    reader.receive(b"250 a\r\n354 b\r\n250-c\r\n")
    assert reader.next() == Answer(250, "", "a")
    assert reader.next() == Answer(354, "", "b")
    assert reader.next() is None
    assert reader.is_inside


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"100 too low\r\n",
        b"600 too high\r\n",
        b"25 short\r\n",
        b"250_ok\r\n",
        b"\r\n",
        b"250-one\r\n550 two\r\n",
        b"x" * (MAX_LINE + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
    ],
)
def test_what_is_no_answer_breaks_the_dialogue(data: bytes) -> None:
    reader = AnswerReader()
    reader.receive(data)
    with pytest.raises(BrokenAnswer):
        while reader.next() is not None:
            pass
