"""The client's side of NTLM in both versions, made of pyspnego's messages, for servers under test."""

from __future__ import annotations

import secrets

from smtpd_core.accounts import nt_hash
from smtpd_core.accounts.ntlm import EXTENDED_SECURITY, NTLM, UNICODE, response_key


class Version1Client:
    """Without extended session security, as old devices are."""

    flags = UNICODE | NTLM

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self.nt_hash = nt_hash.of_password(password)

    def negotiate(self) -> bytes:
        from spnego._ntlm_raw.messages import Negotiate

        return bytes(Negotiate(self.flags).pack())

    def authenticate(self, challenge: bytes) -> bytes:
        from spnego._ntlm_raw.messages import Authenticate, Challenge

        response = self.response(Challenge.unpack(challenge))
        return bytes(
            Authenticate(
                flags=self.flags,
                lm_challenge_response=bytes(24),
                nt_challenge_response=response,
                domain_name="",
                username=self.user,
                workstation="W",
                encoding="utf-16-le",
            ).pack()
        )

    def response(self, challenge: object) -> bytes:
        from spnego._ntlm_raw.crypto import desl

        return bytes(desl(self.nt_hash, challenge.server_challenge))  # type: ignore[attr-defined]


class Version2Client(Version1Client):
    """MS-NLMP 3.3.2."""

    flags = Version1Client.flags | EXTENDED_SECURITY

    def response(self, challenge: object) -> bytes:
        import hmac

        info = challenge.target_info.pack()  # type: ignore[attr-defined]
        temp = b"\1\1" + bytes(14) + secrets.token_bytes(8) + bytes(4) + info + bytes(4)
        key = response_key(self.nt_hash, self.user, "")
        return hmac.digest(key, challenge.server_challenge + temp, "md5") + temp  # type: ignore[attr-defined]
