"""PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), the server's side: the client shows its password."""

from __future__ import annotations

from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome

# Octets of a name or password. More is no name but an attempt.
MAX_NAME = 1_024


def is_name(text: str) -> bool:
    """No control characters, and not endless. Empty is no name."""
    return 0 < len(text) <= MAX_NAME and not any(c < " " or "\x7f" <= c < "\xa0" for c in text)


def decoded(octets: bytes) -> str | None:
    """UTF-8 text, or None."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


class Plain:
    """authzid NUL authcid NUL password, in one message."""

    def __init__(self) -> None:
        self._user = ""
        self._acts_as = ""

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge() if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        text = decoded(response)
        parts = text.split("\0") if text is not None else []
        if len(parts) != 3:
            return MALFORMED
        self._acts_as, self._user, password = parts
        if not is_name(self._user) or not password or len(password) > MAX_NAME:
            return MALFORMED
        if self._acts_as and not is_name(self._acts_as):
            return MALFORMED
        return Ask(self._user, "password", password)

    def supply(self, answer: object) -> Outcome:
        if not isinstance(answer, str) or not answer:
            return Failure(self._user)
        return Done(answer, self._acts_as)


class Login:
    """Two questions; the initial response answers the first."""

    def __init__(self) -> None:
        self._user = ""

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge(b"Username:") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        text = decoded(response)
        if text is None:
            return MALFORMED
        if not self._user:
            if not is_name(text):
                return MALFORMED
            self._user = text
            return Challenge(b"Password:")
        if not text or len(text) > MAX_NAME or "\0" in text:
            return MALFORMED
        return Ask(self._user, "password", text)

    def supply(self, answer: object) -> Outcome:
        if not isinstance(answer, str) or not answer:
            return Failure(self._user)
        return Done(answer)
