"""Bearer tokens, the server's side: OAUTHBEARER (RFC 7628) and XOAUTH2 as Google and Microsoft deployed it.

The token is shown to the server, so both want TLS. A wrong token is first told by a challenge with a reason in JSON;
the client answers anything, and then the exchange fails.
"""

from __future__ import annotations

import re

from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome
from smtpd_core.wire.sasl.plain import decoded, is_name
from smtpd_core.wire.sasl.scram import unescaped

_XOAUTH2 = re.compile(r"user=([^\x01]*)\x01auth=(?i:bearer) +([!-~]+)\x01\x01\Z")
# gs2-header, then key=value pairs, each ended by %x01, and one %x01 at the end (RFC 7628 3.1).
_OAUTHBEARER = re.compile(r"[ny],(?:a=([^,\x01]*))?,\x01((?:[A-Za-z]+=[^\x01]*\x01)*)\x01\Z")
_TOKEN = re.compile(r"(?i:bearer) +([!-~]+)\Z")

# RFC 7628 3.2.2 and what XOAUTH2's clients know: the token was not accepted.
_REASONS = {
    "XOAUTH2": b'{"status":"401","schemes":"bearer"}',
    "OAUTHBEARER": b'{"status":"invalid_token"}',
}


class Bearer:
    """One message with the token. A client that names no user means the one that the token stands for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._user = ""
        self._has_failed = False

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge() if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        if self._has_failed:
            return Failure(self._user)
        found = self._parsed(decoded(response) or "")
        if found is None or (found[0] and not is_name(found[0])):
            return MALFORMED
        self._user, token = found
        return Ask(self._user, "token", token)

    def _parsed(self, text: str) -> tuple[str, str] | None:
        """(user, token), or None."""
        if self._name == "XOAUTH2":
            match = _XOAUTH2.match(text)
            return (match[1], match[2]) if match else None
        match = _OAUTHBEARER.match(text)
        if match is None:
            return None
        pairs = dict(pair.split("=", 1) for pair in match[2].split("\x01") if pair)
        token = _TOKEN.match(pairs.get("auth", ""))
        user = unescaped(match[1] or "")
        return (user, token[1]) if token and user is not None else None

    def supply(self, answer: object) -> Outcome:
        if isinstance(answer, str) and answer:
            return Done(answer)
        self._has_failed = True
        return Challenge(_REASONS[self._name])
