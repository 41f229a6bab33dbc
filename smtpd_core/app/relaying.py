"""Keeping and delivering, put together: spool, intake, queue, dispatcher and agents of one state directory.

`Relaying` satisfies server/keeping.py, so it is what the server hands accepted mail to. What is routed where is asked
of one Routing, which a reload replaces; nothing else changes while it runs but the terms of destinations.
Thread: keep() and has_room() from any; start(), stop() and reload() from the main thread.
Not here: policy for clients (routing.py), the server (build.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from certs.contexts import ClientContext
from certs.policy import ClientPolicy
from relay.agents.agent import Agent
from relay.agents.maildir import MaildirAgent
from relay.agents.smtp import SmtpAgent
from relay.conversation import addresses_of
from relay.dispatcher import Dispatcher, Terms
from relay.hop import Hop, Manners, StepTimes, TlsLevel
from relay.idle import IdleConnections
from relay.intake import Intake
from relay.mail import Envelope, Outcome, Parcel, Stop
from relay.mx import Planner
from relay.plan import NoRoute, Plan
from relay.queue_sqlite import SqliteQueue
from relay.relaying import Relaying as Sending
from relay.retry import RetryPolicy
from relay.spool import Spool
from smtpd_core.app.routing import Routing
from smtpd_core.app.sanity import split
from smtpd_core.app.settings import Relay, Settings
from smtpd_core.draft import Draft
from smtpd_core.threads import Ticket
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.sasl.client import Credentials

OnOutcome = Callable[[Parcel, Outcome], None]


class Relaying:
    """See the module. Raises OSError and QueueIsHeld where the state directory can't be used."""

    def __init__(self, settings: Settings, routing: Routing, on_outcome: OnOutcome | None = None) -> None:
        self.state = Path(settings.state).absolute()
        self.routing = routing
        self.ways = Ways(settings)
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.queue = SqliteQueue(self.state / "queue.db")
        idle = IdleConnections()
        self.dispatcher = Dispatcher(
            self.queue,
            self._agents(settings, idle),
            self._stops_for,
            hostname=settings.hostname or "localhost",
            terms_of=lambda destination: self.ways.terms_of(destination),
            idle=idle,
            on_outcome=on_outcome,
        )
        self.spool = Spool(self.state / "spool")
        self.intake = Intake(
            self.spool.directory,
            self.queue,
            self._stops_for,
            spool=self.spool,
            aside=self.state / "aside",
            imported=self.dispatcher.announce,
        )
        self.spool.announce = self.intake.announce
        self.drafts: str | None = self.spool.drafts

    # -- its life

    def start(self) -> None:
        """Recover what is in the spool, then import and deliver."""
        self.intake.start()
        self.dispatcher.start()

    def stop(self, timeout: float) -> bool:
        """Keep what was handed in, import it, let deliveries under way end; the rest waits on disk. Idempotent."""
        ended = self.spool.stop(timeout)
        ended &= self.intake.stop(timeout)
        ended &= self.dispatcher.stop(timeout)
        self.queue.close()
        return ended

    def reload(self, settings: Settings, routing: Routing) -> None:
        """What is decided from now on follows these."""
        self.routing = routing
        self.ways = Ways(settings)

    # -- what the server asks (server/keeping.py)

    def has_room(self) -> Reply | None:
        return self.spool.has_room()

    def holds(self, address: str) -> bool:
        return True

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        return self.spool.promise(draft, envelope)

    # -- what the relay asks

    def _stops_for(self, envelope: Envelope) -> list[Stop]:
        return self.routing.routes.stops(envelope)

    def _agents(self, settings: Settings, idle: IdleConnections) -> Mapping[str, Agent]:
        smtp = SmtpAgent(
            lambda destination: self.ways.plan_of(destination),
            lambda destination: self.ways.manners_of(destination),
            idle,
        )
        return {
            "maildir": MaildirAgent(settings.hostname or "localhost"),
            "smtp": smtp,
            "lmtp": smtp,
            "mx": smtp,
        }


class Ways:
    """How destinations are reached, from the settings: plans, manners and terms.

    Manners are made once: a kept connection is known by the object that it was opened with.
    """

    def __init__(self, settings: Settings) -> None:
        relay = settings.relay
        hello = settings.hostname or "localhost"
        times = StepTimes.all(relay.timeout, relay.connect_timeout)
        anyone = ClientContext(ClientPolicy()).stream
        self._mx = Manners(hello=hello, open_tls=anyone, times=times)
        self._lmtp = Manners(hello=hello, lmtp=True, tls=TlsLevel.NONE, times=times)
        self._smarthost = _smarthost_manners(relay, hello, times)
        self._planner = Planner(Sending(hello=hello, dns_server=relay.dns_server, port=relay.port))
        self._terms = Terms(
            concurrency=relay.concurrency,
            retry=RetryPolicy(schedule=relay.retry, expire=relay.expire, delay_warning=relay.delay_warning),
        )

    def terms_of(self, destination: str) -> Terms:
        return self._terms

    def manners_of(self, destination: str) -> Manners:
        scheme = destination.partition(":")[0]
        return {"lmtp": self._lmtp, "smtp": self._smarthost}.get(scheme, self._mx)

    def plan_of(self, destination: str) -> Plan:
        """The hops in their order. Raises NoRoute."""
        scheme, _, where = destination.partition(":")
        if scheme == "mx":
            return self._planner.plan(destination)
        hops: list[Hop] = []
        steps: list[str] = []
        for text in split(where):
            if text.startswith(("/", "unix:")):
                hops.append(Hop("localhost", text.removeprefix("unix:"), 0))
                continue
            host, _, port = text.rpartition(":")
            host = host.strip("[]")
            try:
                hops += [Hop(host, address, int(port)) for address in addresses_of(host, int(port))]
            except OSError as error:
                steps.append(f"{host}: {error.strerror or error}")
        if not hops:
            raise NoRoute("; ".join(steps) or f"{destination}: no host", enhanced="4.4.4", permanent=False)
        return Plan(tuple(hops), tuple(steps))


def _smarthost_manners(relay: Relay, hello: str, times: StepTimes) -> Manners:
    level = {
        "none": TlsLevel.NONE,
        "opportunistic": TlsLevel.OPPORTUNISTIC,
        "require": TlsLevel.REQUIRE,
        "verify": TlsLevel.VERIFY,
        "implicit": TlsLevel.VERIFY,
    }[relay.smarthost_tls]
    credentials = None
    if relay.smarthost_user:
        password = Path(relay.smarthost_password_file).read_text(encoding="utf-8").splitlines()[:1]
        credentials = Credentials(relay.smarthost_user, "".join(password).strip())
    return Manners(
        hello=hello,
        tls=level,
        implicit_tls=relay.smarthost_tls == "implicit",
        open_tls=ClientContext(ClientPolicy(verify=level is TlsLevel.VERIFY)).stream,
        credentials=credentials,
        times=times,
    )
