"""SASLprep with the examples of RFC 4013 3, and the PRECIS profiles of RFC 8265."""

from __future__ import annotations

import pytest

from smtpd_core.wire.sasl.prep import opaque_string, saslprep, user_name


@pytest.mark.parametrize(
    ("given", "prepared"),
    [("I\xadX", "IX"), ("user", "user"), ("USER", "USER"), ("\xaa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_saslprep(given: str, prepared: str) -> None:
    assert saslprep(given) == prepared


@pytest.mark.parametrize("given", ["\x07", "\u06271", "\ud800", "\ufffd", "a\u0627"])
def test_saslprep_refuses(given: str) -> None:
    with pytest.raises(ValueError):
        saslprep(given)


def test_unassigned_characters_are_refused_only_when_stored() -> None:
    assert saslprep("\u0221") == "\u0221"
    with pytest.raises(ValueError):
        saslprep("\u0221", stored=True)


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        ("correct horse battery staple", "correct horse battery staple"),
        ("\u03c0\xdf\xe5", "\u03c0\xdf\xe5"),
        ("Jack of \u2666s", "Jack of \u2666s"),
        ("foo\u1680bar", "foo bar"),
        ("e\u0301", "\xe9"),
    ],
)
def test_opaque_string_rfc_8265_4_3(given: str, prepared: str) -> None:
    assert opaque_string(given) == prepared


@pytest.mark.parametrize("given", ["", "my cat is a \tby", "x\0"])
def test_opaque_string_refuses(given: str) -> None:
    with pytest.raises(ValueError):
        opaque_string(given)


def test_user_names_keep_or_lose_their_case() -> None:
    assert user_name("Ann@Example.test") == "Ann@Example.test"
    assert user_name("Ann@Example.test", case_insensitive=True) == "ann@example.test"
    assert user_name("\uff21nn") == "Ann"
    assert user_name("\u03a3", case_insensitive=True) == "\u03c3"


@pytest.mark.parametrize("given", ["", "foo bar", "x\0y", "henry\u2163", "\u265a"])
def test_user_names_refused_rfc_8265_3_5(given: str) -> None:
    with pytest.raises(ValueError):
        user_name(given)
