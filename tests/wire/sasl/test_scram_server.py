"""SCRAM, the server's side: the examples of RFC 5802 5 and RFC 7677 3, and our own client in every combination."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from smtpd_core.wire.sasl import scram
from smtpd_core.wire.sasl.client import Credentials, SaslError, Scram
from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome, Surroundings
from smtpd_core.wire.sasl.mechanisms import MECHANISMS
from smtpd_core.wire.sasl.verifier import ScramVerifier, make_verifier, proves

BINDINGS = {"tls-exporter": b"e" * 32, "tls-server-end-point": b"s" * 32}


@pytest.mark.parametrize(
    ("name", "nonce", "salt", "messages"),
    [
        (
            "SCRAM-SHA-1",
            "3rfcNHYJY1ZVvWVs7j",
            "QSXCR+Q6sek8bf92",
            [
                b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
                b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ],
        ),
        (
            "SCRAM-SHA-256",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            [
                b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ],
        ),
    ],
)
def test_the_examples_of_the_rfcs(
    name: str, nonce: str, salt: str, messages: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scram.secrets, "token_urlsafe", lambda *_: nonce)
    row = MECHANISMS[name]
    exchange = row.start(Surroundings())
    assert exchange.first(messages[0]) == Ask("user", row.kind)
    verifier = make_verifier("pencil", row.kind, salt=base64.b64decode(salt), iterations=4096)
    assert exchange.supply(verifier) == Challenge(messages[1])
    assert exchange.respond(messages[2]) == Challenge(messages[3])
    assert exchange.respond(b"") == Done("user")


def play(
    name: str, client: Scram, password: str | None = "pencil", bindings: Mapping[str, bytes] | None = None, **more: bool
) -> Outcome:
    """Client and server to their end."""
    row = MECHANISMS[name]
    exchange = row.start(Surroundings(salt_key=b"k", bindings=bindings or {}, **more))
    outcome = exchange.first(client.first())
    while True:
        if isinstance(outcome, Ask):
            found = make_verifier(password, row.kind, salt=b"salt", iterations=4096) if password else None
            outcome = exchange.supply(found)
        elif isinstance(outcome, Challenge):
            outcome = exchange.respond(client.respond(outcome.data))
        else:
            return outcome


@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
@pytest.mark.parametrize("binding", [None, "tls-exporter", "tls-server-end-point"])
def test_client_and_server_agree(name: str, binding: str | None) -> None:
    name += "-PLUS" * bool(binding)
    client = Scram(
        name, Credentials("user", "pencil", act_as="o,=ther"), (binding, BINDINGS[binding]) if binding else None
    )
    assert play(name, client, bindings=BINDINGS, binding_offered=True) == Done("user", "o,=ther")
    assert client.is_proven


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_password_and_an_unknown_user_fail_alike(password: str | None) -> None:
    assert play("SCRAM-SHA-256", Scram("SCRAM-SHA-256", Credentials("user", "pencil")), password) == Failure("user")


def test_an_unknown_user_has_a_salt_that_stays() -> None:
    salts = set()
    for _ in range(3):
        exchange = MECHANISMS["SCRAM-SHA-256"].start(Surroundings(salt_key=b"k"))
        exchange.first(b"n,,n=nobody,r=x")
        told = exchange.supply(None)
        assert isinstance(told, Challenge)
        salts.add(told.data.split(b",")[1])
    assert len(salts) == 1


def test_someone_in_the_middle_who_takes_plus_away_is_found_out() -> None:
    client = Scram("SCRAM-SHA-256", Credentials("user", "pencil"), ("tls-exporter", b"e" * 32))
    assert play("SCRAM-SHA-256", client, bindings=BINDINGS, binding_offered=True) == Failure("user")
    client = Scram("SCRAM-SHA-256", Credentials("user", "pencil"), ("tls-exporter", b"e" * 32))
    assert play("SCRAM-SHA-256", client, bindings={}, binding_offered=False) == Done("user")


def test_another_channels_binding_is_refused() -> None:
    client = Scram("SCRAM-SHA-256-PLUS", Credentials("user", "pencil"), ("tls-exporter", b"x" * 32))
    assert play("SCRAM-SHA-256-PLUS", client, bindings=BINDINGS, binding_offered=True) == Failure("user")


def test_plus_wants_a_binding_and_the_bare_form_none() -> None:
    assert MECHANISMS["SCRAM-SHA-256-PLUS"].start(Surroundings(bindings=BINDINGS)).first(b"n,,n=u,r=x") == MALFORMED
    exchange = MECHANISMS["SCRAM-SHA-256"].start(Surroundings(bindings=BINDINGS))
    assert exchange.first(b"p=tls-exporter,,n=u,r=x") == Failure("u")


def test_a_verifier_is_read_as_it_was_written_and_shows_no_key() -> None:
    verifier = make_verifier("pencil", "scram-sha-256")
    assert ScramVerifier.parse(str(verifier)) == verifier
    assert proves(verifier, "scram-sha-256", "pencil") and not proves(verifier, "scram-sha-256", "pen")
    assert base64.b64encode(verifier.stored_key).decode() not in repr(verifier)
    for broken in ("", "4096,x,y,z", "0,AAAA,AAAA,AAAA", "4096,AAAA,AAAA"):
        with pytest.raises(ValueError, match="COUNT"):
            ScramVerifier.parse(broken)


def test_a_password_that_saslprep_refuses_is_no_password() -> None:
    with pytest.raises(ValueError):
        make_verifier("\u0007", "scram-sha-1")
    with pytest.raises(SaslError):
        Scram("SCRAM-SHA-1", Credentials("user", "\u0007"))
