"""Stored passwords: hashing new ones, checking old ones, and knowing which are due for renewal.

A stored password tells its scheme: by a prefix in braces as Dovecot and LDAP write it ({SSHA}..., {PLAIN}...), or by
the $name$ of its crypt form. New ones are argon2id where argon2-cffi is installed (extra `passwords`), else scrypt.
A scheme that needs a library which is missing raises HashUnusable, which names the extra.
Thread: any; a check of an argon2id hash takes tens of milliseconds and 32 MiB, scrypt 32 MiB, without the interpreter
lock; how many run at a time is bounded by the engine's login slots.
Not here: SCRAM verifiers (wire/sasl/verifier.py), files and tables that hold the hashes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any

from smtpd_core.accounts.extras import installed
from smtpd_core.wire.sasl.prep import opaque_string
from smtpd_core.wire.sasl.verifier import HASHES, ScramVerifier, proves

argon2 = installed("argon2")
bcrypt = installed("bcrypt")
passlib_context = installed("passlib.context")

# argon2id: above the least that RFC 9106 and OWASP advise (19 MiB, 2 passes), and small enough for 16 at a time.
ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES = 32 * 1024, 3, 1
# scrypt: 2**15 * 8 * 128 bytes = 32 MiB, three times over.
SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P = 15, 8, 3
# Never let a stored hash ask for more memory than this, whoever wrote it.
MAX_SCRYPT_MEMORY = 512 * 1024 * 1024
# A password longer than this is refused unhashed: the time must not grow with what a stranger sends.
MAX_PASSWORD = 1024

_BRACES = re.compile(r"\{([A-Za-z0-9-]+)(?:\.(B64|BASE64|HEX))?\}", re.I)
_SCRYPT = re.compile(r"\$scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)\Z")


class HashUnusable(Exception):
    """A stored hash can't be checked here: unknown scheme, malformed, or its library is not installed."""


def hash_password(password: str) -> str:
    """The stored form of a new password. Raises ValueError for one that can't be used (empty, control characters)."""
    secret = _prepared(password)
    if argon2 is not None:
        made: str = _argon2().hash(secret)
        return made
    salt = secrets.token_bytes(16)
    digest = _scrypt(secret, salt, SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, 32)
    return f"$scrypt$ln={SCRYPT_LOG_N},r={SCRYPT_R},p={SCRYPT_P}${_b64(salt)}${_b64(digest)}"


def plain(password: str) -> str:
    """The stored form that keeps the password itself; CRAM-MD5 needs it. Raises ValueError as hash_password does."""
    return "{PLAIN.B64}" + base64.b64encode(_prepared(password)).decode()


def matches(stored: str, password: str) -> bool:
    """Whether `password` is the one that is stored. Raises HashUnusable."""
    scheme, rest = _split(stored)
    try:
        secret = _prepared(password)
    except ValueError:
        return False
    check = _CHECKS.get(scheme)
    if check is None:
        raise HashUnusable(f"password scheme {scheme[:32]!r} is not known")
    return check(rest, secret)


def scheme_of(stored: str) -> str:
    """The scheme's name in capitals: ARGON2ID, SCRYPT, BCRYPT, CRYPT, SSHA, PLAIN, SCRAM-SHA-256... "" if unknown."""
    scheme = _split(stored)[0]
    return scheme if scheme in _CHECKS else ""


def why_unusable(stored: str) -> str:
    """Why this stored password can't be checked here, or ""; for reports at start and `user check`."""
    try:
        matches(stored, "probe")
    except HashUnusable as reason:
        return str(reason)
    return ""


def is_outdated(stored: str) -> bool:
    """Whether the hash should be renewed at the next login: another scheme than new ones get, or less cost.

    Secrets that are kept in another form on purpose (PLAIN, SCRAM, NT) are never outdated.
    """
    scheme, rest = _split(stored)
    if scheme in _KEPT_ON_PURPOSE:
        return False
    if argon2 is not None:
        return scheme != "ARGON2ID" or bool(_argon2().check_needs_rehash(rest))
    cost = _SCRYPT.match(rest) if scheme == "SCRYPT" else None
    return scheme != "ARGON2ID" and (
        cost is None or int(cost[1]) < SCRYPT_LOG_N or int(cost[2]) * int(cost[3]) < SCRYPT_R * SCRYPT_P
    )


def fake_hash() -> str:
    """A hash that no password matches and whose check costs what a real one does: for users that do not exist."""
    salt, digest = _b64(secrets.token_bytes(16)), _b64(secrets.token_bytes(32))
    if argon2 is not None:
        return f"$argon2id$v=19$m={ARGON2_MEMORY_KIB},t={ARGON2_PASSES},p={ARGON2_LANES}${salt}${digest}"
    return f"$scrypt$ln={SCRYPT_LOG_N},r={SCRYPT_R},p={SCRYPT_P}${salt}${digest}"


def cleartext_of(stored: str) -> str | None:
    """The password itself where it is stored in recoverable form, else None."""
    scheme, rest = _split(stored)
    return rest if scheme in ("PLAIN", "CLEARTEXT") else None


def nt_hash_of(stored: str) -> bytes | None:
    """The NT hash where the entry is one ({NT} or {NTLM}, 32 hex digits), else None."""
    scheme, rest = _split(stored)
    if scheme not in ("NT", "NTLM"):
        return None
    try:
        digest = bytes.fromhex(rest)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


def verifier_of(stored: str, kind: str) -> ScramVerifier | None:
    """The SCRAM verifier where the entry is one of this kind, else None. Raises HashUnusable for a broken one."""
    scheme, rest = _split(stored)
    if scheme != kind.upper():
        return None
    return _verifier(rest, kind)


def _prepared(password: str) -> bytes:
    if len(password) > MAX_PASSWORD:
        raise ValueError(f"a password of more than {MAX_PASSWORD} characters is not taken")
    try:
        return opaque_string(password).encode()
    except ValueError as error:
        raise ValueError(f"the password can't be used: {error}") from None


# From a stored form to its scheme and the rest -----------------------------------------------------------------------

# $...$ forms, by how they begin.
_DOLLARS = (
    ("$argon2", "ARGON2ID"),
    ("$scrypt$", "SCRYPT"),
    ("$2a$", "BCRYPT"),
    ("$2b$", "BCRYPT"),
    ("$2y$", "BCRYPT"),
    ("$", "CRYPT"),
)


def _split(stored: str) -> tuple[str, str]:
    """(scheme, rest). Without any mark it is a traditional crypt hash; a clear password must say {PLAIN}."""
    braces = _BRACES.match(stored)
    if braces is None:
        return next((scheme for begin, scheme in _DOLLARS if stored.startswith(begin)), "CRYPT"), stored
    scheme, encoding, rest = braces[1].upper(), (braces[2] or "").upper(), stored[braces.end() :]
    scheme = _ALIASES.get(scheme, scheme)
    if scheme == "CRYPT" and rest.startswith(("$argon2", "$scrypt$", "$2")):
        return _split(rest)
    if encoding and scheme in ("PLAIN", "CLEARTEXT"):
        return scheme, _decoded(rest, encoding).decode(errors="replace")
    if encoding and scheme in _DIGESTS:
        return scheme, base64.b64encode(_decoded(rest, encoding)).decode()
    return scheme, rest


def _decoded(text: str, encoding: str) -> bytes:
    try:
        return binascii.unhexlify(text) if encoding == "HEX" else base64.b64decode(text, validate=True)
    except ValueError:
        raise HashUnusable(f"a stored password is not the {encoding.lower()} that it says") from None


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
_KEPT_ON_PURPOSE = frozenset({"PLAIN", "CLEARTEXT", "NT", "NTLM", *(kind.upper() for kind in HASHES)})


# Checks, one per scheme ----------------------------------------------------------------------------------------------


def _matches_argon2(stored: str, secret: bytes) -> bool:
    if argon2 is None:
        raise HashUnusable("argon2 hashes need argon2-cffi: pip install 'smtpd_core[passwords]'")
    try:
        return bool(_argon2().verify(stored, secret))
    except argon2.exceptions.VerifyMismatchError:
        return False
    except argon2.exceptions.Argon2Error:
        raise HashUnusable("an argon2 hash is malformed") from None


def _matches_scrypt(stored: str, secret: bytes) -> bool:
    parts = _SCRYPT.match(stored)
    if parts is None:
        raise HashUnusable("a scrypt hash reads $scrypt$ln=LOGN,r=R,p=P$SALT$DIGEST")
    wanted = _unb64(parts[5])
    made = _scrypt(secret, _unb64(parts[4]), int(parts[1]), int(parts[2]), int(parts[3]), len(wanted))
    return hmac.compare_digest(made, wanted)


def _matches_bcrypt(stored: str, secret: bytes) -> bool:
    if bcrypt is None:
        raise HashUnusable("bcrypt hashes need bcrypt: pip install 'smtpd_core[passwords]'")
    try:
        # bcrypt looks at 72 bytes; those who made the hash cut there too.
        return bool(bcrypt.checkpw(secret[:72], stored.encode()))
    except ValueError:
        raise HashUnusable("a bcrypt hash is malformed") from None


# What crypt(3) and Apache's htpasswd write, by libpass.
_CRYPT_SCHEMES = ["sha512_crypt", "sha256_crypt", "apr_md5_crypt", "md5_crypt", "sha1_crypt", "des_crypt"]


def _matches_crypt(stored: str, secret: bytes) -> bool:
    if passlib_context is None:
        raise HashUnusable("hashes of the crypt family need libpass: pip install 'smtpd_core[crypt]'")
    known = passlib_context.CryptContext(schemes=_CRYPT_SCHEMES)
    try:
        return bool(known.verify(secret, stored))
    except (ValueError, TypeError):
        raise HashUnusable(
            "a stored password has no scheme that is known; a password in clear is written {PLAIN}..."
        ) from None


def _matches_plain(stored: str, secret: bytes) -> bool:
    """Digests are compared, so that the time does not tell the length either."""
    try:
        wanted = opaque_string(stored).encode()
    except ValueError:
        wanted = stored.encode(errors="surrogatepass")
    key = secrets.token_bytes(32)
    return hmac.compare_digest(hmac.digest(key, wanted, "sha256"), hmac.digest(key, secret, "sha256"))


def _matches_nt(stored: str, secret: bytes) -> bool:
    raise HashUnusable("an NT hash serves NTLM only; PLAIN and LOGIN need a password hash beside it")


def _matches_digest(name: str) -> Callable[[str, bytes], bool]:
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


def _matches_hex_md5(stored: str, secret: bytes) -> bool:
    made = hashlib.md5(secret, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(made.encode(), stored.lower().encode())


def _matches_scram(kind: str) -> Callable[[str, bytes], bool]:
    return lambda stored, secret: proves(_verifier(stored, kind), kind, secret.decode())


def _verifier(text: str, kind: str) -> ScramVerifier:
    try:
        return ScramVerifier.parse(text)
    except ValueError as error:
        raise HashUnusable(str(error)) from None


_DIGESTS = {
    "SHA": _matches_digest("sha1"),
    "SSHA": _matches_digest("sha1"),
    "SHA256": _matches_digest("sha256"),
    "SSHA256": _matches_digest("sha256"),
    "SHA512": _matches_digest("sha512"),
    "SSHA512": _matches_digest("sha512"),
    "SMD5": _matches_digest("md5"),
}
_CHECKS: dict[str, Callable[[str, bytes], bool]] = {
    "ARGON2ID": _matches_argon2,
    "SCRYPT": _matches_scrypt,
    "BCRYPT": _matches_bcrypt,
    "CRYPT": _matches_crypt,
    "PLAIN": _matches_plain,
    "CLEARTEXT": _matches_plain,
    "PLAIN-MD5": _matches_hex_md5,
    "NT": _matches_nt,
    "NTLM": _matches_nt,
    **_DIGESTS,
    **{kind.upper(): _matches_scram(kind) for kind in HASHES},
}


def _argon2() -> Any:
    assert argon2 is not None
    return argon2.PasswordHasher(
        time_cost=ARGON2_PASSES, memory_cost=ARGON2_MEMORY_KIB, parallelism=ARGON2_LANES, hash_len=32
    )


def _scrypt(secret: bytes, salt: bytes, log_n: int, r: int, p: int, length: int) -> bytes:
    memory = (1 << min(log_n, 40)) * r * 128 + p * r * 128
    if memory > MAX_SCRYPT_MEMORY or min(log_n, r, p) < 1 or p > 64 or length < 16:
        raise HashUnusable("a scrypt hash asks for more memory than is given, or has impossible parameters")
    return hashlib.scrypt(secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=memory + (1 << 20), dklen=length)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise HashUnusable("a scrypt hash is not base64") from None
