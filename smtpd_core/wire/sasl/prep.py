"""How names and passwords are made comparable: SASLprep (RFC 4013) and the PRECIS profiles of RFC 8265.

SCRAM of RFC 5802 wants SASLprep. Everything else uses PRECIS, which keeps the characters that Unicode got since.
All functions return the prepared text or raise ValueError with a reason that never holds the text itself.
Not here: which of them a mechanism or a store uses.
"""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable

# What may not appear in a prepared string, RFC 4013 2.3.
_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)

# Categories that no PRECIS string class lets in: controls, surrogates, private use, unassigned (RFC 8264 9).
_NEVER = frozenset({"Cc", "Cs", "Co", "Cn"})
# The identifier class has letters, digits and marks; ASCII7 brings printable ASCII without the space.
_IDENTIFIER = frozenset({"Ll", "Lu", "Lo", "Nd", "Lm", "Mn", "Mc"})


def saslprep(text: str, *, stored: bool = False) -> str:
    """RFC 4013. `stored` refuses code points that Unicode 3.2 had not assigned (a name or password being set)."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c)
    )  # 2.1: other spaces become a space, soft hyphens and the like become nothing
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for c in prepared:
        if any(prohibits(c) for prohibits in _PROHIBITED):
            raise ValueError("it holds a character that SASLprep prohibits (RFC 4013 2.3)")
        if stored and stringprep.in_table_a1(c):
            raise ValueError("it holds a character that SASLprep does not know (RFC 4013 2.5)")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 6: a string with a right-to-left character has no left-to-right one and begins and ends with such."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return
    if any(stringprep.in_table_d2(c) for c in text):
        raise ValueError("it mixes directions of writing (RFC 3454 6)")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("it begins or ends against its direction of writing (RFC 3454 6)")


def opaque_string(password: str) -> str:
    """The OpaqueString profile (RFC 8265 4.2): what a password is before it is hashed or compared."""
    if password.isascii() and password.isprintable() and password:
        return password
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    prepared = unicodedata.normalize("NFC", spaced)
    if not prepared:
        raise ValueError("it is empty")
    if any(unicodedata.category(c) in _NEVER for c in prepared):
        raise ValueError("it holds a control or an unassigned character (RFC 8265 4.2)")
    return prepared


def user_name(text: str, *, case_insensitive: bool = False) -> str:
    """UsernameCasePreserved or UsernameCaseMapped (RFC 8265 3); e-mail addresses are user names too."""
    if not (text.isascii() and text.isprintable()) or " " in text or not text:
        text = unicodedata.normalize("NFC", "".join(_narrow(c) for c in text))
        if not text:
            raise ValueError("it is empty")
        if any(not _may_be_in_a_name(c) for c in text):
            raise ValueError("it holds a space, a control or another character that no user name has (RFC 8265 3)")
    return unicodedata.normalize("NFC", text.lower()) if case_insensitive else text


def _narrow(c: str) -> str:
    """Full-width and half-width characters become their ordinary selves (RFC 8265 3.3.1)."""
    form = unicodedata.decomposition(c)
    return unicodedata.normalize("NFKC", c) if form.startswith(("<wide>", "<narrow>")) else c


def _may_be_in_a_name(c: str) -> bool:
    return "!" <= c <= "~" or (not c.isascii() and unicodedata.category(c) in _IDENTIFIER)
