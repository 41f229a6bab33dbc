"""From a destination to hops: MX, addresses, null MX, fall-back, literals, smart hosts (RFC 5321 5, RFC 7505).

planned() is pure: answers in, a Plan or NoRoute out. Dns is the thin resolver under it; it tells apart "no such
domain", "no such record", "the server failed" and "no answer in time", for only the first two are for ever.
Thread: any; lookups block.
Not here: connecting (conversation.py), which destination an address has (route.py).
"""

from __future__ import annotations

import heapq
import ipaddress
import random
import time
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from relay.hop import Hop
from relay.link import addresses_of
from relay.plan import NoRoute, Plan
from relay.route import ascii_domain
from smtpd_core.threads import Lock

if TYPE_CHECKING:
    from relay.relaying import Relaying

# Hosts of one domain that are looked up; behind these nobody has waited for mail yet.
MAX_HOSTS = 8
# Seconds all servers have for one question.
LIFETIME = 15.0
# An answer is believed for its TTL within these bounds: no storm of questions for a TTL of 0, no week of a wrong one.
MIN_TTL, MAX_TTL, MAX_NEGATIVE_TTL = 5.0, 3600.0, 600.0
MAX_CACHED = 20_000
# Records of one answer that are kept, of MX the best ones: an answer may have thousands, and so may each host.
MAX_RECORDS = 100


class Known(Enum):
    """What DNS said."""

    FOUND = "found"
    NO_RECORD = "no such record"
    NO_DOMAIN = "no such domain"
    FAILED = "the name server failed"
    TIMED_OUT = "no answer in time"

    @property
    def is_certain(self) -> bool:
        return self not in (Known.FAILED, Known.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Lookup:
    """One answer: (preference, host) for MX, (0, address) for A and AAAA. `ttl` in seconds."""

    known: Known
    records: tuple[tuple[int, str], ...] = ()
    ttl: float = 0.0


Ask = Callable[[str, str], Lookup]
Shuffle = Callable[[MutableSequence[Any]], None]


def planned(
    domain: str,
    ask: Ask,
    *,
    port: int = 25,
    own_names: Sequence[str] = (),
    ipv6_first: bool = True,
    shuffle: Shuffle = random.shuffle,
) -> Plan:
    """The hops for a domain, best first. Raises NoRoute."""
    steps: list[str] = []
    if domain.startswith("["):
        return _literal(domain, port)
    hosts = _hosts(domain, ask, own_names, shuffle, steps)
    hops: list[Hop] = []
    uncertain = ""
    for host in hosts[:MAX_HOSTS]:
        addresses, doubt = _addresses(host, ask, ipv6_first, steps)
        uncertain = uncertain or doubt
        hops.extend(Hop(host, address, port) for address in addresses)
    if not hops:
        if uncertain:
            raise NoRoute(f"{domain}: {uncertain}", enhanced="4.4.3", permanent=False, steps=tuple(steps))
        text = f"none of the mail servers of {domain} has an address"
        raise NoRoute(text, code=550, enhanced="5.4.4", permanent=True, steps=tuple(steps))
    steps.extend(f"try {hop}" for hop in hops)
    return Plan(tuple(hops), tuple(steps))


def _hosts(domain: str, ask: Ask, own_names: Sequence[str], shuffle: Shuffle, steps: list[str]) -> list[str]:
    answer = ask(domain, "MX")
    steps.append(f"MX {domain}: {_told(answer)}")
    if not answer.known.is_certain:
        raise NoRoute(f"MX of {domain}: {answer.known.value}", enhanced="4.4.3", permanent=False, steps=tuple(steps))
    if answer.known is Known.NO_DOMAIN:
        text = f"there is no domain {domain}"
        raise NoRoute(text, code=550, enhanced="5.1.2", permanent=True, steps=tuple(steps))
    if answer.known is Known.NO_RECORD:
        steps.append("no MX: the domain's own address is its mail server (RFC 5321 5.1)")
        return [domain]
    if any(host == "" for _, host in answer.records):
        # "." alone is the null MX; among others it is a mistake that RFC 7505 3 rules out, and names no host.
        others = [record for record in answer.records if record[1]]
        if not others:
            text = f"{domain} takes no mail (null MX)"
            raise NoRoute(text, code=556, enhanced="5.1.10", permanent=True, steps=tuple(steps))
        answer = Lookup(answer.known, tuple(others), answer.ttl)
    return _in_order(domain, answer.records, own_names, shuffle, steps)


def _in_order(
    domain: str, records: Sequence[tuple[int, str]], own_names: Sequence[str], shuffle: Shuffle, steps: list[str]
) -> list[str]:
    own = [preference for preference, host in records if host in own_names]
    if own:
        # We are one of the servers: only better ones may be given the mail, else it goes in circles (RFC 5321 5.1).
        records = [record for record in records if record[0] < min(own)]
        steps.append(f"this host is an MX with preference {min(own)}: only better ones are left")
        if not records:
            text = f"mail for {domain} loops back to this host"
            raise NoRoute(text, code=554, enhanced="5.4.6", permanent=True, steps=tuple(steps))
    ordered: list[str] = []
    for preference in sorted({preference for preference, _ in records}):
        equal = [host for one, host in records if one == preference]
        shuffle(equal)
        ordered.extend(host for host in equal if host not in ordered)
    return ordered


def _addresses(host: str, ask: Ask, ipv6_first: bool, steps: list[str]) -> tuple[list[str], str]:
    """Addresses of a host, families taking turns, and what is in doubt about them."""
    families: list[list[str]] = []
    doubt = ""
    for kind in ("AAAA", "A") if ipv6_first else ("A", "AAAA"):
        answer = ask(host, kind)
        steps.append(f"{kind} {host}: {_told(answer)}")
        if not answer.known.is_certain:
            doubt = doubt or f"{kind} of {host}: {answer.known.value}"
        families.append([address for _, address in answer.records])
    longest = max(len(family) for family in families)
    turns = [family[n] for n in range(longest) for family in families if n < len(family)]
    return turns, doubt


def _literal(domain: str, port: int) -> Plan:
    inside = domain[1:-1]
    if inside.lower().startswith("ipv6:"):
        inside = inside[5:]
    try:
        address = str(ipaddress.ip_address(inside))
    except ValueError:
        text = f"{domain} is no address literal"
        raise NoRoute(text, code=550, enhanced="5.1.2", permanent=True) from None
    hop = Hop(domain, address, port)
    return Plan((hop,), ("an address literal", f"try {hop}"))


def _told(answer: Lookup) -> str:
    if answer.known is not Known.FOUND:
        return str(answer.known.value)
    told = [f"{preference} {text or '.'}" if preference or not text else text for preference, text in answer.records]
    return ", ".join(told)


class Dns:
    """Questions to `server` ("HOST" or "HOST:PORT"), the system's where it is ""; answers are kept for their TTL."""

    def __init__(self, server: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._server: tuple[str, int] | None = None
        if server:
            host, port = split_host(server, 53)
            self._server = str(ipaddress.ip_address(host)), port
        self._resolver: dns.resolver.Resolver | None = None
        self._clock = clock
        self._lock = Lock()
        self._cached: dict[tuple[str, str], tuple[float, Lookup]] = {}

    def ask(self, name: str, kind: str) -> Lookup:
        now = self._clock()
        key = name, kind
        with self._lock:
            kept = self._cached.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        lookup = self._lookup(name, kind)
        if lookup.known.is_certain:
            most = MAX_TTL if lookup.known is Known.FOUND else MAX_NEGATIVE_TTL
            expires = now + min(max(lookup.ttl, MIN_TTL), most)
            with self._lock:
                if len(self._cached) >= MAX_CACHED:
                    del self._cached[next(iter(self._cached))]
                self._cached.pop(key, None)
                self._cached[key] = (expires, lookup)
        return lookup

    def _configured(self) -> dns.resolver.Resolver:
        """Made at the first question: who has smart hosts only needs no resolver, and a system's settings that can't
        be read now (DNSException) may be there at the next attempt."""
        resolver = self._resolver
        if resolver is None:
            resolver = dns.resolver.Resolver(configure=self._server is None)
            if self._server is not None:
                resolver.nameservers, resolver.port = [self._server[0]], self._server[1]
            resolver.lifetime = LIFETIME
            self._resolver = resolver
        return resolver

    def _lookup(self, name: str, kind: str) -> Lookup:
        try:
            answer = self._configured().resolve(f"{name}.", kind, search=False)
        except dns.resolver.NXDOMAIN as error:
            return Lookup(Known.NO_DOMAIN, ttl=_negative_ttl(list(error.kwargs.get("responses", {}).values())))
        except dns.resolver.NoAnswer as error:
            return Lookup(Known.NO_RECORD, ttl=_negative_ttl([error.kwargs.get("response")]))
        except dns.exception.Timeout:
            return Lookup(Known.TIMED_OUT)
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
            return Lookup(Known.NO_DOMAIN)
        except dns.exception.DNSException:
            return Lookup(Known.FAILED)
        ttl = float(answer.rrset.ttl) if answer.rrset is not None else 0.0
        if kind == "MX":
            records = tuple(
                (int(one.preference), one.exchange.to_text(omit_final_dot=True).lower().rstrip("."))
                for one in heapq.nsmallest(MAX_RECORDS, answer, key=attrgetter("preference"))
            )
        else:
            records = tuple((0, one.address) for one in islice(answer, MAX_RECORDS))
        return Lookup(Known.FOUND, records, ttl)


def _negative_ttl(responses: Sequence[Any]) -> float:
    """RFC 2308 5: the SOA's TTL and its minimum, the lesser."""
    for response in responses:
        for rrset in response.authority if response is not None else ():
            if rrset.rdtype == dns.rdatatype.SOA:
                return float(min(rrset.ttl, rrset[0].minimum))
    return 0.0


def split_host(text: str, port: int) -> tuple[str, int]:
    """ "host", "host:port", "[v6]:port" or a bare IPv6 address. Raises ValueError for a port that is none."""
    host, number = text.strip(), str(port)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        number = rest.lstrip(":") or number
    elif host.count(":") == 1:
        host, _, number = host.partition(":")
    if not number.isdigit() or not 0 < int(number) < 65_536:
        raise ValueError(f"{text!r}: the port has to be a number from 1 to 65535")
    if not host:
        raise ValueError(f"{text!r}: a host name or address is missing")
    return host, int(number)


class Planner:
    """plan(destination) for "mx:", "smtp:" and "lmtp:" destinations. `port_of(destination)` is the MX port."""

    def __init__(self, relaying: Relaying, port_of: Callable[[str], int] | None = None, dns: Dns | None = None) -> None:
        self._relaying = relaying
        self._port_of = port_of or (lambda destination: relaying.port)
        self._dns = dns or Dns(relaying.dns_server)

    def plan(self, destination: str) -> Plan:
        """Raises NoRoute."""
        scheme, _, where = destination.partition(":")
        if scheme != "mx":
            return self._named(where, 24 if scheme == "lmtp" else 25)
        return planned(
            ascii_domain(where),
            self._dns.ask,
            port=self._port_of(destination),
            own_names=(self._relaying.hello.lower(),),
            ipv6_first=self._relaying.ipv6_first,
        )

    def _named(self, where: str, port: int) -> Plan:
        """Hosts that somebody chose, in their order; a later one serves where an earlier one is in trouble."""
        if where.startswith(("/", "unix:")):
            path = where.removeprefix("unix:")
            return Plan((Hop("localhost", path, 0),), (f"unix socket {path}",))
        hops: list[Hop] = []
        steps: list[str] = []
        trouble = ""
        for one in where.split(","):
            host, number = split_host(one, port)
            try:
                addresses = [str(ipaddress.ip_address(host))]
            except ValueError:
                try:
                    addresses = addresses_of(host, number)
                except OSError as error:
                    trouble = f"{host}: {error.strerror or error}"
                    steps.append(trouble)
                    continue
            hops.extend(Hop(host, address, number) for address in addresses)
        if not hops:
            raise NoRoute(f"no address: {trouble}", enhanced="4.4.3", permanent=False, steps=tuple(steps))
        steps.extend(f"try {hop}" for hop in hops)
        return Plan(tuple(hops), tuple(steps))
