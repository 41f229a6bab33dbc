"""CRAM-MD5 (RFC 2195), the server's side. The store must hold the password in clear."""

from __future__ import annotations

import hmac
import re
import secrets
import time

from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome
from smtpd_core.wire.sasl.plain import decoded, is_name

_DIGEST = re.compile(r"[0-9a-f]{32}\Z", re.IGNORECASE | re.ASCII)


class CramMd5:
    """The challenge is a message id that was never used before; the answer is the name and an HMAC of it."""

    def __init__(self, hostname: str) -> None:
        self._challenge = f"<{secrets.randbits(64)}.{time.time_ns()}@{hostname}>".encode()
        self._user = ""
        self._digest = ""

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge(self._challenge)

    def respond(self, response: bytes) -> Outcome:
        user, space, digest = (decoded(response) or "").rpartition(" ")
        if not space or not is_name(user) or not _DIGEST.match(digest):
            return MALFORMED
        self._user, self._digest = user, digest.lower()
        return Ask(user, "cleartext")

    def supply(self, answer: object) -> Outcome:
        secret = answer.encode() if isinstance(answer, str) else secrets.token_bytes(16)
        fits = hmac.compare_digest(hmac.new(secret, self._challenge, "md5").hexdigest(), self._digest)
        return Done(self._user) if fits and isinstance(answer, str) else Failure(self._user)
