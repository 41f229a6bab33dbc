"""EXTERNAL (RFC 4422 appendix A) and ANONYMOUS (RFC 4505), the server's side: nothing secret passes.

EXTERNAL: TLS proved an identity by the client's certificate; the store says which account that is.
ANONYMOUS: there is an account named "anonymous", or nobody gets in; what the client says of itself is only a trace.
"""

from __future__ import annotations

from smtpd_core.wire.sasl.exchange import MALFORMED, Ask, Challenge, Done, Failure, Outcome, Surroundings
from smtpd_core.wire.sasl.plain import decoded, is_name

ANONYMOUS = "anonymous"
# RFC 4505 2: an e-mail address, or up to 255 characters without "@".
_MAX_TRACE = 255


class External:
    """The response is the authorisation identity, "" for that of the certificate."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._identity = surroundings.client_identity
        self._acts_as = ""

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge() if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        acts_as = decoded(response)
        if acts_as is None or (acts_as and not is_name(acts_as)):
            return MALFORMED
        self._acts_as = acts_as
        return Ask(self._identity, "certificate") if self._identity else Failure()

    def supply(self, answer: object) -> Outcome:
        if isinstance(answer, str) and answer:
            return Done(answer, self._acts_as)
        return Failure(self._identity)


class Anonymous:
    """The response is trace information, which identifies nobody."""

    def first(self, initial: bytes | None) -> Outcome:
        return Challenge() if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        trace = decoded(response)
        if trace is None or len(trace) > _MAX_TRACE or (trace and not is_name(trace)):
            return MALFORMED
        return Ask(ANONYMOUS, "certificate")

    def supply(self, answer: object) -> Outcome:
        return Done(answer) if isinstance(answer, str) and answer else Failure(ANONYMOUS)
