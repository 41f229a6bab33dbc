"""A stored password as text: its scheme, and what it gives without a check.

A stored password tells its scheme: by a prefix in braces as Dovecot and LDAP write it ({SSHA}..., {PLAIN}...), or by
the $name$ of its crypt form. Pure.
Not here: whether a password is the one that is stored (hashing.py).
"""

from __future__ import annotations

import base64
import binascii
import re

from smtpd_core.wire.sasl.prep import opaque_string
from smtpd_core.wire.sasl.verifier import ScramVerifier

# A password longer than this is refused unhashed: the time must not grow with what a stranger sends.
MAX_PASSWORD = 1024

_BRACES = re.compile(r"\{([A-Za-z0-9-]+)(?:\.(B64|BASE64|HEX))?\}", re.I)

# $...$ forms, by how they begin.
_DOLLARS = (
    ("$argon2", "ARGON2ID"),
    ("$scrypt$", "SCRYPT"),
    ("$2a$", "BCRYPT"),
    ("$2b$", "BCRYPT"),
    ("$2y$", "BCRYPT"),
    ("$", "CRYPT"),
)
_ALIASES = {
    "ARGON2I": "ARGON2ID",
    "BLF-CRYPT": "BCRYPT",
    "SHA256-CRYPT": "CRYPT",
    "SHA512-CRYPT": "CRYPT",
    "MD5-CRYPT": "CRYPT",
    "DES-CRYPT": "CRYPT",
    "MD5": "CRYPT",
    "SHA1": "SHA",
    "LDAP-MD5": "PLAIN-MD5",
}
# Schemes of LDAP: base64 of a digest and, behind it, the salt. With the name of the digest.
DIGESTS = {
    "SHA": "sha1",
    "SSHA": "sha1",
    "SHA256": "sha256",
    "SSHA256": "sha256",
    "SHA512": "sha512",
    "SSHA512": "sha512",
    "SMD5": "md5",
}


class HashUnusable(Exception):
    """A stored hash can't be checked here: unknown scheme, malformed, or its library is not installed."""


def split(stored: str) -> tuple[str, str]:
    """(scheme, rest). Without any mark it is a traditional crypt hash; a clear password must say {PLAIN}."""
    braces = _BRACES.match(stored)
    if braces is None:
        return next((scheme for begin, scheme in _DOLLARS if stored.startswith(begin)), "CRYPT"), stored
    scheme, encoding, rest = braces[1].upper(), (braces[2] or "").upper(), stored[braces.end() :]
    scheme = _ALIASES.get(scheme, scheme)
    if scheme == "CRYPT" and rest.startswith(("$argon2", "$scrypt$", "$2")):
        return split(rest)
    if encoding and scheme in ("PLAIN", "CLEARTEXT"):
        return scheme, _decoded(rest, encoding).decode(errors="replace")
    if encoding and scheme in DIGESTS:
        return scheme, base64.b64encode(_decoded(rest, encoding)).decode()
    return scheme, rest


def _decoded(text: str, encoding: str) -> bytes:
    try:
        return binascii.unhexlify(text) if encoding == "HEX" else base64.b64decode(text, validate=True)
    except ValueError:
        raise HashUnusable(f"a stored password is not the {encoding.lower()} that it says") from None


def cleartext_of(stored: str) -> str | None:
    """The password itself where it is stored in recoverable form, else None."""
    scheme, rest = split(stored)
    return rest if scheme in ("PLAIN", "CLEARTEXT") else None


def nt_hash_of(stored: str) -> bytes | None:
    """The NT hash where the entry is one ({NT} or {NTLM}, 32 hex digits), else None."""
    scheme, rest = split(stored)
    if scheme not in ("NT", "NTLM"):
        return None
    try:
        digest = bytes.fromhex(rest)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


def verifier_of(stored: str, kind: str) -> ScramVerifier | None:
    """The SCRAM verifier where the entry is one of this kind, else None. Raises HashUnusable for a broken one."""
    scheme, rest = split(stored)
    if scheme != kind.upper():
        return None
    return verifier_in(rest)


def verifier_in(text: str) -> ScramVerifier:
    """What stands behind {SCRAM-SHA-...}. Raises HashUnusable."""
    try:
        return ScramVerifier.parse(text)
    except ValueError as error:
        raise HashUnusable(str(error)) from None


def prepared(password: str) -> bytes:
    """A password as it is hashed and compared. Raises ValueError for one that can't be."""
    if len(password) > MAX_PASSWORD:
        raise ValueError(f"a password of more than {MAX_PASSWORD} characters is not taken")
    try:
        return opaque_string(password).encode()
    except ValueError as error:
        raise ValueError(f"the password can't be used: {error}") from None
