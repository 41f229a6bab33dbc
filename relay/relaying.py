"""How mail for other domains is sent on, as settings: one Relaying for all, and a Way where a destination differs.

From these come the Manners towards a hop and the Terms of a destination, each made once.
Thread: any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from certs.contexts import ClientContext
from certs.policy import ClientPolicy
from relay.hop import Manners, OpenTls, StepTimes, TlsLevel, TlsPolicy
from relay.retry import RetryPolicy
from relay.terms import Terms
from smtpd_core.threads import Lock
from smtpd_core.wire.sasl.client import Credentials


@dataclass(frozen=True, slots=True)
class Way:
    """One destination's own settings; None and 0 mean what Relaying says."""

    tls: TlsPolicy | None = None
    credentials: Credentials | None = None
    clear_login_allowed: bool = False
    port: int = 0
    concurrency: int = 0
    messages_per_minute: float = 0.0
    retry: RetryPolicy | None = None


@dataclass(frozen=True, slots=True)
class Relaying:
    """`ways` is keyed by destination ("mx:example.test", "smtp:mail.example.test:587"). `times` are the limits of
    each step. `connections` is the number of couriers, and so of connections in use, in all."""

    hello: str = "localhost"
    dns_server: str = ""
    port: int = 25
    tls: TlsPolicy = field(default_factory=TlsPolicy)
    times: StepTimes = field(default_factory=StepTimes)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    concurrency: int = 20
    connections: int = 64
    ipv6_first: bool = True
    chunking: bool = True
    source_address: str = ""
    ways: Mapping[str, Way] = field(default_factory=dict)


_NO_WAY = Way()


class Customs:
    """Relaying as the agents ask for it. Raises CertificateError or OSError where the TLS of a way can't be had."""

    def __init__(self, relaying: Relaying) -> None:
        self.relaying = relaying
        self._lock = Lock()
        self._made: dict[tuple[str, str], Manners] = {}
        self._terms = {name: self._terms_from(way) for name, way in relaying.ways.items()}
        self._common_terms = self._terms_from(_NO_WAY)
        # Made now, so that a missing authority file or name check is refused at the start and not in a delivery.
        for destination in ("mx:", *relaying.ways):
            self.manners_of(destination)

    def terms_of(self, destination: str) -> Terms:
        return self._terms.get(destination, self._common_terms)

    def port_of(self, destination: str) -> int:
        return self.relaying.ways.get(destination, _NO_WAY).port or self.relaying.port

    def manners_of(self, destination: str) -> Manners:
        """The same object for all destinations that are treated alike, so that they share connections."""
        way = self.relaying.ways.get(destination, _NO_WAY)
        scheme = "lmtp" if destination.startswith("lmtp:") else "smtp"
        key = (scheme, destination if way is not _NO_WAY else "")
        with self._lock:
            manners = self._made.get(key)
            if manners is None:
                manners = self._made[key] = self.manners(way, scheme == "lmtp")
        return manners

    def manners(self, way: Way, is_lmtp: bool = False) -> Manners:
        """Manners for a way, made anew."""
        relaying = self.relaying
        # An LMTP hop is usually the mailbox store on this machine; TLS only where it is asked for.
        policy = way.tls or (TlsPolicy(TlsLevel.NONE) if is_lmtp else relaying.tls)
        if way.credentials is not None and way.tls is None and not way.clear_login_allowed:
            # Credentials ask for the real server, and for nobody in between.
            policy = TlsPolicy(TlsLevel.VERIFY, policy.ca_file, policy.pair, policy.implicit)
        context = None
        if policy.level is not TlsLevel.NONE:
            wanted = ClientPolicy(verify=policy.level is TlsLevel.VERIFY, ca_file=policy.ca_file)
            context = ClientContext(wanted, policy.pair)
        return Manners(
            hello=relaying.hello,
            lmtp=is_lmtp,
            tls=policy.level,
            implicit_tls=policy.implicit,
            open_tls=_opener(context, policy.verify_name),
            credentials=way.credentials,
            clear_login_allowed=way.clear_login_allowed,
            chunking=relaying.chunking,
            source_address=relaying.source_address,
            times=relaying.times,
        )

    def _terms_from(self, way: Way) -> Terms:
        return Terms(
            concurrency=way.concurrency or self.relaying.concurrency,
            interval=60.0 / way.messages_per_minute if way.messages_per_minute else 0.0,
            retry=way.retry or self.relaying.retry,
        )


def _opener(context: ClientContext | None, verify_name: str) -> OpenTls | None:
    if context is None:
        return None
    if verify_name:
        return lambda host: context.stream(verify_name)
    return context.stream
