"""Where each recipient's mail goes: domains, aliases, catch-all, plus-addresses, postmaster. Pure.

An address becomes one or more stops, each with a destination as relay/mail.py spells it; what nobody has becomes
"refuse:CODE TEXT", so that a recipient is answered for even where routes changed after its RCPT. An alias of several
mailboxes whose sender wants to hear of success is a stop of its own besides them, "expand:N".
Rule: what a stranger wrote is never a path or a command. The templates of mailboxes stay templates here, so that all
mailboxes of a place share a destination; agents replace {user} and {domain} by safe_name() of them, which holds no
separator, no leading dot and no more than 128 characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import idna

from relay.mail import Envelope, Recipient, Stop

# Aliases of aliases. More is a mistake or a loop.
MAX_ALIAS_DEPTH = 10
# Stops that one message may grow to by aliases.
MAX_STOPS = 10_000

_NOWHERE = "refuse:5.4.6 Aliases that lead in a circle, or through too many others"

_UNSAFE = re.compile(r"[^a-z0-9_+=-]")
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\Z")
_PLACES = re.compile(r"\{user\}|\{domain\}")
_LITERAL = re.compile(r"\[[a-z0-9.:%-]{2,60}\]\Z")


class Place(Enum):
    """Whose an address is."""

    HERE = "a mailbox or alias of ours"
    NOBODY = "our domain, but no such user"
    ELSEWHERE = "another's domain"
    NOWHERE = "no domain that mail could go to"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of ours. `deliver` is a destination template with {user} and {domain}.

    `users` is None for "any", else tells whether a user name (lower case, without its plus-part) is known. `aliases`
    maps user names to addresses. `catch_all` is an address for whoever is not known, "" for none.
    `plus` parts a detail from the user name ("ann+x" is "ann"); "" for none. Case is ignored.
    """

    deliver: str
    users: Callable[[str], bool] | None = None
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    catch_all: str = ""
    plus: str = "+"


@dataclass(frozen=True, slots=True)
class Routes:
    """The whole map. `domains` by name, "*" for every other; `table` maps other people's domains (".example.org" for
    all below it) to destinations; `default` is for the rest, {domain} being the recipient's. `hostname` completes an
    address without domain."""

    domains: Mapping[str, Domain] = field(default_factory=dict)
    table: Mapping[str, str] = field(default_factory=dict)
    default: str = "mx:{domain}"
    hostname: str = "localhost"

    def place(self, address: str) -> Place:
        """Whose the address is; cheap, asked at every RCPT."""
        user, domain = split(address, self.hostname)
        ours = self._domain(domain)
        if ours is not None:
            return Place.HERE if self._is_known(ours, user) else Place.NOBODY
        return Place.ELSEWHERE if _is_routable(domain) else Place.NOWHERE

    def holds(self, address: str) -> bool:
        """Whether a domain of ours is meant, known user or not."""
        return self._domain(split(address, self.hostname)[1]) is not None

    def destination(self, address: str) -> str:
        """Where one address goes, aliases aside."""
        user, domain = split(address, self.hostname)
        ours = self._domain(domain)
        if ours is not None:
            return ours.deliver if self._is_known(ours, user) else "refuse:5.1.1 No such user here"
        if not _is_routable(domain):
            return "refuse:5.1.2 No such domain"
        return self._elsewhere(domain)

    def stops(self, envelope: Envelope) -> list[Stop]:
        """Every recipient of the envelope, aliases followed, each mailbox once; numbered from 0."""
        return self.stops_for(envelope.recipients)

    def stops_for(self, recipients: Iterable[Recipient]) -> list[Stop]:
        reached: dict[tuple[str, str], Recipient] = {}
        expanded: list[Stop] = []
        for recipient in recipients:
            addresses = list(dict.fromkeys(self._expanded(recipient.address)))
            if len(addresses) > 1 and "SUCCESS" in recipient.notify:
                # The sender hears once that the alias was expanded, and of its mailboxes only what goes wrong there.
                expanded.append(Stop(0, recipient, f"expand:{len(addresses)}"))
                left = tuple(word for word in recipient.notify if word != "SUCCESS") or ("NEVER",)
                recipient = replace(recipient, notify=left)
            for address in addresses:
                there = recipient if address == recipient.address else _by_alias(recipient, address)
                key = self._key(address)
                if key not in reached and len(reached) >= MAX_STOPS:
                    expanded.append(Stop(0, recipient, "refuse:5.3.4 Too many mailboxes, some got nothing"))
                    break
                if key not in reached or (len(addresses) == 1 and address == recipient.address):
                    # Whoever was named by the sender keeps what the sender wants to hear, whatever aliases lead there.
                    reached[key] = there
        carried = [Stop(0, one, self._last(one.address)) for one in reached.values()]
        return [replace(stop, number=number) for number, stop in enumerate(carried + expanded)]

    def _last(self, address: str) -> str:
        """Where an address goes once all aliases were followed. One that is still an alias and no mailbox is a mistake:
        its mail would lie where nobody looks."""
        return _NOWHERE if self._is_alias_alone(address) else self.destination(address)

    def _is_alias_alone(self, address: str) -> bool:
        user, domain = split(address, self.hostname)
        ours = self._domain(domain)
        if ours is None or self._has_mailbox(ours, user) or _base(ours, fold(user)) == "postmaster":
            return False
        targets = self._targets(address)
        return bool(targets) and all(self._key(one) != self._key(address) for one in targets)

    def _expanded(self, address: str) -> list[str]:
        """The addresses that an address stands for, the nearest first. Each alias is followed once, so that lists may
        name each other; of those that only lead to each other the first stands for itself."""
        found: list[str] = []
        aliases: list[str] = []
        before: dict[tuple[str, str], list[tuple[str, str]]] = {}
        known = {self._key(address)}
        line = deque([(address, 0)])
        while line:
            one, depth = line.popleft()
            here = self._key(one)
            targets = self._targets(one) if depth < MAX_ALIAS_DEPTH else ()
            (aliases if targets else found).append(one)
            for target in targets:
                there = self._key(target)
                before.setdefault(there, []).append(here)
                if there == here:
                    # An alias that names itself means the mailbox of that name, beside its other targets.
                    found.append(one)
                elif there not in known:
                    known.add(there)
                    line.append((target, depth + 1))
        return found + self._firsts(aliases, self._leading_to(found, before)) if aliases else found

    def _leading_to(
        self, found: Sequence[str], before: Mapping[tuple[str, str], Sequence[tuple[str, str]]]
    ) -> set[tuple[str, str]]:
        """All from which one of these is reached, themselves included."""
        leading = {self._key(one) for one in found}
        line = deque(leading)
        while line:
            for one in before.get(line.popleft(), ()):
                if one not in leading:
                    leading.add(one)
                    line.append(one)
        return leading

    def _firsts(self, aliases: Sequence[str], done: set[tuple[str, str]]) -> list[str]:
        """Of the aliases that are not done, those that no other one before them leads to."""
        firsts: list[str] = []
        for alias in aliases:
            if self._key(alias) in done:
                continue
            firsts.append(alias)
            line = deque([alias])
            while line:
                one = line.popleft()
                if self._key(one) not in done:
                    done.add(self._key(one))
                    line.extend(self._targets(one))
        return firsts

    def _key(self, address: str) -> tuple[str, str]:
        """The same for the same mailbox. Case is ours to ignore in our own domains only."""
        user, domain = split(address, self.hostname)
        return fold(user) if self._domain(domain) else user, domain

    def _targets(self, address: str) -> Sequence[str]:
        """What an alias or a catch-all names; nothing where the address is a mailbox or another's."""
        user, domain = split(address, self.hostname)
        ours = self._domain(domain)
        if ours is None:
            return ()
        folded = fold(user)
        if folded in ours.aliases:
            return ours.aliases[folded]
        if _base(ours, folded) in ours.aliases:
            return ours.aliases[_base(ours, folded)]
        return (ours.catch_all,) if ours.catch_all and not self._has_mailbox(ours, user) else ()

    def _has_mailbox(self, ours: Domain, user: str) -> bool:
        folded = fold(user)
        return ours.users is None or ours.users(folded) or ours.users(_base(ours, folded))

    def _is_known(self, ours: Domain, user: str) -> bool:
        folded = fold(user)
        name = _base(ours, folded)
        return (
            ours.users is None
            or name == "postmaster"  # RFC 5321 4.5.1: in every domain that takes mail
            or name in ours.aliases
            or folded in ours.aliases
            or bool(ours.catch_all)
            or ours.users(folded)
            or (name != folded and ours.users(name))
        )

    def _domain(self, domain: str) -> Domain | None:
        return self.domains.get(domain) or self.domains.get("*")

    def _elsewhere(self, domain: str) -> str:
        if domain in self.table:
            return self.table[domain].replace("{domain}", domain)
        above = domain
        while "." in above:
            above = above.partition(".")[2]
            if f".{above}" in self.table:
                return self.table[f".{above}"].replace("{domain}", domain)
        return self.default.replace("{domain}", domain)


def split(address: str, hostname: str = "localhost") -> tuple[str, str]:
    """Local part (quotes undone) and domain (lower case, A-labels). No domain: this host's (RFC 5321 4.1.1.3)."""
    user, at, domain = address.rpartition("@")
    if not at:
        user, domain = address, hostname
    if len(user) > 1 and user.startswith('"') and user.endswith('"'):
        user = re.sub(r"\\(.)", r"\1", user[1:-1])
    return user, ascii_domain(domain)


def _by_alias(recipient: Recipient, address: str) -> Recipient:
    """Reports name what the sender wrote (RFC 3461 5.2.7)."""
    kind = "rfc822" if recipient.address.isascii() else "utf-8"
    return replace(recipient, address=address, orcpt=recipient.orcpt or f"{kind};{recipient.address}")


def ascii_domain(domain: str) -> str:
    """The domain as DNS knows it; a name that IDNA refuses stays as it is and is not routable."""
    domain = domain.rstrip(".").lower()
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain


def fold(user: str) -> str:
    """A local part as our domains know it: case is ignored, and so is how a letter with an accent is put together."""
    return user.lower() if user.isascii() else unicodedata.normalize("NFC", user.lower())


def safe_name(text: str) -> str:
    """A file name for what a stranger wrote; texts that fold() differently have different names."""
    folded = fold(text)
    name = "".join(c if c == "." or not _UNSAFE.match(c) else _percent(c) for c in folded)
    if not name or name.startswith("."):
        name = f"%2e{name[1:]}" if name else "%"
    if len(name) <= 128:
        return name
    # "%%" is in no shorter name.
    return f"{name[:80]}%%{hashlib.sha256(folded.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def _percent(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def mailbox(address: str, plus: str = "+") -> tuple[str, str]:
    """User (folded, without its plus-part) and domain of an address of ours."""
    user, domain = split(address)
    folded = fold(user)
    return (folded.partition(plus)[0] or folded if plus else folded), domain


def filled(template: str, user: str, domain: str) -> str:
    """A mailbox's path. Only the two names are replaced; what they stand for is never read as a template."""
    if "{" not in template:
        return template
    names = {"{user}": safe_name(user), "{domain}": safe_name(domain)}
    return _PLACES.sub(lambda place: names[place[0]], template)


def _base(ours: Domain, folded: str) -> str:
    if not ours.plus:
        return folded
    base = folded.partition(ours.plus)[0]
    return base or folded


def _is_routable(domain: str) -> bool:
    return len(domain) <= 255 and bool(_DOMAIN.match(domain) or _LITERAL.match(domain))
