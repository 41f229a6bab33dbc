"""NTLM, called SPA by its users (MS-NLMP, MS-SMTPNTLM): the server's side, one more mechanism row for the core.

Extra `ntlm`: pyspnego reads and writes the messages and has the DES of NTLMv1; the decision is made here, in constant
time. NTLMv2 only, unless version 1 is asked for. It needs the NT hash of the password, which is as good as the
password, and its exchange can be attacked offline; so it is off unless named, and under TLS only.
Not here: signing and sealing, which mail has no use for; domains: the user name alone counts.
"""

from __future__ import annotations

import hmac
import secrets
import time
from hashlib import md5
from typing import Any

from smtpd_core.accounts.extras import needed
from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome, Surroundings
from smtpd_core.wire.sasl.mechanisms import Mechanism
from smtpd_core.wire.sasl.plain import is_name

NAME = "NTLM"

# NegotiateFlags (MS-NLMP 2.2.2.5) that a server has an opinion about.
UNICODE, OEM, REQUEST_TARGET, NTLM = 0x1, 0x2, 0x4, 0x200
ALWAYS_SIGN, TARGET_IS_SERVER, EXTENDED_SECURITY, TARGET_INFO = 0x8000, 0x20000, 0x80000, 0x800000

# AV_PAIR ids (2.2.2.1).
_COMPUTER, _DOMAIN, _DNS_COMPUTER, _FLAGS, _TIMESTAMP = 1, 2, 3, 6, 7
_MIC_IS_THERE = 0x2
# A server's clock as FILETIME: 100 ns since 1601.
_FILETIME_EPOCH = 116_444_736_000_000_000
# The fixed part of an NTLMv2 response behind its proof, and the least that can follow (2.2.2.7).
_TEMP_FIXED = 28


def mechanism(*, allow_version_1: bool = False) -> Mechanism:
    """The row for ProtocolSettings.added_mechanisms. Raises ExtraMissing."""
    messages = needed("spnego._ntlm_raw.messages", extra="ntlm", purpose="NTLM")
    crypto = needed("spnego._ntlm_raw.crypto", extra="ntlm", purpose="NTLM")

    def start(around: Surroundings) -> Ntlm:
        return Ntlm(around.hostname, messages, crypto if allow_version_1 else None)

    return Mechanism(NAME, "nt-hash", start, clear_text=True)


class Ntlm:
    """NEGOTIATE from the client, CHALLENGE from us, AUTHENTICATE from the client; then the NT hash decides.

    `version_1` is pyspnego's cryptography module, or None where version 1 is refused.
    """

    def __init__(self, hostname: str, messages: Any, version_1: Any = None, challenge: bytes = b"") -> None:
        self._hostname = hostname
        self._messages = messages
        self._version_1 = version_1
        self._nonce = challenge or secrets.token_bytes(8)
        self._negotiate = b""
        self._challenge = b""
        self._answer: Any = None
        self._user = ""
        self._writes = "utf-16-le"

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge() if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        try:
            return self._authenticate(response) if self._challenge else self._challenge_for(response)
        except Exception:
            # The library reads offsets and lengths that a stranger wrote; whatever it raises, the message is no good.
            return MALFORMED

    def _challenge_for(self, response: bytes) -> Outcome:
        asked = self._messages.Negotiate.unpack(response)
        if not asked.flags & NTLM or not asked.flags & (UNICODE | OEM):
            return MALFORMED
        # What the client writes is in one of the two; old clients have none but OEM, which is UTF-8 on those of today.
        self._writes = "utf-16-le" if asked.flags & UNICODE else "utf-8"
        flags = (
            (UNICODE if asked.flags & UNICODE else OEM)
            | NTLM
            | TARGET_INFO
            | TARGET_IS_SERVER
            | asked.flags & (REQUEST_TARGET | ALWAYS_SIGN | EXTENDED_SECURITY)
        )
        name = self._hostname.partition(".")[0].upper()[:15] or "SERVER"
        info = self._messages.TargetInfo()
        number = self._messages.AvId
        info[number(_DOMAIN)] = name
        info[number(_COMPUTER)] = name
        info[number(_DNS_COMPUTER)] = self._hostname
        info[number(_TIMESTAMP)] = (time.time_ns() // 100 + _FILETIME_EPOCH).to_bytes(8, "little")
        self._negotiate = response
        self._challenge = self._messages.Challenge(flags, self._nonce, name, info, encoding=self._writes).pack()
        return Challenge(self._challenge)

    def _authenticate(self, response: bytes) -> Outcome:
        answer = self._messages.Authenticate.unpack(response, encoding=self._writes)
        user = answer.user_name or ""
        if not is_name(user):
            return MALFORMED if user else Failure()  # an empty name is an anonymous client
        self._user, self._answer = user, answer
        return Ask(user, "nt-hash")

    def supply(self, answer: object) -> Outcome:
        known = isinstance(answer, bytes) and len(answer) == 16
        nt_hash = answer if isinstance(answer, bytes) and known else secrets.token_bytes(16)
        try:
            fits = self._fits(nt_hash)
        except Exception:
            return MALFORMED  # as in respond()
        return Done(self._user) if fits and known else Failure(self._user)

    def _fits(self, nt_hash: bytes) -> bool:
        response = self._answer.nt_challenge_response or b""
        if len(response) == 24:
            return self._fits_version_1(nt_hash, response)
        if len(response) < 16 + _TEMP_FIXED:
            return False
        proof, temp = response[:16], response[16:]
        key = response_key(nt_hash, self._user, self._answer.domain_name or "")
        fits = hmac.compare_digest(hmac.digest(key, self._nonce + temp, "md5"), proof)
        return fits & self._mic_fits(hmac.digest(key, proof, "md5"), temp)

    def _mic_fits(self, session_key: bytes, temp: bytes) -> bool:
        """The client says within what it proved that its message carries a code over all three (2.2.2.1)."""
        told = self._messages.TargetInfo.unpack(temp[_TEMP_FIXED:])
        if not int(told.get(self._messages.AvId(_FLAGS), 0)) & _MIC_IS_THERE:
            return True
        mic = bytes(self._answer.mic or b"")
        self._answer.mic = bytes(16)
        # Without KEY_EXCH, which is not offered, the session key is the exported one (3.1.5.1.2).
        whole = self._negotiate + self._challenge + bytes(self._answer.pack())
        return hmac.compare_digest(hmac.digest(session_key, whole, "md5"), mic)

    def _fits_version_1(self, nt_hash: bytes, response: bytes) -> bool:
        if self._version_1 is None:
            return False
        nonce = self._nonce
        if self._answer.flags & EXTENDED_SECURITY:
            client = (self._answer.lm_challenge_response or b"")[:8]
            nonce = md5(nonce + client, usedforsecurity=False).digest()[:8]
        return hmac.compare_digest(bytes(self._version_1.desl(nt_hash, nonce)), response)


def response_key(nt_hash: bytes, user: str, domain: str) -> bytes:
    """NTOWFv2 (3.3.2) from the NT hash: the user name counts in capitals, the domain as the client wrote it."""
    return hmac.digest(nt_hash, (user.upper() + domain).encode("utf-16-le"), "md5")
