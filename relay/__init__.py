"""Keep mail in a durable queue and deliver it."""
