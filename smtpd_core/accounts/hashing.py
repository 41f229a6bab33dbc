"""Stored passwords: hashing new ones, checking old ones, and knowing which are due for renewal.

New ones are argon2id where argon2-cffi is installed (extra `passwords`), else scrypt. A scheme that needs a library
which is missing raises HashUnusable, which names the extra.
Thread: any; a check of an argon2id hash takes tens of milliseconds and 32 MiB, scrypt 32 MiB, without the interpreter
lock. No thread waits for its turn here: the server's share of log-ins lets AT_ONCE in at a time, the others are parked.
Not here: what a stored password tells by itself (stored.py), hashes of other programs (foreign_hashes.py), SCRAM
verifiers (wire/sasl/verifier.py), files and tables that hold the hashes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any

from smtpd_core.accounts.extras import installed
from smtpd_core.accounts.foreign_hashes import matches_bcrypt, matches_crypt, matches_digest, matches_hex_md5
from smtpd_core.accounts.stored import DIGESTS, HashUnusable, prepared, split, verifier_in
from smtpd_core.wire.sasl.prep import opaque_string
from smtpd_core.wire.sasl.verifier import HASHES, proves

argon2 = installed("argon2")

# argon2id: above the least that RFC 9106 and OWASP advise (19 MiB, 2 passes), and small enough for 16 at a time.
ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES = 32 * 1024, 3, 1
# scrypt: 2**15 * 8 * 128 bytes = 32 MiB, three times over.
SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P = 15, 8, 3
# Checks at the same time in one process, however many threads it has: half a GiB.
AT_ONCE = 16
# Never let a stored hash ask for more memory than this, whoever wrote it.
MAX_MEMORY = 512 * 1024 * 1024

_SCRYPT = re.compile(r"\$scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)\Z")
_KEPT_ON_PURPOSE = frozenset({"PLAIN", "CLEARTEXT", "NT", "NTLM", *(kind.upper() for kind in HASHES)})


def hash_password(password: str) -> str:
    """The stored form of a new password. Raises ValueError for one that can't be used (empty, control characters)."""
    secret = prepared(password)
    if argon2 is not None:
        made: str = _argon2().hash(secret)
        return made
    salt = secrets.token_bytes(16)
    digest = _scrypt(secret, salt, SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, 32)
    return f"$scrypt$ln={SCRYPT_LOG_N},r={SCRYPT_R},p={SCRYPT_P}${_b64(salt)}${_b64(digest)}"


def plain(password: str) -> str:
    """The stored form that keeps the password itself; CRAM-MD5 needs it. Raises ValueError as hash_password does."""
    return "{PLAIN.B64}" + base64.b64encode(prepared(password)).decode()


def matches(stored: str, password: str) -> bool:
    """Whether `password` is the one that is stored. Raises HashUnusable."""
    scheme, rest = split(stored)
    try:
        secret = prepared(password)
    except ValueError:
        return False
    check = _CHECKS.get(scheme)
    if check is None:
        raise HashUnusable(f"password scheme {scheme[:32]!r} is not known")
    return check(rest, secret)


def scheme_of(stored: str) -> str:
    """The scheme's name in capitals: ARGON2ID, SCRYPT, BCRYPT, CRYPT, SSHA, PLAIN, SCRAM-SHA-256... "" if unknown."""
    scheme = split(stored)[0]
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
    scheme, rest = split(stored)
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


# Checks, one per scheme ----------------------------------------------------------------------------------------------


def _matches_argon2(stored: str, secret: bytes) -> bool:
    if argon2 is None:
        raise HashUnusable("argon2 hashes need argon2-cffi: pip install 'smtpd_core[passwords]'")
    try:
        if argon2.extract_parameters(stored).memory_cost * 1024 > MAX_MEMORY:
            raise HashUnusable("an argon2 hash asks for more memory than is given")
        return bool(_argon2().verify(stored, secret))
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.Argon2Error, argon2.exceptions.InvalidHashError):
        raise HashUnusable("an argon2 hash is malformed") from None


def _matches_scrypt(stored: str, secret: bytes) -> bool:
    parts = _SCRYPT.match(stored)
    if parts is None:
        raise HashUnusable("a scrypt hash reads $scrypt$ln=LOGN,r=R,p=P$SALT$DIGEST")
    wanted = _unb64(parts[5])
    made = _scrypt(secret, _unb64(parts[4]), int(parts[1]), int(parts[2]), int(parts[3]), len(wanted))
    return hmac.compare_digest(made, wanted)


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


def _matches_scram(kind: str) -> Callable[[str, bytes], bool]:
    return lambda stored, secret: proves(verifier_in(stored), kind, secret.decode())


_CHECKS: dict[str, Callable[[str, bytes], bool]] = {
    "ARGON2ID": _matches_argon2,
    "SCRYPT": _matches_scrypt,
    "BCRYPT": matches_bcrypt,
    "CRYPT": matches_crypt,
    "PLAIN": _matches_plain,
    "CLEARTEXT": _matches_plain,
    "PLAIN-MD5": matches_hex_md5,
    "NT": _matches_nt,
    "NTLM": _matches_nt,
    **{scheme: matches_digest(name) for scheme, name in DIGESTS.items()},
    **{kind.upper(): _matches_scram(kind) for kind in HASHES},
}


def _argon2() -> Any:
    assert argon2 is not None
    return argon2.PasswordHasher(
        time_cost=ARGON2_PASSES, memory_cost=ARGON2_MEMORY_KIB, parallelism=ARGON2_LANES, hash_len=32
    )


def _scrypt(secret: bytes, salt: bytes, log_n: int, r: int, p: int, length: int) -> bytes:
    memory = (1 << min(log_n, 40)) * r * 128 + p * r * 128
    if memory > MAX_MEMORY or min(log_n, r, p) < 1 or p > 64 or length < 16:
        raise HashUnusable("a scrypt hash asks for more memory than is given, or has impossible parameters")
    return hashlib.scrypt(secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=memory + (1 << 20), dklen=length)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise HashUnusable("a scrypt hash is not base64") from None
