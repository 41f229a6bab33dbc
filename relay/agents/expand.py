"""Destinations "expand:N": an alias of N mailboxes whose sender wants to hear of success.

There is nothing to carry: the mailboxes are recipients of their own, and the sender is told that the alias was expanded
(RFC 3461 5.2.7, RFC 3464 2.3.3).
"""

from __future__ import annotations

from relay.agents.agent import OpenBody, outcome
from relay.mail import Outcome, Parcel, Result


class ExpandAgent:
    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        count = parcel.destination.partition(":")[2]
        text = f"sent on to {count} mailboxes"
        return [outcome(s, Result.DELIVERED, now, code=250, enhanced="2.1.5", text=text) for s in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""
