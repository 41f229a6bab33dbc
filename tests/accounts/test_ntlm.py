"""NTLM against the example of MS-NLMP 4.2 and against pyspnego's own client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.accounts import nt_hash, ntlm
from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome, Surroundings

spnego = pytest.importorskip("spnego")
messages = pytest.importorskip("spnego._ntlm_raw.messages")
crypto = pytest.importorskip("spnego._ntlm_raw.crypto")

# MS-NLMP 4.2.1: common values.
PASSWORD_HASH = bytes.fromhex("a4f49c406510bdcab6824ee7c30fd852")
SERVER_CHALLENGE = bytes.fromhex("0123456789abcdef")
TARGET_INFO = bytes.fromhex("02000c0044006f006d00610069006e0001000c005300650072007600650072000000000000000000")[:-4]
TEMP = bytes.fromhex("01010000000000000000000000000000aaaaaaaaaaaaaaaa00000000") + TARGET_INFO + bytes(4)


def test_the_keys_of_ms_nlmp_4_2() -> None:
    assert nt_hash.of_password("Password") == PASSWORD_HASH
    assert ntlm.response_key(PASSWORD_HASH, "User", "Domain").hex() == "0c868a403bfd7a93a3001ef22ef02e3f"


def authenticate(nt: bytes, lm: bytes = bytes(24), flags: int = 0) -> bytes:
    made = messages.Authenticate(
        flags=0xE28A8233 & ~0x40000000 | flags,
        lm_challenge_response=lm,
        nt_challenge_response=nt,
        domain_name="Domain",
        username="User",
        workstation="COMPUTER",
        encoding="utf-16-le",
    )
    return bytes(made.pack())


def exchange(version_1: bool = False) -> ntlm.Ntlm:
    made = ntlm.Ntlm("mx.test", messages, crypto if version_1 else None, SERVER_CHALLENGE)
    assert isinstance(made.first(messages.Negotiate(0xE2088297).pack()), Challenge)
    return made


def answer(made: ntlm.Ntlm, message: bytes, known: bytes | None = PASSWORD_HASH) -> Outcome:
    assert made.respond(message) == Ask("User", "nt-hash")
    return made.supply(known)


def test_ntlm_v2_ms_nlmp_4_2_4() -> None:
    proof = bytes.fromhex("68cd0ab851e51c96aabc927bebef6a1c")
    assert answer(exchange(), authenticate(proof + TEMP)) == Done("User")
    assert answer(exchange(), authenticate(proof[::-1] + TEMP)) == Failure("User")
    assert answer(exchange(), authenticate(proof + TEMP), bytes(16)) == Failure("User")
    assert answer(exchange(), authenticate(proof + TEMP), None) == Failure("User")


def test_ntlm_v1_ms_nlmp_4_2_2_and_4_2_3_only_where_asked_for() -> None:
    plain = bytes.fromhex("67c43011f30298a2ad35ece64f16331c44bdbed927841f94")
    with_session = bytes.fromhex("7537f803ae367128ca458204bde7caf81e97ed2683267232")
    lm = bytes.fromhex("aaaaaaaaaaaaaaaa") + bytes(16)
    for message in (authenticate(plain, flags=0), authenticate(with_session, lm, ntlm.EXTENDED_SECURITY)):
        assert answer(exchange(), message) == Failure("User")
    # 0xE28A8233 has the extended security flag; without it the challenge is encrypted as it is.
    bare = messages.Authenticate(
        flags=0x8233, lm_challenge_response=plain, nt_challenge_response=plain, domain_name="Domain",
        username="User", encoding="utf-16-le",
    ).pack()  # fmt: skip
    assert answer(exchange(version_1=True), bytes(bare)) == Done("User")
    assert answer(exchange(version_1=True), authenticate(with_session, lm)) == Done("User")
    assert answer(exchange(version_1=True), authenticate(with_session[::-1], lm)) == Failure("User")


@pytest.mark.parametrize("password", ["Password", "wrong"])
def test_a_real_client_with_its_integrity_code(password: str) -> None:
    client = spnego.client("User", password, protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    server = ntlm.mechanism().start(Surroundings(hostname="mx.example.test"))
    told = server.first(client.step())
    assert isinstance(told, Challenge)
    asked = server.respond(client.step(told.data))
    assert asked == Ask("User", "nt-hash")
    assert server.supply(PASSWORD_HASH) == (Done("User") if password == "Password" else Failure("User"))


def test_a_changed_message_fails_by_its_integrity_code() -> None:
    client = spnego.client("User", "Password", protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    server = ntlm.mechanism().start(Surroundings(hostname="mx.example.test"))
    told = server.first(client.step())
    assert isinstance(told, Challenge)
    last = bytearray(client.step(told.data))
    last[63] ^= 0x20  # a flag that nobody looks at
    server.respond(bytes(last))
    assert server.supply(PASSWORD_HASH) == Failure("User")


@pytest.mark.parametrize("response", [b"", b"NTLMSSP\0", b"\xff" * 64, b"NTLMSSP\0\x02\0\0\0" + bytes(60)])
def test_broken_messages_are_malformed_at_either_step(response: bytes) -> None:
    assert ntlm.mechanism().start(Surroundings()).first(response) == MALFORMED
    assert exchange().respond(response) == MALFORMED


@given(st.integers(0, 400), st.binary(max_size=8), st.integers(0, 8))
def test_whatever_arrives_nobody_gets_in_and_nothing_is_raised(at: int, put: bytes, cut: int) -> None:
    good = authenticate(bytes(16) + TEMP)
    made = exchange()
    if isinstance(made.respond(good[:at] + put + good[at + cut :]), Ask):
        assert isinstance(made.supply(PASSWORD_HASH), Failure)


def test_the_row_is_under_tls_only() -> None:
    row = ntlm.mechanism()
    assert (row.name, row.kind, row.clear_text) == ("NTLM", "nt-hash", True)
