"""The guard at the door: who may connect, how many, how often; and who failed to log in how many times.

Rule 1: a refusal is always said: 421 4.3.2 for too many, 554 5.7.1 for a blocked source. Only under implicit TLS it is
        a close: to say it would take the handshake, a millisecond of work for each newcomer of a flood.
Rule 2: every counter is bounded. Open connections are bounded by max_connections, all others by `tracked` keys: an
        attacker with a million addresses makes the counters less exact, never larger.
Thread: any (one lock for each guard, held for a few instructions).
Not here: closing connections (reactor.py), delaying and refusing logins (server; it asks begin_login and login_delay).
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from smtpd_core.threads import Lock

FULL_421 = b"421 4.3.2 Too many connections, try again later\r\n"
SOURCE_FULL_421 = b"421 4.3.2 Too many connections from your address, try again later\r\n"
TOO_OFTEN_421 = b"421 4.3.2 Connections from your address come too often, try again later\r\n"
BLOCKED_554 = b"554 5.7.1 Connections from your address are not accepted\r\n"


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Limits; 0 means none. Networks are CIDR, `exempt` ones are under no source rule but `block`."""

    max_connections: int = 20_000
    max_per_source: int = 100
    max_per_prefix: int = 0  # IPv4 /24, IPv6 /64
    connections_per_period: int = 0  # of one source
    messages_per_period: int = 0  # of one source
    period: float = 60.0
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    allow_only: bool = False
    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    login_delay: float = 1.0  # after the first failure; doubles with each, up to max_login_delay
    max_login_delay: float = 16.0
    lock_out_after: int = 10  # failures of one user name, or of one source, within lock_out_period
    lock_out_period: float = 900.0
    tracked: int = 65_536  # keys per counter


class Networks:
    """A set of CIDR networks: one look-up for each prefix length that occurs. ValueError names what is malformed."""

    __slots__ = ("_by_length", "_loopback")

    def __init__(self, texts: Iterable[str]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for text in texts:
            network = ipaddress.ip_network(text.strip(), strict=False)
            shift = network.max_prefixlen - network.prefixlen
            self._by_length.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def __contains__(self, address: str) -> bool:
        if not self._by_length or not address:  # a client on a unix socket is in no network
            return False
        version, number = _number(address)
        return any(
            version == wanted and number >> shift in networks for (wanted, shift), networks in self._by_length.items()
        )


class Tally:
    """Events by key over about one period, in two generations of together at most `capacity` keys."""

    __slots__ = ("_capacity", "_now", "_period", "_since", "_then")

    def __init__(self, period: float, capacity: int) -> None:
        self._period = period
        self._capacity = max(1, capacity * 2 // 5)  # of one generation; half as many more outlast it
        self._now: dict[str, float] = {}
        self._then: dict[str, float] = {}
        self._since = 0.0

    def add(self, key: str, now: float) -> int:
        """Count one event; the count of the key with it."""
        self._turn(now)
        if key not in self._now and len(self._now) >= self._capacity:
            self._make_room(now)
        self._now[key] = self._now.get(key, 0) + 1
        return self.count(key, now)

    def count(self, key: str, now: float) -> int:
        """Events of this generation, and of the last in proportion to how much of it lies within the period."""
        self._turn(now)
        count = self._now.get(key, 0)
        before = self._then.get(key, 0)
        if before:
            count += before * self._share(now)
        return int(count)

    def _share(self, now: float) -> float:
        """How much of the last generation lies within the period."""
        return max(0.0, 1.0 - (now - self._since) / self._period)

    def _make_room(self, now: float) -> None:
        """A flood of other keys does not wash away the count of one that has many: those outlast their generation."""
        share, least = self._share(now), 2
        heavy = {key: count * share for key, count in self._then.items() if count * share >= least}
        while len(heavy) > self._capacity // 2:
            least *= 2
            heavy = {key: count for key, count in heavy.items() if count >= least}
        for key, count in self._now.items():
            heavy[key] = heavy.get(key, 0) + count
        self._then, self._now, self._since = heavy, {}, now

    def take_back(self, key: str) -> None:
        """One event of the key did not count after all."""
        for counts in (self._now, self._then):
            if key in counts:
                counts[key] -= 1
                if counts[key] <= 0:
                    del counts[key]
                return

    def forget(self, key: str) -> None:
        self._now.pop(key, None)
        self._then.pop(key, None)

    def __len__(self) -> int:
        return len(self._now) + len(self._then)

    def _turn(self, now: float) -> None:
        age = now - self._since
        if age < self._period:
            return
        self._then = self._now if age < 2 * self._period else {}
        self._now = {}
        self._since = now if age >= 2 * self._period else self._since + self._period


class Guard:
    """See the module. Addresses are text as the socket gives them; "" (a unix socket) is under no source rule."""

    def __init__(self, settings: GuardSettings | None = None) -> None:
        self.settings = settings = settings or GuardSettings()
        self._lock = Lock()
        self._allow = Networks(settings.allow)
        self._block = Networks(settings.block)
        self._exempt = Networks(settings.exempt)
        self._has_rules = bool(settings.allow_only or self._block)
        self.connections = 0
        self.refused = 0
        self._by_source: dict[str, int] = {}
        self._by_prefix: dict[str, int] = {}
        self._rate = Tally(settings.period, settings.tracked)
        self._messages = Tally(settings.period, settings.tracked)
        self._failures = Tally(settings.lock_out_period, settings.tracked)

    def change(self, settings: GuardSettings) -> None:
        """Other rules from now on. What is open stays open and counted; a tally begins anew where its period changes.
        ValueError (a malformed network) leaves all as it was."""
        allow, block, exempt = Networks(settings.allow), Networks(settings.block), Networks(settings.exempt)
        with self._lock:
            old, self.settings = self.settings, settings
            if bool(old.max_per_prefix) != bool(settings.max_per_prefix):
                self._count_prefixes()
            self._allow, self._block, self._exempt = allow, block, exempt
            self._has_rules = bool(settings.allow_only or block)
            if (old.period, old.tracked) != (settings.period, settings.tracked):
                self._rate = Tally(settings.period, settings.tracked)
                self._messages = Tally(settings.period, settings.tracked)
            if (old.lock_out_period, old.tracked) != (settings.lock_out_period, settings.tracked):
                self._failures = Tally(settings.lock_out_period, settings.tracked)

    def _count_prefixes(self) -> None:
        """Prefixes are counted only while they are limited, so what is open is counted when that begins."""
        self._by_prefix = {}
        if self.settings.max_per_prefix:
            for source, count in self._by_source.items():
                prefix = prefix_of(source)
                self._by_prefix[prefix] = self._by_prefix.get(prefix, 0) + count

    # -- connections

    def admit(self, address: str, now: float, behind_proxy: bool = False) -> bytes | None:
        """None lets the newcomer in and counts it; else the reply. Behind a proxy only the total counts for now."""
        with self._lock:
            settings = self.settings
            if settings.max_connections and self.connections >= settings.max_connections:
                self.refused += 1
                return FULL_421
            if not behind_proxy:
                refusal = self._judge_source(address, now)
                if refusal is not None:
                    self.refused += 1
                    return refusal
            self.connections += 1
            return None

    def admit_source(self, address: str, now: float) -> bytes | None:
        """The source rules for a client that a proxy spoke for; None lets it in and counts its source."""
        with self._lock:
            refusal = self._judge_source(address, now)
            if refusal is not None:
                self.refused += 1
            return refusal

    def release(self, source: str | None) -> None:
        """A connection is closed. `source` is None where its source was not counted."""
        with self._lock:
            self.connections -= 1
            if source:
                _subtract(self._by_source, source)
                if self.settings.max_per_prefix:
                    _subtract(self._by_prefix, prefix_of(source))

    def _judge_source(self, address: str, now: float) -> bytes | None:
        if not address:
            return None
        settings = self.settings
        if self._has_rules:
            if address in self._block and address not in self._allow:
                return BLOCKED_554
            if settings.allow_only and address not in self._allow:
                return BLOCKED_554
        count = self._by_source.get(address, 0)
        prefix = prefix_of(address) if settings.max_per_prefix else ""
        refusal = self._too_many(address, count, prefix, now)
        # Asked last: parsing an address costs more than all the rest.
        if refusal is not None and address not in self._exempt:
            return refusal
        self._by_source[address] = count + 1
        if prefix:
            self._by_prefix[prefix] = self._by_prefix.get(prefix, 0) + 1
        return None

    def _too_many(self, address: str, count: int, prefix: str, now: float) -> bytes | None:
        settings = self.settings
        if settings.max_per_source and count >= settings.max_per_source:
            return SOURCE_FULL_421
        if prefix and self._by_prefix.get(prefix, 0) >= settings.max_per_prefix:
            return SOURCE_FULL_421
        limit = settings.connections_per_period
        if limit and self._rate.add(address, now) > limit:
            return TOO_OFTEN_421
        return None

    def abandon(self) -> None:
        """In the child after a fork: the parent's connections are not ours, and the lock may be held for ever."""
        self._lock = Lock()
        self.connections = 0
        self._by_source = {}
        self._by_prefix = {}

    # -- messages

    def may_send(self, address: str, now: float) -> bool:
        """Count one message of this source; False where that is over its rate."""
        limit = self.settings.messages_per_period
        if not limit or not address or address in self._exempt:
            return True
        with self._lock:
            return self._messages.add(address, now) <= limit

    # -- logins

    def begin_login(self, address: str, user: str, now: float) -> bool:
        """Count an attempt before it is judged; False, and nothing counted, where it must not be tried at all.

        Counting first is what keeps the limit with any number of attempts at once. A success or a fault of ours takes
        it back.
        """
        with self._lock:
            if self._is_locked_out(address, user, now):
                return False
            for key in _login_keys(address, user):
                self._failures.add(key, now)
            return True

    def login_succeeded(self, address: str, user: str) -> None:
        """The attempt was good: the user starts anew, the source has one failure less."""
        with self._lock:
            self._failures.forget(_user_key(user))
            if address:
                self._failures.take_back(_source_key(address))

    def login_not_judged(self, address: str, user: str) -> None:
        """The back end failed: nobody can be blamed for the attempt."""
        with self._lock:
            for key in _login_keys(address, user):
                self._failures.take_back(key)

    def login_delay(self, address: str, user: str, now: float) -> float:
        """Seconds to wait before the answer to a failed login."""
        settings = self.settings
        with self._lock:
            failures = max((self._failures.count(key, now) for key in _login_keys(address, user)), default=0)
        if failures <= 0 or not settings.login_delay:
            return 0.0
        return float(min(settings.max_login_delay, settings.login_delay * 2 ** min(failures - 1, 30)))

    def locked_out(self, address: str, user: str, now: float) -> bool:
        """Whether this user name or this source has failed too often to be tried at all."""
        with self._lock:
            return self._is_locked_out(address, user, now)

    def _is_locked_out(self, address: str, user: str, now: float) -> bool:
        limit = self.settings.lock_out_after
        if not limit:
            return False
        if user and self._failures.count(_user_key(user), now) >= limit:
            return True
        return (
            bool(address) and self._failures.count(_source_key(address), now) >= limit and address not in self._exempt
        )


def _login_keys(address: str, user: str) -> list[str]:
    """A log-in without a name (a token that names its user itself) counts against its source only."""
    keys = [_user_key(user)] if user else []
    return [*keys, _source_key(address)] if address else keys


def _user_key(user: str) -> str:
    """Spellings that a store may take for one name share a counter; an endless name is cut."""
    return "u:" + unicodedata.normalize("NFKC", user[:256]).lower()


def _source_key(address: str) -> str:
    """An IPv6 host has a /64 to call from; an IPv4 one is itself."""
    return f"a:{prefix_of(address) if ':' in address and '.' not in address else address}"


def prefix_of(address: str) -> str:
    """The /24 of an IPv4 address, the /64 of an IPv6 one."""
    version, number = _number(address)
    return f"4:{number >> 8:x}" if version == 4 else f"6:{number >> 64:x}"


def _number(address: str) -> tuple[int, int]:
    """(version, number); an IPv4 client on a dual-stack socket counts as the IPv4 client that it is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.version, int(parsed)


def _subtract(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
