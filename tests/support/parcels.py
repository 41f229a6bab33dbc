"""Parcels and agents for tests of the relay."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

from relay.agents.smtp import SmtpAgent
from relay.hop import Hop, Manners, StepTimes, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Envelope, Outcome, Parcel, Recipient, Stop
from relay.plan import Plan
from smtpd_core.wire.envelope import MailParameters

CONTENT = b"Subject: hello\r\n\r\n.dot\r\nlast\r\n"
QUICK = replace(StepTimes.all(2.0, 2.0), content=2.0)


def parcel(
    *addresses: str | Recipient,
    destination: str = "smtp:peer.test:25",
    sender: str = "ann@here.test",
    content: bytes = CONTENT,
    trace: bytes = b"Received: from x by y;\r\n",
    parameters: MailParameters | None = None,
    attempt: int = 1,
    arrived: float = 1_800_000_000.0,
    id: str = "ABC123",
) -> Parcel:
    recipients = tuple(one if isinstance(one, Recipient) else Recipient(one) for one in addresses)
    envelope = Envelope(sender, recipients, parameters or MailParameters(), arrived=arrived)
    stops = tuple(Stop(number, one, destination, attempt - 1) for number, one in enumerate(recipients))
    return Parcel(id, envelope, trace, len(content), destination, stops, 1, attempt)


def body(content: bytes = CONTENT) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(content)


def agent_for(*ports: int, idle: IdleConnections | None = None, manners: Manners | None = None) -> SmtpAgent:
    """An SMTP agent whose plan is these ports of this machine, in this order."""
    manners = manners or Manners(hello="relay.test", tls=TlsLevel.NONE, times=QUICK)
    plan = Plan(tuple(Hop(f"mx{n}.test", "127.0.0.1", port) for n, port in enumerate(ports)))
    return SmtpAgent(lambda destination: plan, lambda destination: manners, idle or IdleConnections())


def told(outcomes: list[Outcome]) -> list[tuple[str, int, str]]:
    return [(one.result.value, one.code, one.enhanced) for one in outcomes]
