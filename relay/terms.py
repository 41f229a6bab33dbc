"""How a destination is treated."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Terms:
    """Conversations at once, seconds between two starts (0 for none), retries."""

    concurrency: int = 20
    interval: float = 0.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
