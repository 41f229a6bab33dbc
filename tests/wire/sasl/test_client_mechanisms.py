"""The client side of SASL against the examples that the RFCs print."""

from __future__ import annotations

import base64

import pytest

from smtpd_core.wire.sasl.client import Credentials, SaslError, Scram, chosen, mechanism

TIM = Credentials("tim", "tanstaaftanstaaf")
PENCIL = Credentials("user", "pencil")


def test_plain_says_all_at_once_rfc_4616_4() -> None:
    assert mechanism("PLAIN", TIM).first() == b"\0tim\0tanstaaftanstaaf"
    kurt = Credentials("Kurt", "xipj3plmq", act_as="Ursel")
    assert mechanism("plain", kurt).first() == b"Ursel\0Kurt\0xipj3plmq"


def test_plain_answers_the_empty_challenge_of_a_server_without_initial_responses() -> None:
    plain = mechanism("PLAIN", TIM)
    assert plain.respond(b"") == b"\0tim\0tanstaaftanstaaf"
    with pytest.raises(SaslError):
        plain.respond(b"")


def test_login_answers_two_questions_and_no_third() -> None:
    login = mechanism("LOGIN", TIM)
    assert login.first() is None
    assert [login.respond(b"Username:"), login.respond(b"anything")] == [b"tim", b"tanstaaftanstaaf"]
    with pytest.raises(SaslError):
        login.respond(b"Mother's maiden name:")


def test_cram_md5_rfc_2195_2() -> None:
    cram = mechanism("CRAM-MD5", TIM)
    assert cram.first() is None
    assert cram.respond(b"<1896.697170952@postoffice.reston.mci.net>") == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_scram_sha_1_rfc_5802_5() -> None:
    scram = Scram("SCRAM-SHA-1", PENCIL, nonce="fyko+d2lbbFgONRv9qkxdawL")
    assert scram.first() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    challenge = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"
    assert scram.respond(challenge) == (
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    )
    assert not scram.is_proven
    assert scram.respond(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=") == b""
    assert scram.is_proven


def test_scram_sha_256_rfc_7677_3() -> None:
    scram = Scram("SCRAM-SHA-256", PENCIL, nonce="rOprNGfwEbeRWgbNEkqO")
    assert scram.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert scram.respond(b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096") == (
        b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert scram.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") == b""
    assert scram.is_proven


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    scram = Scram("SCRAM-SHA-1", PENCIL, nonce="fyko+d2lbbFgONRv9qkxdawL")
    scram.respond(b"r=fyko+d2lbbFgONRv9qkxdawL3rfc,s=QSXCR+Q6sek8bf92,i=4096")
    with pytest.raises(SaslError, match="does not know"):
        scram.respond(b"v=" + base64.b64encode(bytes(20)))
    assert not scram.is_proven


@pytest.mark.parametrize(
    "challenge",
    [
        b"r=somebody-else,s=QSXCR+Q6sek8bf92,i=4096",
        b"r=fyko,s=QSXCR+Q6sek8bf92,i=4096",
        b"r=fykoX,s=QSXCR+Q6sek8bf92,i=1",
        b"r=fykoX,s=QSXCR+Q6sek8bf92,i=999999999",
        b"r=fykoX,s=====,i=4096",
        b"m=ext,r=fykoX,s=QSXCR+Q6sek8bf92,i=4096",
        b"",
        b"\xff\x00",
    ],
)
def test_scram_refuses_a_first_message_that_breaks_the_rules(challenge: bytes) -> None:
    with pytest.raises(SaslError):
        Scram("SCRAM-SHA-1", PENCIL, nonce="fyko").respond(challenge)


def test_scram_binds_to_the_channel_or_says_that_it_could_have() -> None:
    plus = Scram("SCRAM-SHA-256-PLUS", PENCIL, ("tls-exporter", b"\x01\x02"), nonce="n")
    assert plus.first() == b"p=tls-exporter,,n=user,r=n"
    final = plus.respond(b"r=n2,s=QSXCR+Q6sek8bf92,i=4096")
    assert final.startswith(b"c=" + base64.b64encode(b"p=tls-exporter,,\x01\x02") + b",r=n2,p=")
    could = Scram("SCRAM-SHA-256", PENCIL, ("tls-exporter", b"\x01\x02"), nonce="n")
    assert could.first() == b"y,,n=user,r=n"


def test_names_with_commas_and_equal_signs_are_escaped() -> None:
    assert Scram("SCRAM-SHA-1", Credentials("a,b=c", "x"), nonce="n").first() == b"n,,n=a=2Cb=3Dc,r=n"


def test_bearer_tokens_xoauth2_and_oauthbearer_rfc_7628_4() -> None:
    who = Credentials("user@example.com", token="vF9dft4qmT")
    assert mechanism("XOAUTH2", who).first() == b"user=user@example.com\x01auth=Bearer vF9dft4qmT\x01\x01"
    bearer = mechanism("OAUTHBEARER", who)
    assert bearer.first() == b"n,a=user@example.com,\x01auth=Bearer vF9dft4qmT\x01\x01"
    assert bearer.respond(b'{"status":"invalid_token"}') == b"\x01"
    assert mechanism("XOAUTH2", who).respond(b'{"status":"400"}') == b""


BINDINGS = {"tls-exporter": b"x", "tls-server-end-point": b"y"}


@pytest.mark.parametrize(
    ("offered", "tls", "bindings", "name"),
    [
        ("PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256", True, {}, "SCRAM-SHA-256"),
        ("PLAIN SCRAM-SHA-256 SCRAM-SHA-1-PLUS", True, BINDINGS, "SCRAM-SHA-1-PLUS"),
        ("PLAIN SCRAM-SHA-256-PLUS", True, {}, "PLAIN"),
        ("plain login", True, {}, "PLAIN"),
        ("PLAIN CRAM-MD5", False, {}, "CRAM-MD5"),
    ],
)
def test_the_best_mechanism_is_chosen(offered: str, tls: bool, bindings: dict[str, bytes], name: str) -> None:
    assert chosen(offered.split(), TIM, tls_is_up=tls, bindings=bindings).name == name


def test_nothing_that_shows_the_password_goes_out_without_tls() -> None:
    with pytest.raises(SaslError, match="TLS is not up"):
        chosen(["PLAIN", "LOGIN"], TIM, tls_is_up=False)
    assert chosen(["LOGIN"], TIM, tls_is_up=False, clear_text_allowed=True).name == "LOGIN"


def test_no_secret_shows_in_the_text_of_credentials() -> None:
    who = Credentials("tim", "tanstaaf", token="vF9dft4qmT")
    assert "tanstaaf" not in repr(who) and "vF9" not in repr(who)
