"""Letters whose MIME is odd are looked at without an error, and nothing that was sent is missing."""

from __future__ import annotations

import pytest

from smtpd_core.testing import Letter
from smtpd_core.wire.envelope import Envelope


def _letter(words: str) -> Letter:
    return Letter(Envelope("a@a.test", []), words.replace("\n", "\r\n").encode())


def _mixed(*parts: str, kind: str = "mixed", boundary: str = "b") -> str:
    inner = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary={boundary}\n\n{inner}--{boundary}--\n"


_TEXT = "Content-Type: text/plain\n\nhi"
_PDF = 'Content-Type: application/pdf\nContent-Disposition: attachment; filename="a.pdf"\n\nPDF'


def test_a_charset_that_nobody_knows_does_not_hide_the_text() -> None:
    letter = _letter("Content-Type: text/plain; charset=klingon-9\n\nYour code is 482913\n")
    assert (letter.text, letter.codes) == ("Your code is 482913\n", ["482913"])


def test_a_header_that_cannot_be_parsed_is_given_as_it_stands() -> None:
    assert _letter("Message-ID: <\n\nx\n").header("message-id") == "<"


@pytest.mark.parametrize(
    "words, names",
    [
        (_mixed(_TEXT, _PDF, _PDF), {"a.pdf": b"PDF", "a.pdf (2)": b"PDF"}),
        (_mixed(_TEXT, _mixed(_PDF, boundary="c")), {"a.pdf": b"PDF"}),
        (_mixed(_TEXT, "Content-Type: text/calendar\n\nBEGIN", kind="alternative"), {"part-1": b"BEGIN"}),
        (
            _mixed("Content-Type: text/html\n\n<b>", "Content-Type: image/png\n\nPNG", kind="related"),
            {"part-1": b"PNG"},
        ),
        (_PDF, {"a.pdf": b"PDF"}),
        ("Content-Type: text/calendar\n\nBEGIN", {"part-1": b"BEGIN"}),
        ("Subject: x\n\nhi\n", {}),
        ("", {}),
    ],
    ids=["same name", "nested", "invitation", "picture", "file alone", "invitation alone", "text", "nothing"],
)
def test_every_part_that_is_no_text_is_an_attachment(words: str, names: dict[str, bytes]) -> None:
    assert _letter(words).attachments == names


def test_a_forwarded_message_is_attached_whole() -> None:
    letter = _letter(_mixed(_TEXT, "Content-Type: message/rfc822\n\nSubject: inner\n\nwords"))
    assert list(letter.attachments) == ["part-1"]
    assert letter.attachments["part-1"].splitlines() == [b"Subject: inner", b"", b"words"]


def test_links_and_codes_are_found_in_either_part() -> None:
    html = "Content-Type: text/html\n\n<p>Code <b>482913</b> <a href=https://x.test/a?b=1&amp;c=2>x</a>"
    letter = _letter(_mixed("Content-Type: text/plain\n\n(HTTPS://x.test/w_(y))", html, kind="alternative"))
    assert letter.links == ["HTTPS://x.test/w_(y)", "https://x.test/a?b=1&c=2"]
    assert letter.codes == ["482913"]
