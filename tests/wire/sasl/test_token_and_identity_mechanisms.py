"""OAUTHBEARER, XOAUTH2, EXTERNAL and ANONYMOUS, the server's side; and each against our own client."""

from __future__ import annotations

import pytest

from smtpd_core.wire.sasl.client import Credentials, mechanism
from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Surroundings
from smtpd_core.wire.sasl.mechanisms import MECHANISMS

CERTIFIED = Surroundings(client_identity="ann@example.test")
WHO = Credentials("ann@example.test", token="vF9dft4qmT", act_as="")


@pytest.mark.parametrize("name", ["OAUTHBEARER", "XOAUTH2"])
def test_the_store_decides_about_a_token(name: str) -> None:
    exchange = MECHANISMS[name].start(Surroundings())
    assert exchange.first(None) == Challenge()
    assert exchange.respond(mechanism(name, WHO).first() or b"") == Ask("ann@example.test", "token", "vF9dft4qmT")
    assert exchange.supply("ann") == Done("ann")


@pytest.mark.parametrize("name", ["OAUTHBEARER", "XOAUTH2"])
def test_a_wrong_token_is_explained_before_it_fails(name: str) -> None:
    exchange, client = MECHANISMS[name].start(Surroundings()), mechanism(name, WHO)
    assert isinstance(exchange.first(client.first()), Ask)
    told = exchange.supply(None)
    assert isinstance(told, Challenge) and b'"status"' in told.data
    assert exchange.respond(client.respond(told.data)) == Failure("ann@example.test")


def test_oauthbearer_rfc_7628_4_1() -> None:
    message = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
    message += b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHR==\x01\x01"
    assert MECHANISMS["OAUTHBEARER"].start(Surroundings()).first(message) == Ask(
        "user@example.com", "token", "vF9dft4qmTc2Nvb3RlckBhbHR=="
    )


def test_oauthbearer_names_no_user_where_the_token_does() -> None:
    exchange = MECHANISMS["OAUTHBEARER"].start(Surroundings())
    assert exchange.first(b"n,,\x01auth=bearer t\x01\x01") == Ask("", "token", "t")


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("OAUTHBEARER", b""),
        ("OAUTHBEARER", b"n,,\x01\x01"),
        ("OAUTHBEARER", b"n,,\x01auth=Basic dGVzdA==\x01\x01"),
        ("OAUTHBEARER", b"p=tls-exporter,,\x01auth=Bearer t\x01\x01"),
        ("OAUTHBEARER", b"n,a=x=zz,\x01auth=Bearer t\x01\x01"),
        ("OAUTHBEARER", b"n,,\x01auth=Bearer t\x01"),
        ("OAUTHBEARER", b"n,a=x\r\ny,\x01auth=Bearer t\x01\x01"),
        ("XOAUTH2", b"user=ann\x01auth=Bearer t\x01"),
        ("XOAUTH2", b"user=ann\x01auth=Bearer t u\x01\x01"),
        ("XOAUTH2", b"user=a\x00\x01auth=Bearer t\x01\x01"),
        ("XOAUTH2", b"\xff"),
        ("EXTERNAL", b"\xff"),
        ("EXTERNAL", b"a\0b"),
        ("ANONYMOUS", b"x" * 300),
        ("ANONYMOUS", b"a\r\nb"),
    ],
)
def test_what_breaks_the_grammar_is_said_to_be_malformed(name: str, response: bytes) -> None:
    assert MECHANISMS[name].start(CERTIFIED).first(response) == MALFORMED


def test_no_token_shows_in_the_text_of_a_question() -> None:
    assert "vF9dft4qmT" not in repr(
        MECHANISMS["XOAUTH2"].start(Surroundings()).first(mechanism("XOAUTH2", WHO).first())
    )


def test_external_is_who_the_certificate_says() -> None:
    exchange = MECHANISMS["EXTERNAL"].start(CERTIFIED)
    assert exchange.first(b"") == Ask("ann@example.test", "certificate")
    assert exchange.supply("ann") == Done("ann")
    exchange = MECHANISMS["EXTERNAL"].start(CERTIFIED)
    assert exchange.first(b"bob") == Ask("ann@example.test", "certificate")
    assert exchange.supply("ann") == Done("ann", "bob")
    exchange = MECHANISMS["EXTERNAL"].start(CERTIFIED)
    exchange.first(b"")
    assert exchange.supply(None) == Failure("ann@example.test")
    assert MECHANISMS["EXTERNAL"].start(Surroundings()).first(b"") == Failure()


def test_anonymous_needs_an_account_of_that_name() -> None:
    exchange = MECHANISMS["ANONYMOUS"].start(Surroundings())
    assert exchange.first(None) == Challenge()
    assert exchange.respond(b"someone@example.test") == Ask("anonymous", "certificate")
    assert exchange.supply(None) == Failure("anonymous")


def test_every_mechanism_that_shows_its_secret_is_marked() -> None:
    assert {name for name, row in MECHANISMS.items() if row.clear_text} == {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}
