"""Keys of every kind, plain and encrypted."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.keys import KINDS, key_length, key_to_der, key_to_pem, kind_of, new_key, public_bytes, read_key
from certs.trouble import CertificateError


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ed25519", "rsa-2048"])
@pytest.mark.parametrize("password", ["", "päss word"])
def test_a_key_survives_both_forms(kind: str, password: str) -> None:
    key = new_key(kind)
    for data in (key_to_pem(key, password), key_to_der(key, password)):
        again = read_key(data, password)
        assert public_bytes(again) == public_bytes(key)
        assert kind_of(again) == kind


@pytest.mark.parametrize("kind, bits", [("ec-p256", 256), ("ec-p384", 384), ("ed25519", 256), ("rsa-2048", 2048)])
def test_key_lengths(kind: str, bits: int) -> None:
    assert key_length(new_key(kind)) == bits


def test_every_rsa_kind_is_of_2048_bits_or_more() -> None:
    assert all(int(kind[4:]) >= 2048 for kind in KINDS if kind.startswith("rsa"))


def test_an_encrypted_key_asks_for_its_password() -> None:
    data = key_to_pem(new_key(), "right")
    with pytest.raises(CertificateError, match="password is needed"):
        read_key(data)
    with pytest.raises(CertificateError, match="password is wrong") as caught:
        read_key(data, "wrong")
    assert "wrong" in str(caught.value) and "right" not in str(caught.value)


def test_a_wrong_password_that_decrypts_to_a_jumble_is_a_wrong_password() -> None:
    """One in 256 gives right padding and no key; of 1500 none may be told anything else."""
    data = key_to_pem(new_key(), "right")
    told = set()
    for number in range(1500):
        with pytest.raises(CertificateError) as caught:
            read_key(data, f"wrong {number}")
        told.add(str(caught.value))
    assert told == {"the key can't be decrypted: the password is wrong, or the key is damaged"}


def test_a_password_for_a_plain_key_does_no_harm() -> None:
    key = new_key()
    assert public_bytes(read_key(key_to_pem(key), "unneeded")) == public_bytes(key)


def test_old_forms_are_read() -> None:
    key = new_key("rsa-2048")
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert public_bytes(read_key(old)) == public_bytes(key)


def test_a_key_that_tls_does_not_use_is_refused() -> None:
    data = dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CertificateError, match="dsa key"):
        read_key(data)


def test_unknown_kinds_and_rubbish_are_refused() -> None:
    with pytest.raises(CertificateError, match="rsa-2048"):
        new_key("rsa-512")
    with pytest.raises(CertificateError, match="no private key"):
        read_key(b"rubbish")
