"""Keep mail in a durable queue and deliver it."""

from relay.hop import StepTimes, TlsLevel, TlsPolicy
from relay.maildir_store import MailboxStore
from relay.outbox import Outbox
from relay.relaying import Relaying, Way
from relay.retry import RetryPolicy
from relay.route import Domain, Routes
from relay.smtp_relay import RelayStatus, SmtpRelay

__all__ = [
    "Domain",
    "MailboxStore",
    "Outbox",
    "RelayStatus",
    "Relaying",
    "RetryPolicy",
    "Routes",
    "SmtpRelay",
    "StepTimes",
    "TlsLevel",
    "TlsPolicy",
    "Way",
]
