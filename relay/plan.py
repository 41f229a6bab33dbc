"""The way to a destination: hops in the order to be tried, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from relay.hop import Hop
from relay.mail import Outcome, Result


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` tells, in words, how the plan came about."""

    hops: tuple[Hop, ...]
    steps: tuple[str, ...] = ()


class NoRoute(Exception):
    """There is no way. Permanent where DNS says so for sure; a server that fails or is silent is temporary."""

    def __init__(
        self, text: str, *, code: int = 0, enhanced: str, permanent: bool, steps: tuple[str, ...] = ()
    ) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.permanent = permanent
        self.steps = steps

    def outcome(self, number: int, now: float) -> Outcome:
        result = Result.FAILED if self.permanent else Result.DEFERRED
        return Outcome(number, result, self.code, self.enhanced, str(self), at=now, scope="destination")
