"""The contract of a delivery agent: one parcel in, one outcome for each of its stops out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from relay.mail import Outcome, Parcel, Result, Stop

OpenBody = Callable[[], BinaryIO]
"""Opens the parcel's content (without trace) from its start; the caller closes it."""


class Agent(Protocol):
    """Thread: deliver() from any courier, several at a time; close() once, after the last of them."""

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        """Try all stops. What is raised counts as deferred for every stop; unknown is temporary.

        A deferred outcome's `next_attempt` is left to the dispatcher, unless the agent knows better.
        """

    def close(self) -> None:
        """Let go of what is held (connections). Idempotent."""


def pieces(parcel: Parcel, open_body: OpenBody, size: int, prefix: bytes = b"") -> Iterator[bytes]:
    """Prefix, trace and content in pieces of at most about `size` bytes; memory holds one of them."""
    head = prefix + parcel.trace
    with open_body() as body:
        piece = body.read(max(size - len(head), 1))
        yield head + piece
        while piece and (piece := body.read(size)):
            yield piece


def outcome(
    stop: Stop,
    result: Result,
    now: float,
    *,
    code: int = 0,
    enhanced: str = "",
    text: str = "",
    scope: str = "recipient",
) -> Outcome:
    """An outcome of a local agent."""
    return Outcome(stop.number, result, code, enhanced, text, at=now, scope=scope)
