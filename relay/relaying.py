"""How mail for other domains is sent on, as settings: one Relaying for all, and a Way where a destination differs.

From these come the Manners towards a hop and the Terms of a destination, each made once.
Thread: any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from certs.contexts import ClientContext
from certs.policy import ClientPolicy
from relay.hop import Manners, OpenCredentials, OpenTls, StepTimes, TlsLevel, TlsPolicy
from relay.link import is_loopback
from relay.mx import split_host
from relay.retry import RetryPolicy
from relay.terms import Terms
from smtpd_core.threads import Lock
from smtpd_core.wire.sasl.client import Credentials


@dataclass(frozen=True, slots=True)
class Way:
    """One destination's own settings; None and 0 mean what Relaying says."""

    tls: TlsPolicy | None = None
    credentials: Credentials | OpenCredentials | None = None
    clear_login_allowed: bool = False
    port: int = 0
    concurrency: int = 0
    messages_per_minute: float = 0.0
    retry: RetryPolicy | None = None


@dataclass(frozen=True, slots=True)
class Relaying:
    """`ways` is keyed by destination ("mx:example.test", "smtp:mail.example.test:587"; "mx:.example.test" is for all
    below that domain). `times` are the limits of each step. `connections` is the number of couriers at work, and so of
    connections in use, in all, besides those that wait for slow destinations."""

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
    """Relaying as the agents ask for it. Raises CertificateError or OSError where the TLS of a way can't be had, and
    ValueError where DNS alone would say who gets its credentials."""

    def __init__(self, relaying: Relaying) -> None:
        self.relaying = relaying
        self._lock = Lock()
        self._made: dict[tuple[str, str], Manners] = {}
        self._terms = {name: self._terms_from(way) for name, way in relaying.ways.items()}
        self._common_terms = self._terms_from(_NO_WAY)
        for name, way in relaying.ways.items():
            if way.credentials is not None and name.startswith("mx:") and not (way.tls and way.tls.verify_name):
                raise ValueError(f"{name}: credentials need a smart host, or a tls with a verify_name")
        # Made now, so that a missing authority file or name check is refused at the start and not in a delivery.
        for destination in ("mx:", *relaying.ways):
            self.manners_of(destination)

    def terms_of(self, destination: str) -> Terms:
        return self._terms.get(self._name(destination), self._common_terms)

    def port_of(self, destination: str) -> int:
        return self._way(destination).port or self.relaying.port

    def manners_of(self, destination: str) -> Manners:
        """The same object for all destinations that are treated alike, so that they share connections."""
        scheme = "lmtp" if destination.startswith("lmtp:") else "smtp"
        key = (scheme, self._name(destination))
        with self._lock:
            manners = self._made.get(key)
            if manners is None:
                manners = self._made[key] = self.manners(self._way(destination), destination)
        return manners

    def _way(self, destination: str) -> Way:
        return self.relaying.ways.get(self._name(destination), _NO_WAY)

    def _name(self, destination: str) -> str:
        """The key of the destination's way, "" where it has none."""
        ways = self.relaying.ways
        if destination in ways:
            return destination
        above = destination[3:] if ways and destination.startswith("mx:") else ""
        while "." in above:
            above = above.partition(".")[2]
            if f"mx:.{above}" in ways:
                return f"mx:.{above}"
        return ""

    def manners(self, way: Way, destination: str) -> Manners:
        """Manners for a way, made anew."""
        relaying = self.relaying
        is_lmtp = destination.startswith("lmtp:")
        # An LMTP hop is usually the mailbox store on this machine; TLS only where it is asked for.
        policy = way.tls or (TlsPolicy(TlsLevel.NONE) if is_lmtp else relaying.tls)
        is_trusted = way.clear_login_allowed and leads_here(destination)
        if way.credentials is not None and way.tls is None and not is_trusted:
            # Credentials ask for the real server, and for nobody in between.
            policy = replace(policy, level=TlsLevel.VERIFY)
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


def leads_here(destination: str) -> bool:
    """Whether all hosts of a destination are this machine, by their address or the name localhost."""
    scheme, _, where = destination.partition(":")
    if scheme == "mx":
        return False
    if where.startswith(("/", "unix:")):
        return True
    hosts = [split_host(one, 25)[0] for one in where.split(",")]
    return all(host == "localhost" or is_loopback(host) for host in hosts)


def _opener(context: ClientContext | None, verify_name: str) -> OpenTls | None:
    if context is None:
        return None
    if verify_name:
        return lambda host: context.stream(verify_name)
    return context.stream
