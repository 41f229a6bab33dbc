"""The client side of SASL: PLAIN, LOGIN, CRAM-MD5, SCRAM, XOAUTH2, OAUTHBEARER, EXTERNAL.

One small object per log-in: first() is the initial response (None: the server speaks first), respond() answers one
challenge, `is_proven` says at the final 235 whether the server showed what the mechanism makes it show. A challenge
that breaks the mechanism's rules raises SaslError: the caller cancels with `*` and does not trust the server.
All of it is bytes before base64. `chosen` picks the best mechanism both sides know.
Not here: sending (wire/client.py), the server's side (one file per mechanism family beside this one).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from smtpd_core.wire.sasl.prep import saslprep

# A server that names a huge count makes its client burn a processor for minutes; 4096 is the least (RFC 7677 4).
MAX_SCRAM_ITERATIONS = 2_000_000
MIN_SCRAM_ITERATIONS = 4096

_SERVER_FIRST = re.compile(rb"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,9})(?:,.*)?\Z", re.S)


class SaslError(Exception):
    """The server broke the mechanism's rules or could not prove itself, or the mechanism can't be used."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client logs in with. `token` is an OAuth bearer token; `act_as` the authorisation identity, usually ""."""

    user: str
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    act_as: str = ""

    def __post_init__(self) -> None:
        if any("\0" in part for part in (self.user, self.password, self.act_as)):
            raise ValueError("a name or password to log in with holds a NUL")
        if any(c < "!" or c > "~" for c in self.token):
            raise ValueError("a bearer token holds a character that is not printable ASCII (RFC 6750 2.1)")


class Mechanism(Protocol):
    """One log-in of a client."""

    name: str
    is_proven: bool

    def first(self) -> bytes | None:
        """The initial response; None where the server has the first word."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge. Raises SaslError."""


class Plain:
    """RFC 4616."""

    name = "PLAIN"
    is_proven = True

    def __init__(self, who: Credentials) -> None:
        self._response = "\0".join((who.act_as, who.user, who.password)).encode()

    def first(self) -> bytes | None:
        return self._response

    def respond(self, challenge: bytes) -> bytes:
        # 1 A server that does not take initial responses asks with an empty challenge. 2 More than one is nonsense.
        if not self._response:
            raise SaslError("PLAIN: the server asked twice")
        response, self._response = self._response, b""
        return response


class Login:
    """The two questions of LOGIN, answered in their order whatever their wording is."""

    name = "LOGIN"
    is_proven = True

    def __init__(self, who: Credentials) -> None:
        self._answers = [who.user.encode(), who.password.encode()]

    def first(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise SaslError("LOGIN: the server asked a third question")
        return self._answers.pop(0)


class CramMd5:
    """RFC 2195."""

    name = "CRAM-MD5"
    is_proven = True

    def __init__(self, who: Credentials) -> None:
        self._who = who

    def first(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        digest = hmac.new(self._who.password.encode(), challenge, "md5").hexdigest()
        return f"{self._who.user} {digest}".encode()


class Scram:
    """RFC 5802 and 7677, with channel binding where `binding` (its type and data) is given and the name says -PLUS."""

    def __init__(self, name: str, who: Credentials, binding: tuple[str, bytes] | None = None, nonce: str = "") -> None:
        self.name = name
        self.is_proven = False
        self._hash = "sha1" if name.startswith("SCRAM-SHA-1") else "sha256"
        try:
            self._password = saslprep(who.password).encode()
            user = saslprep(who.user)
        except ValueError as error:
            raise SaslError(f"{name}: the name or password can't be used: {error}") from None
        header = "n"
        data = b""
        if name.endswith("-PLUS"):
            if binding is None:
                raise SaslError(f"{name} needs a channel binding, and so TLS")
            header, data = f"p={binding[0]}", binding[1]
        elif binding is not None:
            header = "y"  # we could, the server did not offer it: it must know that (RFC 5802 6)
        act_as = f"a={_escaped(who.act_as)}" if who.act_as else ""
        gs2 = f"{header},{act_as},".encode()
        self._nonce = (nonce or secrets.token_urlsafe(24)).encode()
        self._bare = f"n={_escaped(user)},r=".encode() + self._nonce
        self._gs2 = gs2
        self._binding = base64.b64encode(gs2 + data)
        self._signature: bytes | None = None

    def first(self) -> bytes | None:
        return self._gs2 + self._bare

    def respond(self, challenge: bytes) -> bytes:
        if self.is_proven:
            raise SaslError(f"{self.name}: the server goes on after its last word")
        if self._signature is None:
            return self._final(challenge)
        self._check(challenge)
        return b""

    def _final(self, challenge: bytes) -> bytes:
        parts = _SERVER_FIRST.match(challenge)
        if parts is None or not parts[1].startswith(self._nonce) or parts[1] == self._nonce:
            raise SaslError(f"{self.name}: the server's first message is not what RFC 5802 5 says")
        iterations = int(parts[3])
        if not MIN_SCRAM_ITERATIONS <= iterations <= MAX_SCRAM_ITERATIONS:
            raise SaslError(
                f"{self.name}: {iterations} iterations; {MIN_SCRAM_ITERATIONS} to {MAX_SCRAM_ITERATIONS} are taken"
            )
        try:
            salt = base64.b64decode(parts[2], validate=True)
        except ValueError:
            raise SaslError(f"{self.name}: the salt is not base64") from None
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, iterations)
        without_proof = b"c=" + self._binding + b",r=" + parts[1]
        message = b",".join((self._bare, challenge, without_proof))
        client_key = hmac.digest(salted, b"Client Key", self._hash)
        stored_key = hashlib.new(self._hash, client_key).digest()
        signature = hmac.digest(stored_key, message, self._hash)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", self._hash), message, self._hash)
        return without_proof + b",p=" + base64.b64encode(proof)

    def _check(self, challenge: bytes) -> None:
        """The server's last message: its proof that it knows the verifier (RFC 5802 3)."""
        assert self._signature is not None
        if challenge.startswith(b"e="):
            raise SaslError(f"{self.name}: the server says {challenge[2:66].decode('ascii', 'replace')!r}")
        if not hmac.compare_digest(challenge.split(b",")[0], b"v=" + base64.b64encode(self._signature)):
            raise SaslError(f"{self.name}: the server does not know the password; do not trust it")
        self.is_proven = True


class Bearer:
    """XOAUTH2 as deployed, and OAUTHBEARER (RFC 7628). A challenge is the server's reason for saying no."""

    is_proven = True

    def __init__(self, name: str, who: Credentials) -> None:
        self.name = name
        self.reason = ""
        if name == "XOAUTH2":
            self._response = f"user={who.user}\x01auth=Bearer {who.token}\x01\x01".encode()
        else:
            act_as = f"a={_escaped(who.act_as or who.user)}"
            self._response = f"n,{act_as},\x01auth=Bearer {who.token}\x01\x01".encode()
        self._sent = False

    def first(self) -> bytes | None:
        self._sent = True
        return self._response

    def respond(self, challenge: bytes) -> bytes:
        # 1 An empty challenge asks for what could not be sent with AUTH. 2 Any other is the error, acknowledged by
        # an empty line or %x01 (RFC 7628 3.2.3).
        if not challenge and not self.reason:
            return self._response
        self.reason = _reason(challenge)
        return b"" if self.name == "XOAUTH2" else b"\x01"


class External:
    """RFC 4422 appendix A: the client certificate has proven the identity already."""

    name = "EXTERNAL"
    is_proven = True

    def __init__(self, who: Credentials) -> None:
        self._act_as = who.act_as.encode()

    def first(self) -> bytes | None:
        return self._act_as

    def respond(self, challenge: bytes) -> bytes:
        return self._act_as


def _escaped(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _reason(challenge: bytes) -> str:
    """The status of the server's error object, for the report; never more than 200 characters of it."""
    try:
        told = json.loads(challenge)
        return str(told.get("status", told))[:200] if isinstance(told, dict) else "refused"
    except ValueError:
        return "refused"


# Best first. The -PLUS forms need a channel binding; PLAIN and LOGIN show the password to the server, and so want TLS.
_BY_PASSWORD = (
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
)
_BY_TOKEN = ("OAUTHBEARER", "XOAUTH2")
CLEAR_TEXT = frozenset({"PLAIN", "LOGIN", *_BY_TOKEN})


def chosen(
    offered: Iterable[str],
    who: Credentials,
    *,
    tls_is_up: bool,
    bindings: Mapping[str, bytes] | None = None,
    clear_text_allowed: bool = False,
) -> Mechanism:
    """The best mechanism of those offered for these credentials. Raises SaslError, with the reason, where none fits.

    `bindings` are the channel bindings of the connection (TlsFacts.bindings). Without TLS nothing that shows the
    password or token is used unless `clear_text_allowed`.
    """
    names = {name.upper() for name in offered}
    binding = _best_binding(bindings or {})
    for name in _BY_TOKEN if who.token else _BY_PASSWORD:
        if name not in names or (name.endswith("-PLUS") and binding is None):
            continue
        if name in CLEAR_TEXT and not tls_is_up and not clear_text_allowed:
            continue
        return mechanism(name, who, binding)
    if names & CLEAR_TEXT and not tls_is_up:
        raise SaslError("the server offers only mechanisms that show the password, and TLS is not up")
    raise SaslError(f"no mechanism fits; the server offers {' '.join(sorted(names)) or 'none'}")


def _best_binding(bindings: Mapping[str, bytes]) -> tuple[str, bytes] | None:
    for kind in ("tls-exporter", "tls-server-end-point"):
        if bindings.get(kind):
            return kind, bindings[kind]
    return None


def mechanism(name: str, who: Credentials, binding: tuple[str, bytes] | None = None) -> Mechanism:
    """The client side of one mechanism by name. Raises SaslError for a name that is none of ours."""
    name = name.upper()
    if name in ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"):
        return Scram(name, who, binding)
    if name in _BY_TOKEN:
        return Bearer(name, who)
    simple: dict[str, type[Plain | Login | CramMd5 | External]] = {
        "PLAIN": Plain,
        "LOGIN": Login,
        "CRAM-MD5": CramMd5,
        "EXTERNAL": External,
    }
    if name not in simple:
        raise SaslError(f"mechanism {name[:40]!r} is not known here")
    return simple[name](who)
