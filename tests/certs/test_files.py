"""Files that are not what they should be: each is refused at once, in one line that names it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from certs.files import Pair, pem_of, read_bundle, read_pair
from certs.keys import key_to_pem, public_bytes
from certs.trouble import CertificateError

BEGIN = b"-----BEGIN CERTIFICATE-----\n"
LARGE = 10_000_000


def put(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


@pytest.mark.parametrize(
    "ending, change",
    [
        ("CRLF", lambda data: data.replace(b"\n", b"\r\n")),
        ("CR", lambda data: data.replace(b"\n", b"\r")),
        ("mark of UTF-8", lambda data: b"\xef\xbb\xbf" + data),
        ("blanks", lambda data: data.replace(b"\n", b"  \n")),
        ("a text before", lambda data: b"subject: mx - first\n" + data),
    ],
)
def test_files_from_other_systems_are_read(tmp_path: Path, leaf: Pair, ending: str, change: object) -> None:
    certificate = put(tmp_path, "mx.pem", change(pem_of(leaf.certificate, *leaf.chain)))  # type: ignore[operator]
    key = put(tmp_path, "mx.key", change(key_to_pem(leaf.key)))  # type: ignore[operator]
    found = read_pair(certificate, key)
    assert (found.certificate, found.chain) == (leaf.certificate, leaf.chain)
    assert public_bytes(found.key) == public_bytes(leaf.key)


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (BEGIN, "breaks off within a certificate"),
        (BEGIN * (LARGE // len(BEGIN)), "breaks off within a certificate"),
        (BEGIN + b"A" * LARGE, "breaks off within a certificate"),
        (b"-----BEGIN PRIVATE KEY-----\n" * (LARGE // 28), "no certificate"),
        (bytes(2 * LARGE), "larger than 16 MiB"),
    ],
    ids=["empty", "blank", "begun", "begun often", "endless", "keys", "large"],
)
def test_what_holds_no_certificate_is_said_at_once(tmp_path: Path, data: bytes, told: str) -> None:
    path = put(tmp_path, "mx.pem", data)
    began = time.thread_time()
    with pytest.raises(CertificateError, match=told) as caught:
        read_pair(path)
    assert path in str(caught.value)
    with pytest.raises(CertificateError):
        read_bundle(path)
    assert time.thread_time() - began < 5, "a file of ten megabytes takes no time to speak of"


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN RSA PRIVATE KEY-----\n" * 200_000, b"-----BEGIN " + b"A " * 1_000_000]
)
def test_what_holds_no_key_is_said_at_once(tmp_path: Path, leaf: Pair, data: bytes) -> None:
    certificate, key = put(tmp_path, "mx.pem", pem_of(leaf.certificate)), put(tmp_path, "mx.key", data)
    began = time.thread_time()
    with pytest.raises(CertificateError, match="no private key") as caught:
        read_pair(certificate, key)
    assert key in str(caught.value)
    assert time.thread_time() - began < 5


def test_a_certificate_that_breaks_off_in_its_chain_is_refused(tmp_path: Path, leaf: Pair) -> None:
    whole = pem_of(leaf.certificate, *leaf.chain) + key_to_pem(leaf.key)
    assert len(read_pair(put(tmp_path, "mx.pem", whole)).chain) == len(leaf.chain) >= 1
    broken = key_to_pem(leaf.key) + pem_of(leaf.certificate, *leaf.chain)[:-40]
    with pytest.raises(CertificateError, match="breaks off"):
        read_pair(put(tmp_path, "mx.pem", broken))
