"""SCRAM (RFC 5802, RFC 7677) with and without channel binding (-PLUS), the server's side.

The server sees neither the password nor anything from which it could be computed. An unknown user gets a salt that is
the same each time (salts.py) and fails at the end, like a wrong password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome, Surroundings
from smtpd_core.wire.sasl.plain import decoded, is_name
from smtpd_core.wire.sasl.prep import saslprep
from smtpd_core.wire.sasl.salts import salt_of
from smtpd_core.wire.sasl.verifier import HASHES, ScramVerifier, Stranger

_FIRST = re.compile(r"(n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,\0]+))?,(n=([^,\0]+),r=([!-+\--~]+)(?:,[^\0]*)?)\Z")
_FINAL = re.compile(rb"(c=([A-Za-z0-9/+=]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]*)*),p=([A-Za-z0-9/+=]+)\Z")


class Scram:
    """client-first, server-first, client-final, server-final; then the client's empty answer (RFC 4954 4)."""

    def __init__(self, kind: str, *, plus: bool, surroundings: Surroundings) -> None:
        self._kind = kind
        self._hash = HASHES[kind]
        self._plus = plus
        self._around = surroundings
        self._nonce = secrets.token_urlsafe(18)
        self._user = ""
        self._acts_as = ""
        self._gs2 = b""
        self._bare = b""
        self._server_first = b""
        self._verifier: ScramVerifier | None = None
        self._known = False
        self._binding = b""
        self._proven = False

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge() if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        if self._proven:
            return Done(self._user, self._acts_as) if not response else MALFORMED
        return self._client_final(response) if self._server_first else self._client_first(response)

    def _client_first(self, response: bytes) -> Outcome:
        match = _FIRST.match(decoded(response) or "")
        if match is None:
            return MALFORMED
        flag, binding, acts_as, bare, name, nonce = match.groups()
        user, acting = unescaped(name), unescaped(acts_as or "")
        if user is None or acting is None or not is_name(user) or (acting and not is_name(acting)):
            return MALFORMED
        try:
            self._user = saslprep(user)
        except ValueError:
            return MALFORMED
        # RFC 5802 6: "y" says that the client could bind and saw no -PLUS offered; if one was, someone took it away.
        if flag == "y" and self._around.binding_offered:
            return Failure(self._user)
        if binding is None:
            if self._plus:
                return MALFORMED
        elif not self._plus or binding not in self._around.bindings:
            return Failure(self._user)
        else:
            self._binding = self._around.bindings[binding]
        self._acts_as = acting
        self._bare = bare.encode()
        self._gs2 = response[: len(response) - len(self._bare)]
        self._nonce = nonce + self._nonce
        return Ask(self._user, self._kind)

    def supply(self, answer: object) -> Outcome:
        self._known = isinstance(answer, ScramVerifier)
        self._verifier = answer if isinstance(answer, ScramVerifier) else self._fake(answer)
        salt = base64.b64encode(self._verifier.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}".encode()
        return Challenge(self._server_first)

    def _fake(self, answer: object) -> ScramVerifier:
        """Steady for a name and kind, as a stored one is."""
        like = answer if isinstance(answer, Stranger) else Stranger(self._user)
        salt = salt_of(self._around.salt_key, self._kind, like.name, like.salt_size)
        size = hashlib.new(self._hash).digest_size
        return ScramVerifier(salt, like.iterations, secrets.token_bytes(size), secrets.token_bytes(size))

    def _client_final(self, response: bytes) -> Outcome:
        match = _FINAL.match(response)
        if match is None or self._verifier is None:
            return MALFORMED
        without_proof, binding, nonce, proof_text = match.groups()
        try:
            bound = base64.b64decode(binding, validate=True)
            proof = base64.b64decode(proof_text, validate=True)
        except ValueError:
            return MALFORMED
        if nonce.decode() != self._nonce or len(proof) != len(self._verifier.stored_key):
            return MALFORMED
        message = b",".join((self._bare, self._server_first, without_proof))
        signature = hmac.digest(self._verifier.stored_key, message, self._hash)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        fits = hmac.compare_digest(hashlib.new(self._hash, client_key).digest(), self._verifier.stored_key)
        fits &= hmac.compare_digest(bound, self._gs2 + self._binding)
        if not (fits and self._known):
            return Failure(self._user)
        self._proven = True
        return Challenge(b"v=" + base64.b64encode(hmac.digest(self._verifier.server_key, message, self._hash)))


def unescaped(name: str) -> str | None:
    """=2C is a comma and =3D an equals sign; any other "=" is a mistake (RFC 5802 5.1)."""
    if "=" in name.replace("=2C", "").replace("=3D", ""):
        return None
    return name.replace("=2C", ",").replace("=3D", "=")
