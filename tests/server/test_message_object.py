"""The message as a hook sees it: a file in bounded memory, parsed on demand, saved without a copy."""

from __future__ import annotations

import io
import os

import pytest

from smtpd_core import Draft, Envelope, Message, Recipient

HEADER = b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nFrom: Ann <ann@a.test>\r\n\r\n"


def message(content=b"", directory=None, pieces=1):
    draft = Draft(directory)
    draft.append(HEADER + content)
    for _ in range(pieces - 1):
        draft.append(content)
    draft.trace = b"Received: here\r\n"
    return Message(Envelope("ann@a.test", (Recipient("bob@b.test"),)), draft)


def test_headers_are_decoded_and_lazy():
    one = message(b"body\r\n")
    assert one.headers["subject"] == "grüße" and one.headers is one.headers
    assert one.as_email().get_content() == "body\n"
    assert one.as_bytes() == HEADER + b"body\r\n"
    assert one.as_bytes(trace=True) == b"Received: here\r\n" + HEADER + b"body\r\n"


def test_a_content_without_header_end_has_headers_too():
    draft = Draft()
    draft.append(b"Subject: only\r\n")
    assert Message(Envelope("", ()), draft).headers["subject"] == "only"


@pytest.mark.parametrize("pieces", [1, 500])
def test_the_file_is_seekable_in_memory_and_on_disk(pieces, tmp_path):
    one = message(b"x" * 1000, str(tmp_path), pieces)
    whole = HEADER + b"x" * 1000 * pieces
    assert one.size == len(whole)
    assert one.file.read(9) == b"Subject: "
    assert one.file.seek(-3, io.SEEK_END) == len(whole) - 3 and one.file.read() == b"xxx"
    with one.open() as another:
        assert another.read() == whole
    assert max(map(len, one.chunks(4096))) <= 4096 and b"".join(one.chunks(4096)) == whole


def test_save_links_a_large_message_and_copies_a_small_one(tmp_path):
    small, large = message(b"x", str(tmp_path)), message(b"x" * 1000, str(tmp_path), 500)
    small.save(tmp_path / "small")
    assert (tmp_path / "small").read_bytes() == HEADER + b"x"
    large.save(tmp_path / "large")
    assert os.stat(tmp_path / "large").st_ino == os.fstat(large._draft.fileno()).st_ino
    large.save(tmp_path / "traced", trace=True)
    assert (tmp_path / "traced").read_bytes() == b"Received: here\r\n" + large.as_bytes()
    for one in (small, large):
        with pytest.raises(FileExistsError):
            one.save(tmp_path / "large")
