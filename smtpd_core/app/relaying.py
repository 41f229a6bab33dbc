"""From settings to the relay's own words: one Outbox over the state directory, with its Relaying and its Routing.

Thread: main, but for what the outbox asks of the routing, which is any.
Not here: policy for clients (routing.py), the server (build.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from relay.hop import StepTimes
from relay.mail import Envelope, Outcome, Parcel, Stop
from relay.outbox import Keeping, Outbox
from relay.relaying import Relaying
from relay.resends import from_submission
from relay.retry import RetryPolicy
from relay.spool import Durability, always_synced
from smtpd_core.app import ways
from smtpd_core.app.recovery import Recovering
from smtpd_core.app.routing import Routing
from smtpd_core.app.settings import Settings

_RESENDS: dict[str, Callable[[Envelope], bool]] = {
    "off": lambda envelope: False,
    "submission": from_submission,
    "all": lambda envelope: True,
}


class Delivery:
    """The outbox, and the routing that it asks, which a reload replaces."""

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        relaying: Relaying,
        on_outcome: Callable[[Parcel, Outcome], None] | None = None,
        *,
        spools_only: bool = False,
        recovering: Recovering = lambda done, total: None,
    ) -> None:
        self.routing = routing
        self.outbox = Outbox(
            Path(settings.state).absolute(),
            stops=self._stops,
            relaying=relaying,
            mailbox_of=self._mailbox,
            alone=settings.threads.processes == 1,
            spools_only=spools_only,
            # Where nothing leaves the machine nothing comes back, and a mail that is sent once more is a test.
            returns_circles=settings.limits.return_circles and not routing.catches_all,
            on_outcome=on_outcome,
            recovering=recovering,
            **keeping_of(settings),
        )

    def reload(self, settings: Settings, routing: Routing, relaying: Relaying) -> None:
        """What is decided from now on follows these."""
        self.outbox.reload(relaying, **keeping_of(settings))
        self.routing = routing

    def _stops(self, envelope: Envelope) -> list[Stop]:
        return self.routing.routes.stops(envelope)

    def _mailbox(self, address: str) -> tuple[str, str]:
        return self.routing.mailbox(address)


def keeping_of(settings: Settings) -> Keeping:
    """How the outbox keeps mail until the queue has it."""
    return {
        "spool_limit": settings.spool.limit,
        "free_floor": settings.spool.free_floor,
        "durability_of": durability_of(settings),
        "recognises_resend": _RESENDS[settings.spool.resends],
        "resend_window": settings.spool.resend_window if settings.spool.resends != "off" else 0.0,
    }


def durability_of(settings: Settings) -> Callable[[Envelope], Durability]:
    """What a 250 of the listener that took the message means. A listener is known by service and port, since one
    address may stand for all; port 0 stands for whatever port it became."""
    levels = {_known_as(f"{one.service} {one.bind}"): Durability(one.durability) for one in settings.listener}
    if set(levels.values()) <= {Durability.SYNCED}:
        return always_synced

    def level(envelope: Envelope) -> Durability:
        name = envelope.origin.listener
        service = name.partition(" ")[0]
        return levels.get(_known_as(name)) or levels.get((service, "0")) or Durability.SYNCED

    return level


def _known_as(name: str) -> tuple[str, str]:
    service, _, bind = name.partition(" ")
    return service, bind if bind.startswith("unix:") else bind.rpartition(":")[2]


def relaying_of(settings: Settings) -> Relaying:
    """The settings as the relay has them. Raises ValueError where a file of a login or certificate can't be read."""
    relay = settings.relay
    return Relaying(
        hello=settings.hostname or "localhost",
        dns_server=relay.dns_server,
        port=relay.port,
        times=StepTimes.all(relay.timeout, relay.connect_timeout),
        retry=RetryPolicy(schedule=relay.retry, expire=relay.expire, delay_warning=relay.delay_warning),
        tls=ways.common_tls(relay),
        concurrency=relay.concurrency,
        connections=relay.connections,
        ipv6_first=relay.ipv6_first,
        ways=ways.ways(relay),
    )
