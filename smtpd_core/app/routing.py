"""Whose mail is taken, what an address stands for, and where it goes next: the domain table as pure functions.

Rule 1: never an open relay. Mail for a domain that is not ours is taken from a logged-in user or an allowed network
        only, whatever the address looks like: quotes, '%', '!' and source routes never lead out.
Rule 2: without any domain and without a relay, everything from this machine is taken and nothing leaves it.
Thread: any; made anew for a reload. `has_account` may block.
Not here: filling in {user} and {domain} (the Maildir agent), MX (relay).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from smtpd_core.app.sanity import split
from smtpd_core.app.settings import Domain, Settings
from smtpd_core.wire.envelope import Recipient
from smtpd_core.wire.replies import Reply

unknown_user_550 = Reply(550, "5.1.1", "No such mailbox here")
relaying_denied_550 = Reply(550, "5.7.1", "Relaying denied; log in, or ask the server of that domain")
not_for_strangers_550 = Reply(550, "5.7.1", "This server takes mail from its own machine only")
relay_is_off_550 = Reply(550, "5.7.1", "Mail for other domains is not sent on from here")

# Aliases that lead to aliases: deep enough for every sane list, and an end for a circle that is not.
MAX_DEPTH = 20
# Addresses that one recipient may stand for.
MAX_TARGETS = 1000

POSTMASTER = "postmaster"


class Routing:
    """See the module. Raises ValueError where an aliases file is malformed."""

    def __init__(self, settings: Settings, has_account: Callable[[str], bool] | None = None) -> None:
        self._settings = settings
        self._has_account = has_account
        self._domains = {fold(name): domain for name, domain in settings.domains.items()}
        self._aliases = {name: aliases_of(domain) for name, domain in self._domains.items()}
        self._users = {name: frozenset(user.lower() for user in d.users) for name, d in self._domains.items()}
        self._routes = {fold(name): route for name, route in settings.relay.route.items()}
        self._networks = [ipaddress.ip_network(text, strict=False) for text in settings.relay.allow_networks]
        self._catches_all = not self._domains and not settings.relay.enabled

    # -- who may send what

    def judge(self, address: str, client: str, user: str) -> Reply | None:
        """None where mail for this recipient is taken from this client ("" is a unix socket) and user ("" is none)."""
        local, name = self._split(address)
        if name in self._domains:
            return None if self._knows(local, name) else unknown_user_550
        if self._catches_all:
            return None if is_here(client) else not_for_strangers_550
        if local.lower() == POSTMASTER and not address.rpartition("@")[1]:
            return None
        if not self._settings.relay.enabled:
            return relay_is_off_550 if user else relaying_denied_550
        return None if user or self._is_allowed(client) else relaying_denied_550

    def is_ours(self, address: str) -> bool:
        """Whether this address is delivered here and not sent on."""
        local, name = self._split(address)
        return self._catches_all or name in self._domains or (local.lower() == POSTMASTER and "@" not in address)

    def _is_allowed(self, client: str) -> bool:
        if not client:
            return True
        number = ipaddress.ip_address(client.partition("%")[0])
        if number.version == 6 and number.ipv4_mapped is not None:
            number = number.ipv4_mapped
        return any(number.version == network.version and number in network for network in self._networks)

    # -- what an address stands for

    def _split(self, address: str) -> tuple[str, str]:
        """(local part, the name in the domain table that rules it or else its domain)."""
        local, at, domain = address.rpartition("@")
        if not at:
            local, domain = address, self._settings.hostname
        name = fold(domain)
        if name not in self._domains:
            if not at and self._domains:
                return local, next(iter(self._domains))
            if "*" in self._domains:
                return local, "*"
        return local, name

    def _knows(self, local: str, name: str) -> bool:
        return self._mailbox(local, name) or self._target(local, name) is not None

    def _mailbox(self, local: str, name: str) -> bool:
        """Whether the local part, or what stands before its plus, is somebody's."""
        users = self._users[name]
        if "any" in users:
            return True
        candidates = self._candidates(local, name)
        if any(one.lower() in users for one in candidates):
            return True
        if "accounts" in users and self._has_account is not None:
            return any(self._has_account(one) or self._has_account(f"{one}@{name}") for one in candidates)
        return False

    def _target(self, local: str, name: str) -> tuple[str, ...] | None:
        """Where an alias or the catch-all leads; the postmaster always has a place."""
        for one in self._candidates(local, name):
            found = self._aliases[name].get(one.lower())
            if found is not None:
                return found
        if self._mailbox(local, name):
            return None
        domain = self._domains[name]
        if domain.catch_all:
            return (domain.catch_all,)
        return () if local.lower() == POSTMASTER else None

    def _candidates(self, local: str, name: str) -> tuple[str, ...]:
        plus = self._domains[name].plus
        if not plus or local.startswith('"') or plus not in local[1:]:
            return (local,)
        return (local, local[: local.index(plus, 1)])

    def expand(self, recipients: Iterable[Recipient]) -> tuple[Recipient, ...]:
        """The recipients with aliases resolved, each address once, in order. ORCPT tells what it was (RFC 3461 4.2)."""
        found: dict[str, Recipient] = {}
        for recipient in recipients:
            for address in self._expand(recipient.address, set(), 0):
                if address == recipient.address:
                    found.setdefault(address, recipient)
                else:
                    orcpt = recipient.orcpt or f"rfc822;{recipient.address}"
                    found.setdefault(address, Recipient(address, recipient.notify, orcpt))
        return tuple(found.values())

    def _expand(self, address: str, seen: set[str], depth: int) -> list[str]:
        local, name = self._split(address)
        targets = self._target(local, name) if name in self._domains else None
        if not targets or depth >= MAX_DEPTH:
            return [address]
        seen.add(address.lower())
        found: list[str] = []
        for target in targets:
            whole = target if "@" in target or name == "*" else f"{target}@{name}"
            if whole.lower() in seen:
                # An alias that names itself means the mailbox behind it.
                found += [whole] if whole.lower() == address.lower() else []
            elif len(found) < MAX_TARGETS:
                found += self._expand(whole, seen, depth + 1)
        return found or [address]

    # -- where it goes

    def destination(self, address: str) -> str:
        """The destination as relay/mail.py writes it."""
        local, name = self._split(address)
        if self._catches_all:
            return f"maildir:{self._mail()}"
        if name in self._domains:
            return self._domains[name].deliver or f"maildir:{self._mail()}/{{domain}}/{{user}}"
        if local.lower() == POSTMASTER and "@" not in address:
            return f"maildir:{self._mail()}"
        return self.next_hop(name)

    def next_hop(self, domain: str) -> str:
        """Where mail for a domain that is not ours goes."""
        route = self._routes.get(fold(domain))
        smarthosts = split((route.smarthost if route else "") or self._settings.relay.smarthost)
        if smarthosts:
            return f"smtp:{','.join(smarthosts)}"
        return f"mx:{fold(domain)}"

    def _mail(self) -> Path:
        return Path(self._settings.state).absolute() / "mail"


def fold(domain: str) -> str:
    """A domain as the tables know it."""
    return domain.rstrip(".").lower()


def is_here(client: str) -> bool:
    """This machine: loopback or a unix socket."""
    if not client:
        return True
    number = ipaddress.ip_address(client.partition("%")[0])
    if number.version == 6 and number.ipv4_mapped is not None:
        number = number.ipv4_mapped
    return number.is_loopback


def aliases_of(domain: Domain) -> Mapping[str, tuple[str, ...]]:
    """A domain's aliases from the settings and from its file; the settings win."""
    found = read_aliases(Path(domain.aliases_file)) if domain.aliases_file else {}
    return found | {name.lower(): targets for name, targets in domain.aliases.items()}


def read_aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Lines `name: address, address`; '#' begins a comment, a line that begins with a blank continues the last one."""
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].rstrip()
        if not text.strip():
            continue
        if text[0].isspace():
            if not name:
                raise ValueError(f"{path}:{number}: a continuation without an alias before it")
            targets = text
        else:
            name, colon, targets = text.partition(":")
            name = name.strip().lower()
            if not colon or not name:
                raise ValueError(f"{path}:{number}: expected `name: address, address`")
            found[name] = ()
        for target in split(targets):
            if target.startswith(("|", "/", ":")):
                raise ValueError(f"{path}:{number}: {target!r} is no address; commands and files are [domains] deliver")
            found[name] += (target,)
    return found
