"""When an envelope's own wishes let a message be tried: FUTURERELEASE (RFC 4865), DELIVERBY (RFC 2852), MT-PRIORITY.

Pure; all times are Unix time.
"""

from __future__ import annotations

from datetime import UTC, datetime

from smtpd_core.wire.envelope import Envelope

NEVER = float("inf")


def first_attempt(envelope: Envelope, now: float) -> float:
    """Not before this: HOLDFOR counts from arrival, HOLDUNTIL names the moment (RFC 4865 5)."""
    parameters = envelope.parameters
    if parameters.hold_for is not None:
        return max(now, envelope.arrived + parameters.hold_for)
    if parameters.hold_until:
        return max(now, moment(parameters.hold_until))
    return now


def deadline(envelope: Envelope) -> float:
    """When the BY time is over (RFC 2852 4); NEVER without one."""
    by = envelope.parameters.by
    return NEVER if by is None else envelope.arrived + by.seconds


def put_off(until: float, deadline: float, now: float) -> float:
    """The next attempt, not later than a deadline that is still ahead."""
    return min(until, deadline) if deadline > now else until


def rank(envelope: Envelope) -> int:
    """Lower goes first: the negative of MT-PRIORITY (RFC 6710 4)."""
    return -(envelope.parameters.priority or 0)


def moment(text: str) -> float:
    """The Unix time of an RFC 3339 date-time; 0 where it is none (the protocol core refused those already)."""
    try:
        at = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
