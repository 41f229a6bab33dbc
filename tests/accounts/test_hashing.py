"""Stored passwords: every scheme that files and tables bring, and what becomes of old ones."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest

from smtpd_core.accounts import foreign_hashes, hashing
from smtpd_core.accounts.nt_hash import md4, of_password
from smtpd_core.accounts.stored import verifier_of
from smtpd_core.wire.sasl.verifier import make_verifier

CRYPT_SHA512 = "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz."


@pytest.fixture(params=["argon2id", "scrypt"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "scrypt":
        monkeypatch.setattr(hashing, "argon2", None)
        monkeypatch.setattr(hashing, "SCRYPT_LOG_N", 10)
    elif hashing.argon2 is None:
        pytest.skip("argon2-cffi is not installed")
    return str(request.param)


def test_a_new_password_is_hashed_by_the_best_scheme_there_is(scheme: str) -> None:
    stored = hashing.hash_password("tr\xe8s secret")
    assert stored.startswith(f"${scheme}$") and hashing.scheme_of(stored) == scheme.upper()
    assert hashing.matches(stored, "tr\xe8s secret") and hashing.matches(stored, "tre\u0300s secret")
    assert not hashing.matches(stored, "tres secret")
    assert not hashing.is_outdated(stored)
    assert hashing.hash_password("tr\xe8s secret") != stored


def test_nothing_matches_the_hash_of_nobody(scheme: str) -> None:
    assert not hashing.matches(hashing.fake_hash(), "")
    assert not hashing.matches(hashing.fake_hash(), "anything")


@pytest.mark.parametrize("password", ["", "tab\there", "\ud800", "x" * 2000])
def test_a_password_that_can_not_be_used_is_refused_when_set_and_is_wrong_when_given(password: str) -> None:
    with pytest.raises(ValueError):
        hashing.hash_password(password)
    assert not hashing.matches("{PLAIN}x", password)


# The password is "secret" in all of them; made by slappasswd, doveadm pw, htpasswd and openssl passwd.
FOREIGN = [
    "{PLAIN}secret",
    "{CLEARTEXT}secret",
    "{PLAIN.HEX}736563726574",
    "{plain.b64}c2VjcmV0",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SHA.hex}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4",
    "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
]


@pytest.mark.parametrize("stored", FOREIGN)
def test_foreign_schemes(stored: str) -> None:
    assert hashing.matches(stored, "secret") and not hashing.matches(stored, "Secret")
    assert hashing.scheme_of(stored)


def test_salted_digests() -> None:
    for name, scheme in (("sha1", "SSHA"), ("sha256", "SSHA256"), ("sha512", "SSHA512"), ("md5", "SMD5")):
        digest = hashlib.new(name, b"secret" + b"salt").digest()
        stored = f"{{{scheme}}}" + base64.b64encode(digest + b"salt").decode()
        assert hashing.matches(stored, "secret") and not hashing.matches(stored, "secre")


def test_scram_verifiers_check_a_password_too() -> None:
    stored = "{SCRAM-SHA-256}" + str(make_verifier("secret", "scram-sha-256", iterations=4096))
    assert hashing.matches(stored, "secret") and not hashing.matches(stored, "Secret")
    assert not hashing.is_outdated(stored)
    assert verifier_of(stored, "scram-sha-256") and not verifier_of(stored, "scram-sha-1")


def test_bcrypt_as_htpasswd_and_others_write_it() -> None:
    pytest.importorskip("bcrypt")
    stored = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # crypt_blowfish's own example, "U*U"
    assert hashing.matches(stored, "U*U") and not hashing.matches(stored, "U*V")
    assert hashing.matches("{BLF-CRYPT}" + stored, "U*U") and hashing.is_outdated(stored)


def test_crypt_family_by_libpass() -> None:
    pytest.importorskip("passlib")
    assert hashing.matches("$apr1$salt$VEpBc9VHGUKwI9.yg13Iu0", "secret")
    assert hashing.matches("{SHA512-CRYPT}" + CRYPT_SHA512, "secret")
    assert hashing.is_outdated(CRYPT_SHA512)


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ("{ROT13}frperg", "not known"),
        ("{SHA}###", "base64"),
        ("{SSHA}AAAA", "short"),
        ("{SCRAM-SHA-256}nonsense", "COUNT,SALT"),
        ("$scrypt$ln=99,r=8,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA", "memory"),
        ("$argon2id$v=19$broken", "malformed"),
        ("{NT}" + "0" * 32, "NTLM"),
    ],
)
def test_a_stored_password_that_can_not_be_checked_says_why_and_not_what(stored: str, why: str) -> None:
    with pytest.raises(hashing.HashUnusable, match=why) as caught:
        hashing.matches(stored, "secret")
    assert "frperg" not in str(caught.value)
    assert why in hashing.why_unusable(stored)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "argon2", None)
    monkeypatch.setattr(foreign_hashes, "bcrypt", None)
    monkeypatch.setattr(foreign_hashes, "passlib_context", None)
    for stored, extra in (("$2y$05$x", "passwords"), (CRYPT_SHA512, "crypt")):
        assert f"smtpd_core[{extra}]" in hashing.why_unusable(stored)
    assert "smtpd_core[passwords]" in hashing.why_unusable("$argon2id$v=19$m=1,t=1,p=1$AAAA$AAAA")


def test_a_stored_hash_never_gets_more_memory_than_is_given_to_any() -> None:
    digest = "A" * 43
    for stored in (f"$scrypt$ln=30,r=8,p=1$AAAA${digest}", f"$argon2id$v=19$m=2097152,t=1,p=1$AAAAAAAAAAA${digest}"):
        if stored.startswith("$scrypt") or hashing.argon2 is not None:
            assert "more memory than is given" in hashing.why_unusable(stored)


def test_what_is_old_or_cheap_is_renewed(scheme: str) -> None:
    assert hashing.is_outdated("{SSHA}x") and hashing.is_outdated("$scrypt$ln=4,r=8,p=1$AAAA$AAAA")
    assert not hashing.is_outdated("{PLAIN}kept for CRAM-MD5")


def test_an_unknown_user_costs_what_a_known_one_does(scheme: str) -> None:
    """Not a timing assertion to the microsecond: the two must be of one order, which a skipped hash would break."""
    stored, nobody = hashing.hash_password("secret"), hashing.fake_hash()
    spent = []
    for one in (stored, nobody):
        begin = time.process_time()
        for _ in range(3):
            hashing.matches(one, "wrong")
        spent.append(time.process_time() - begin)
    assert 0.2 < spent[0] / spent[1] < 5


def test_md4_rfc_1320_a5_and_the_nt_hash_of_ms_nlmp_4_2() -> None:
    assert md4(b"").hex() == "31d6cfe0d16ae931b73c59d7e0c089c0"
    assert md4(b"message digest").hex() == "d9130a8164549fe818874806e1c7014b"
    assert md4(b"1234567890" * 8).hex() == "e33b4ddc9c38f2199c3e7b164fcc0536"
    assert of_password("Password").hex() == "a4f49c406510bdcab6824ee7c30fd852"
