"""Checks of hashes that other programs made: bcrypt, the family of crypt(3), the digests of LDAP directories.

Each is told what stands behind the scheme and the password as prepared; HashUnusable says why it can't be checked.
Thread: any.
Not here: which scheme a stored password has (stored.py), our own hashes (hashing.py).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from smtpd_core.accounts.extras import installed
from smtpd_core.accounts.stored import HashUnusable

bcrypt = installed("bcrypt")
passlib_context = installed("passlib.context")


def matches_bcrypt(stored: str, secret: bytes) -> bool:
    if bcrypt is None:
        raise HashUnusable("bcrypt hashes need bcrypt: pip install 'smtpd_core[passwords]'")
    try:
        # bcrypt looks at 72 bytes; those who made the hash cut there too.
        return bool(bcrypt.checkpw(secret[:72], stored.encode()))
    except ValueError:
        raise HashUnusable("a bcrypt hash is malformed") from None


# What crypt(3) and Apache's htpasswd write, by libpass.
_CRYPT_SCHEMES = ["sha512_crypt", "sha256_crypt", "apr_md5_crypt", "md5_crypt", "sha1_crypt", "des_crypt"]


def matches_crypt(stored: str, secret: bytes) -> bool:
    if passlib_context is None:
        raise HashUnusable("hashes of the crypt family need libpass: pip install 'smtpd_core[crypt]'")
    known = passlib_context.CryptContext(schemes=_CRYPT_SCHEMES)
    try:
        return bool(known.verify(secret, stored))
    except (ValueError, TypeError):
        raise HashUnusable(
            "a stored password has no scheme that is known; a password in clear is written {PLAIN}..."
        ) from None


def matches_digest(name: str) -> Callable[[str, bytes], bool]:
    """LDAP's {SHA}, {SSHA} and their kin: base64 of the digest and, behind it, the salt."""
    size = hashlib.new(name, usedforsecurity=False).digest_size

    def check(stored: str, secret: bytes) -> bool:
        try:
            raw = base64.b64decode(stored, validate=True)
        except ValueError:
            raise HashUnusable(f"a {name} password hash is not base64") from None
        if len(raw) < size:
            raise HashUnusable(f"a {name} password hash is too short")
        made = hashlib.new(name, secret + raw[size:], usedforsecurity=False).digest()
        return hmac.compare_digest(made, raw[:size])

    return check


def matches_hex_md5(stored: str, secret: bytes) -> bool:
    made = hashlib.md5(secret, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(made.encode(), stored.lower().encode())
