"""When to try again, when to warn and when to give up: pure, with the time as an argument (RFC 5321 4.5.4.1)."""

from __future__ import annotations

from dataclasses import dataclass

INFINITY = float("inf")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
# Greylisting hosts let a sender in after some minutes, five mostly, and forget who does not come back within hours
# (RFC 6647 5): so many attempts are made soon, whatever the schedule says.
SOON, SOON_TRIES = 5 * MINUTE, 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits in seconds after the first, second ... attempt; the last repeats. `expire` and `delay_warning` count from
    the message's arrival; a `delay_warning` of 0 means never. Each wait is stretched at random by up to `jitter` of
    itself, so that what failed together does not come back together.

    A host that greylists is asked again soon, however long the first waits are.
    """

    schedule: tuple[float, ...] = (
        5 * MINUTE,
        10 * MINUTE,
        20 * MINUTE,
        40 * MINUTE,
        HOUR,
        2 * HOUR,
        3 * HOUR,
        4 * HOUR,
    )
    expire: float = 5 * DAY
    delay_warning: float = 4 * HOUR
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if not self.schedule or not all(0 < wait < INFINITY for wait in self.schedule):
            raise ValueError("a retry schedule needs at least one wait, and every wait more than 0 seconds")
        if not 0 < self.expire < INFINITY:
            raise ValueError("expire must be more than 0 seconds")
        if not 0 <= self.delay_warning < INFINITY:
            raise ValueError("delay_warning must be some seconds, or 0 for never")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter is a part of the wait, from 0 to 1")

    def wait(self, attempts: int, is_greylisted: bool = False) -> float:
        """Seconds to wait after so many attempts, without jitter."""
        wait = self.schedule[min(max(attempts, 1), len(self.schedule)) - 1]
        return min(wait, SOON) if is_greylisted and attempts <= SOON_TRIES else wait


def next_attempt(
    policy: RetryPolicy, attempts: int, arrived: float, now: float, chance: float, is_greylisted: bool = False
) -> float | None:
    """When to try again after the attempt number `attempts` failed at `now`; None where it was the last.

    `chance` is from 0 to 1, drawn by the caller. An attempt is made at the moment of expiry: giving up follows a try.
    """
    end = arrived + policy.expire
    if now >= end:
        return None
    return min(now + policy.wait(attempts, is_greylisted) * (1 + policy.jitter * chance), end)


def is_time_to_warn(policy: RetryPolicy, before: float, arrived: float, at: float) -> bool:
    """Whether the attempt made at `at` is the first that the sender is to be warned after; `before` is when the one
    before it was made, 0 for none. So nothing has to be remembered but the attempts themselves."""
    warn_at = arrived + policy.delay_warning
    return bool(policy.delay_warning) and before < warn_at <= at


def schedule(policy: RetryPolicy, most: int = 10_000) -> list[float]:
    """The moments of all attempts, in seconds from arrival, without jitter; at `most` so many."""
    moments = [0.0]
    attempts = 1
    while True:
        if attempts >= most:
            return moments
        following = next_attempt(policy, attempts, 0.0, moments[-1], 0.0)
        if following is None:
            return moments
        moments.append(following)
        attempts += 1
