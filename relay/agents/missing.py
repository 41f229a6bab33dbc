"""A destination that nothing here serves: a mistake in the settings, which time and an operator can mend."""

from __future__ import annotations

from relay.agents.agent import OpenBody
from relay.mail import Outcome, Parcel, Result


class MissingAgent:
    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        text = f"no agent for {parcel.destination.partition(':')[0]!r} destinations"
        return [
            Outcome(stop.number, Result.DEFERRED, 451, "4.3.5", text, at=now, scope="destination")
            for stop in parcel.stops
        ]

    def close(self) -> None:
        """Holds nothing."""
