"""Where mail for other domains goes and how its hops are talked to: [relay] and its routes as the relay's ways.

Rule: a login wants the real server. Its tls is "verify" unless the settings say less, and clear text is for this
machine alone.
Thread: main. Files with passwords are read at the start and at a reload, those with tokens at each log-in.
Not here: which domains are ours (routing.py), everything else of the relay (relaying.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from certs.files import Pair, read_pair
from certs.trouble import CertificateError
from relay.hop import TlsLevel, TlsPolicy
from relay.link import is_loopback
from relay.relaying import Way
from smtpd_core.app.settings import Relay, Route, Settings
from smtpd_core.app.surroundings import unreadable
from smtpd_core.wire.sasl.client import Credentials

_TLS = {
    "none": TlsPolicy(TlsLevel.NONE),
    "opportunistic": TlsPolicy(TlsLevel.OPPORTUNISTIC),
    "require": TlsPolicy(TlsLevel.REQUIRE),
    "verify": TlsPolicy(TlsLevel.VERIFY),
    "implicit": TlsPolicy(TlsLevel.VERIFY, implicit=True),
}


def fold(domain: str) -> str:
    """A domain as the tables know it."""
    return domain.rstrip(".").lower()


def split(text: str) -> list[str]:
    """The parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def destination(relay: Relay, name: str, route: Route) -> str:
    """Where a route's mail goes; {domain} is left to be filled in where the route is for all below a domain."""
    smarthosts = split(route.smarthost or relay.smarthost)
    if smarthosts:
        return f"smtp:{','.join(smarthosts)}"
    return "mx:{domain}" if name.startswith(".") else f"mx:{name}"


def whole_relay(relay: Relay) -> Route:
    """What [relay] says for all, as if it were a route."""
    return Route(
        smarthost=relay.smarthost,
        tls=relay.smarthost_tls,
        user=relay.smarthost_user,
        password_file=relay.smarthost_password_file,
        token_file=relay.smarthost_token_file,
    )


def ways(relay: Relay) -> dict[str, Way]:
    """Raises ValueError where a file can't be read."""
    found: dict[str, Way] = {}
    for key, destination, route in _routes(relay):
        way = _way(key, relay, route)
        if way != Way():
            found[destination] = way
    return found


def faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong with logins, files and levels; each with its key."""
    relay = settings.relay
    seen: dict[str, tuple[str, Route]] = {}
    for key, destination, route in _routes(relay):
        prefix = f"{key}.smarthost_" if key == "relay" else f"{key}."
        if destination.startswith("smtp:"):
            other, same = seen.setdefault(destination, (key, route))
            if replace(same, smarthost="", port=0) != replace(route, smarthost="", port=0):
                yield key, f"talks to {destination[5:]} in another way than {other} does"
        if route.user and not route.password_file and not route.token_file:
            yield f"{prefix}password_file", f"missing, and {prefix.rpartition('.')[2]}user is set"
        if route.password_file and route.token_file:
            yield f"{prefix}token_file", "a login has a password or a token, not both"
        if route.user and not destination.startswith("smtp:"):
            yield f"{prefix}user", "a login needs a smart host"
        if route.user and route.tls == "opportunistic":
            yield f"{prefix}tls", "a password is sent only over require, verify or implicit"
        if route.user and route.tls == "none" and not _is_here(destination):
            yield f"{prefix}tls", "a password goes out in clear text to this machine only"
        if route.key and not route.certificate:
            yield f"{key}.key", "given without its certificate"
        if route.concurrency < 0:
            yield f"{key}.concurrency", "expected 1 or more, or 0 for the relay's"
        if route.messages_per_minute < 0:
            yield f"{key}.messages_per_minute", "expected a rate, or 0 for any"
        files = {"password_file": route.password_file, "token_file": route.token_file}
        yield from ((f"{prefix}{name}", reason) for name, path in files.items() for reason in _unfit(path, settings))
        files = {"ca_file": route.ca_file, "certificate": route.certificate, "key": route.key}
        yield from ((f"{key}.{name}", reason) for name, path in files.items() for reason in _unfit(path, settings))
    files = {"ca_file": relay.ca_file, "certificate": relay.certificate, "key": relay.key}
    yield from ((f"relay.{name}", reason) for name, path in files.items() for reason in _unfit(path, settings))


def common_tls(relay: Relay) -> TlsPolicy:
    """Of all hops that no route says anything about."""
    return TlsPolicy(ca_file=relay.ca_file, pair=_pair("relay", relay.certificate, relay.key))


def _routes(relay: Relay) -> Iterator[tuple[str, str, Route]]:
    """The key in the settings, the destination and what is said of it."""
    if relay.smarthost:
        yield "relay", f"smtp:{','.join(split(relay.smarthost))}", whole_relay(relay)
    for name, route in relay.route.items():
        there = destination(relay, fold(name), route)
        # Whoever shares the relay's smart host shares its way, or faults() says so.
        if there.startswith("mx:") or route != Route():
            # For all below a domain: relay.relaying finds the way of "mx:.example.org".
            yield f'relay.route."{name}"', there.replace("{domain}", fold(name)), route


def level_of(route: Route) -> str:
    """Its tls, where that says "auto" what it comes to."""
    return route.tls if route.tls != "auto" else "verify" if route.user else "opportunistic"


def _way(key: str, relay: Relay, route: Route) -> Way:
    tls = None
    if route.tls != "auto" or route.ca_file or route.certificate:
        pair = _pair(key, route.certificate or relay.certificate, route.key or relay.key)
        tls = replace(_TLS[level_of(route)], ca_file=route.ca_file or relay.ca_file, pair=pair)
    return Way(
        tls=tls,
        credentials=_credentials(key, route),
        clear_login_allowed=bool(route.user) and route.tls == "none",
        port=route.port,
        concurrency=route.concurrency,
        messages_per_minute=route.messages_per_minute,
    )


@dataclass(frozen=True)
class TokenFile:
    """Credentials whose bearer token is read anew at each log-in: whoever renews it writes it there."""

    user: str
    path: str

    def __call__(self) -> Credentials:
        """Raises OSError, and ValueError for what is no token."""
        return Credentials(self.user, token=_first_line(self.path))


def _credentials(key: str, route: Route) -> Credentials | TokenFile | None:
    if not route.user:
        return None
    path = route.token_file or route.password_file
    try:
        if route.token_file:
            source = TokenFile(route.user, path)
            source()
            return source
        return Credentials(route.user, _first_line(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {path}: {error}") from None


def _first_line(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline(16_384).strip()


def _pair(key: str, certificate: str, private: str) -> Pair | None:
    try:
        return read_pair(certificate, private) if certificate else None
    except (OSError, CertificateError) as error:
        raise ValueError(f"{key}.certificate: {error}") from None


def _is_here(destination: str) -> bool:
    hosts = [one.rpartition(":")[0].strip("[]") for one in split(destination.partition(":")[2])]
    return all(host == "localhost" or is_loopback(host) for host in hosts)


def _unfit(path: str, settings: Settings) -> list[str]:
    return unreadable(path, settings) if path else []
