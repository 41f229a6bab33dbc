"""What a hop lacks: converted where that loses nothing, sent back where it would."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator

import pytest

from relay.agents.fitting import Misfit, fitted
from relay.agents.seven_bit import seven_bit
from relay.hop import Load
from relay.mail import Recipient
from smtpd_core.wire.envelope import MailParameters

TEXT = (
    "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngrüße\r\nzwei\r\n"
)
BINARY = (
    b"Subject: x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n\r.\n\xff"
)
MULTI = (
    "Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
    'Content-Type: multipart/mixed;\r\n boundary="b 1"\r\n\r\npreämble\r\n--b 1\r\n'
    "Content-Type: text/plain; charset=utf-8\r\n\r\ngrüße\r\n--b 1\r\n"
    "Content-Type: message/rfc822\r\n\r\n" + TEXT + "\r\n--b 1\r\nX: y\r\n\r\nascii\r\n--b 1--\r\n"
)


def load(
    content: bytes, *, body: str = "8BITMIME", utf8: bool = False, to: str = "b@x.test", sender: str = "a@y.test"
) -> Load:
    def pieces(size: int) -> Iterator[bytes]:
        return (content[at : at + size] for at in range(0, len(content), size))

    return Load("a@y.test", (Recipient(to),), MailParameters(), len(content), pieces, body, utf8)


def content_of(one: Load) -> bytes:
    content = b"".join(one.pieces(7))
    assert len(content) == one.size
    return content


def texts(content: bytes) -> list[str]:
    message = email.message_from_bytes(content, policy=email.policy.default)
    return [part.get_content() for part in message.walk() if part.get_content_type() == "text/plain"]


@pytest.mark.parametrize("text", [TEXT, MULTI])
def test_8_bit_content_is_encoded_for_a_hop_without_8bitmime_and_reads_the_same(text: str) -> None:
    content = text.encode()
    assert content_of(fitted(load(content), {"8BITMIME": ""})) == content
    for declared in ("8BITMIME", ""):
        sent = fitted(load(content, body=declared), {})
        assert sent.body == ""
        assert content_of(sent).isascii()
        assert [t.replace("\r\n", "\n") for t in texts(content_of(sent))] == [
            t.replace("\r\n", "\n") for t in texts(content)
        ]


def test_ascii_content_goes_as_it_is_whatever_was_declared() -> None:
    content = b"Subject: x\r\n\r\nplain\r\n"
    sent = fitted(load(content), {})
    assert content_of(sent) == content and sent.body == ""


def test_a_signature_is_never_broken() -> None:
    signed = MULTI.replace("multipart/mixed", "multipart/signed").encode()
    with pytest.raises(Misfit) as caught:
        fitted(load(signed), {})
    assert caught.value.answer.enhanced == "5.6.3"


def test_binary_content_goes_raw_only_by_chunks_to_a_hop_that_offers_binarymime() -> None:
    assert content_of(fitted(load(BINARY, body="BINARYMIME"), {"BINARYMIME": "", "CHUNKING": ""})) == BINARY
    for offered in ({}, {"BINARYMIME": ""}, {"CHUNKING": "", "8BITMIME": ""}):
        sent = content_of(fitted(load(BINARY, body="BINARYMIME"), offered))
        assert sent.isascii() and b"base64" in sent
        assert email.message_from_bytes(sent).get_payload(decode=True) == b"\0\n\r.\n\xff"


@pytest.mark.parametrize(
    ("to", "header", "fits"),
    [
        ("b@x.test", "Subject: x", True),
        ("b@bücher.test", "Subject: x", True),
        ("ä@x.test", "Subject: x", False),
        ("b@x.test", "Subject: ü", False),
    ],
)
def test_smtputf8_is_given_up_only_where_nothing_needs_it(to: str, header: str, fits: bool) -> None:
    content = f"{header}\r\n\r\nbody\r\n".encode()
    assert fitted(load(content, utf8=True, to=to), {"SMTPUTF8": "", "8BITMIME": ""}).utf8
    if fits:
        sent = fitted(load(content, utf8=True, to=to), {"8BITMIME": ""})
        assert not sent.utf8 and sent.recipients[0].address.isascii()
    else:
        with pytest.raises(Misfit) as caught:
            fitted(load(content, utf8=True, to=to), {"8BITMIME": ""})
        assert caught.value.answer.enhanced == "5.6.7"


def test_size_is_judged_after_conversion() -> None:
    with pytest.raises(Misfit):
        fitted(load(TEXT.encode()), {"SIZE": str(len(TEXT.encode()) + 2)})
    assert fitted(load(b"x\r\n"), {"SIZE": "0"})


def test_conversion_leaves_header_fields_byte_for_byte() -> None:
    sent = seven_bit(TEXT.replace("Subject: x", "Subject:  a\r\n\tb").encode())
    assert sent.startswith(b"Subject:  a\r\n\tb\r\nContent-Type: text/plain; charset=utf-8\r\n")
    assert sent.count(b"Content-Transfer-Encoding") == 1
