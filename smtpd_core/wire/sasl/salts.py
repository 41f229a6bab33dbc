"""Salts of SCRAM that no account has stored: made from a key, so that they are the same each time (RFC 5802 9).

They are for names that are nobody's, and for verifiers that are made from a password which is kept in clear. Whoever
compares what he is told of a name today with what he was told of it yesterday finds out the names that are nobody's
where only theirs have changed: so the key is to be kept as long as the accounts are. Without one there is PROCESS_KEY.
"""

from __future__ import annotations

import hashlib
import secrets

# Of this process and of those that it forks: their listeners tell the same of a name.
PROCESS_KEY = secrets.token_bytes(32)
# What a key has at least: it is not to be found by trying.
LEAST_KEY = 16


def salt_of(key: bytes, kind: str, name: str, size: int = 16) -> bytes:
    """The salt of a name, as spelt by the store, for a kind of verifier."""
    steady = hashlib.sha256(key).digest()  # of one length, so that a prefix of SHAKE will do
    return hashlib.shake_256(steady + f"{kind} {name}".encode(errors="surrogatepass")).digest(size)
