"""Whose mail is taken, and what the domain table of the settings means to the relay.

Rule 1: never an open relay. Mail for a domain that is not ours is taken from a logged-in user or an allowed network
        only, whatever the address looks like: quotes, '%', '!' and source routes never lead out.
Rule 2: without any domain and without a relay, everything from this machine is taken and nothing leaves it.
Thread: any; made anew for a reload. `has_account` may block.
Not here: aliases followed, names made safe, destinations filled in (relay/route.py), MX (relay/mx.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path

from relay.route import Domain as RouteDomain
from relay.route import Place, Routes, mailbox
from relay.route import fold as fold_user
from relay.route import split as split_address
from smtpd_core.app import ways
from smtpd_core.app.sanity import bad_target
from smtpd_core.app.settings import Domain, Route, Settings
from smtpd_core.app.ways import fold, split
from smtpd_core.wire.replies import Reply

unknown_user_550 = Reply(550, "5.1.1", "No such mailbox here")
no_such_domain_550 = Reply(550, "5.1.2", "No mail can go to that domain")
relaying_denied_550 = Reply(550, "5.7.1", "Relaying denied; log in, or ask the server of that domain")
not_for_strangers_550 = Reply(550, "5.7.1", "This server takes mail from its own machine only")
relay_is_off_550 = Reply(550, "5.7.1", "Mail for other domains is not sent on from here")

HasAccount = Callable[[str], bool]


class Routing:
    """`routes` is the relay's map. ValueError: an aliases file is malformed; OSError: it can't be read."""

    def __init__(self, settings: Settings, has_account: HasAccount | None = None) -> None:
        self._relays = settings.relay.enabled
        self._networks = [ipaddress.ip_network(text, strict=False) for text in settings.relay.allow_networks]
        self.catches_all = not settings.domains and not settings.relay.enabled
        self.routes = Routes(
            domains=_domains(settings, has_account),
            table={
                fold(name): ways.destination(settings.relay, fold(name), route)
                for name, route in settings.relay.route.items()
            },
            default=ways.destination(settings.relay, "{domain}", Route()),
            hostname=settings.hostname or "localhost",
        )

    def judge(self, address: str, client: str, user: str) -> Reply | None:
        """None where mail for this recipient is taken from this client ("" is a unix socket) and user ("" is none)."""
        if self.catches_all:
            return None if is_here(client) else not_for_strangers_550
        place = self.routes.place(address)
        if place is Place.HERE:
            return None
        if place is Place.NOBODY:
            return unknown_user_550
        if not self._relays:
            return relay_is_off_550 if user else relaying_denied_550
        if not user and not self._is_allowed(client):
            return relaying_denied_550
        return no_such_domain_550 if place is Place.NOWHERE else None

    def mailbox(self, address: str) -> tuple[str, str]:
        """The names that a mailbox's template is filled with."""
        domain = split_address(address, self.routes.hostname)[1]
        ours = self.routes.domains.get(domain) or self.routes.domains.get("*")
        return mailbox(address, ours.plus if ours is not None else "+")

    def _is_allowed(self, client: str) -> bool:
        if not client:
            return True
        number = _address(client)
        return any(number.version == network.version and number in network for network in self._networks)


def _domains(settings: Settings, has_account: HasAccount | None) -> dict[str, RouteDomain]:
    mail = Path(settings.state).absolute() / "mail"
    if not settings.domains and not settings.relay.enabled:
        return {"*": RouteDomain(f"maildir:{mail}")}
    found = {fold(name): _domain(name, domain, mail, has_account) for name, domain in settings.domains.items()}
    # RFC 5321 4.5.1: RCPT TO:<Postmaster> has a place everywhere, also where the host's own name is no domain of ours.
    own = fold(settings.hostname or "localhost")
    if own not in found and "*" not in found:
        found[own] = RouteDomain(f"maildir:{mail}", users=frozenset[str]().__contains__)
    return found


def _domain(name: str, domain: Domain, mail: Path, has_account: HasAccount | None) -> RouteDomain:
    aliases = {alias: [_whole(one, name) for one in targets] for alias, targets in aliases_of(domain).items()}
    return RouteDomain(
        deliver=domain.deliver or f"maildir:{mail}/{{domain}}/{{user}}",
        users=_users(name, domain, has_account),
        aliases=aliases,
        catch_all=_whole(domain.catch_all, name) if domain.catch_all else "",
        plus=domain.plus,
    )


def _users(name: str, domain: Domain, has_account: HasAccount | None) -> HasAccount | None:
    if "any" in domain.users:
        return None
    named = frozenset(fold_user(user) for user in domain.users if user != "accounts")
    if "accounts" not in domain.users or has_account is None:
        return named.__contains__
    return lambda user: user in named or has_account(user) or has_account(f"{user}@{name}")


def _whole(target: str, name: str) -> str:
    """A target without a domain is of the alias's own."""
    return target if "@" in target or name == "*" else f"{target}@{name}"


def is_here(client: str) -> bool:
    """This machine: loopback or a unix socket."""
    if not client:
        return True
    return _address(client).is_loopback


def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The client's address; one of IPv4 on a dual-stack socket is one of IPv4."""
    number = ipaddress.ip_address(client.partition("%")[0])
    if number.version == 6 and number.ipv4_mapped is not None:
        return number.ipv4_mapped
    return number


def aliases_of(domain: Domain) -> Mapping[str, tuple[str, ...]]:
    """A domain's aliases from the settings and from its file; the settings win."""
    found = read_aliases(Path(domain.aliases_file)) if domain.aliases_file else {}
    return found | {fold_user(name): targets for name, targets in domain.aliases.items()}


def read_aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Lines `name: address, address`; '#' begins a comment, a line that begins with a blank continues the last one."""
    found: dict[str, list[str]] = {}
    name = ""
    for number, line in enumerate(_lines_of(path), 1):
        text = line.partition("#")[0].rstrip()
        if not text.strip():
            continue
        if text[0].isspace():
            if not name:
                raise ValueError(f"{path}:{number}: a continuation without an alias before it")
            targets = text
        else:
            name, colon, targets = text.partition(":")
            name = fold_user(name.strip())
            if not colon or not name:
                raise ValueError(f"{path}:{number}: expected `name: address, address`")
            found[name] = []
        for target in split(targets):
            if reason := bad_target(target):
                raise ValueError(f"{path}:{number}: {reason}")
            found[name].append(target)
    return {name: tuple(targets) for name, targets in found.items()}


def _lines_of(path: Path) -> list[str]:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: byte {error.object[error.start]:#04x} is not UTF-8") from None
