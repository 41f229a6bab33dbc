"""Destinations "refuse:5.1.1 TEXT": routing found nobody there, and so the sender is told."""

from __future__ import annotations

from relay.agents.agent import OpenBody, outcome
from relay.mail import Outcome, Parcel, Result


class RefuseAgent:
    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        enhanced, _, text = parcel.destination.partition(":")[2].partition(" ")
        return [outcome(s, Result.FAILED, now, code=550, enhanced=enhanced, text=text) for s in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""
