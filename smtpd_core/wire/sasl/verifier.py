"""What a server keeps of a password for SCRAM: enough to check a client, too little to log in as one (RFC 5802 3)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from smtpd_core.wire.sasl.prep import saslprep

# RFC 7677 4 asks for at least 4096. More costs the client and the making of a verifier, never the server's log-in.
DEFAULT_ITERATIONS = 10_000

# The hash of each kind of verifier, by its name in the store contract.
HASHES = {"scram-sha-1": "sha1", "scram-sha-256": "sha256"}


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """Salt, count, StoredKey and ServerKey of RFC 5802 3. Its hash is known from the kind it was stored as."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __str__(self) -> str:
        """As written by Dovecot: COUNT,SALT,STOREDKEY,SERVERKEY, all but the count in base64."""
        keys = (self.salt, self.stored_key, self.server_key)
        return ",".join([str(self.iterations), *(base64.b64encode(key).decode() for key in keys)])

    @classmethod
    def parse(cls, text: str) -> ScramVerifier:
        """The inverse of str(). Raises ValueError without quoting the text."""
        try:
            count, salt, stored, server = text.split(",")
            keys = [base64.b64decode(part, validate=True) for part in (salt, stored, server)]
            if int(count) < 1 or not keys[0] or len(keys[1]) not in (20, 32) or len(keys[1]) != len(keys[2]):
                raise ValueError
        except ValueError:
            raise ValueError(
                "a SCRAM verifier reads COUNT,SALT,STOREDKEY,SERVERKEY, the last three in base64"
            ) from None
        return cls(keys[0], int(count), keys[1], keys[2])


@dataclass(frozen=True, slots=True)
class Stranger:
    """What a store may answer for an unknown user: the name as it would be kept, and how its verifiers look from
    outside. What is made up for the client is made from these, so that it does not stand out among the real ones."""

    name: str
    iterations: int = DEFAULT_ITERATIONS
    salt_size: int = 16


def make_verifier(
    password: str, kind: str, *, salt: bytes | None = None, iterations: int = DEFAULT_ITERATIONS
) -> ScramVerifier:
    """The verifier of a password; `kind` is a key of HASHES. Costs `iterations` hashes.

    Raises ValueError for a password that SASLprep refuses.
    """
    name = HASHES[kind]
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac(name, saslprep(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    return ScramVerifier(
        salt, iterations, hashlib.new(name, client_key).digest(), hmac.digest(salted, b"Server Key", name)
    )


def proves(verifier: ScramVerifier, kind: str, password: str) -> bool:
    """Whether the password is the one behind the verifier, in the time that making one takes."""
    try:
        made = make_verifier(password, kind, salt=verifier.salt, iterations=verifier.iterations)
    except ValueError:
        return False
    return hmac.compare_digest(made.stored_key, verifier.stored_key)
