"""One account as files and tables keep it: who it is, and its stored secrets, each with its scheme.

An entry may hold several secrets for one password: a hash for PLAIN and LOGIN, verifiers for SCRAM, an NT hash for
NTLM; or the password itself ({PLAIN}), which serves them all. Pure: no files, no tables.
Not here: what a stored form tells (stored.py), what a hash is (hashing.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from smtpd_core.accounts import hashing, nt_hash
from smtpd_core.accounts.store import Account
from smtpd_core.accounts.stored import HashUnusable, cleartext_of, nt_hash_of, verifier_of
from smtpd_core.wire.sasl.salts import salt_of
from smtpd_core.wire.sasl.verifier import HASHES, make_verifier

# What an entry can serve without a password being stored: who somebody is, once a certificate has proven it.
ALWAYS = frozenset({"certificate"})
# The kinds that `user add` can store, with the one that every account should have first.
STORABLE = ("password", "scram-sha-256", "scram-sha-1", "nt-hash", "cleartext")


@dataclass(frozen=True, slots=True)
class Entry:
    """`secrets` are stored forms (stored.py); none means that nobody logs in by password."""

    account: Account
    secrets: tuple[str, ...] = field(default=(), repr=False)


def fits(entry: Entry, password: str) -> str | None:
    """The stored secret that the password matches, or None. The first that can be checked decides.

    Raises HashUnusable where there are secrets and none can be checked.
    """
    reason: HashUnusable | None = None
    for stored in _dearest_first(entry.secrets):
        try:
            return stored if hashing.matches(stored, password) else None
        except HashUnusable as error:
            reason = error
    if reason is not None:
        raise reason
    return None


def _dearest_first(secrets: Iterable[str]) -> list[str]:
    """A password hash before a SCRAM verifier before an NT hash."""
    order = {"NT": 2, "NTLM": 2, "SCRAM-SHA-1": 1, "SCRAM-SHA-256": 1}
    return sorted(secrets, key=lambda stored: order.get(hashing.scheme_of(stored), 0))


def secret(entry: Entry, kind: str, key: bytes) -> object | None:
    """The secret of a kind, as the store contract has it, or None where the entry can't give it.

    `key` makes the salt of a verifier that is made from a clear password: one that stays the same and tells nothing of
    the password, since it is shown to whoever names the user.
    """
    for stored in sorted(entry.secrets, key=lambda stored: cleartext_of(stored) is not None):
        clear = cleartext_of(stored)
        if kind == "cleartext" and clear is not None:
            return clear
        if kind == "nt-hash":
            known = nt_hash.of_password(clear) if clear is not None else nt_hash_of(stored)
            if known is not None:
                return known
        if kind in HASHES:
            verifier = verifier_of(stored, kind)
            if verifier is None and clear is not None:
                verifier = make_verifier(clear, kind, salt=salt_of(key, kind, entry.account.user_name))
            if verifier is not None:
                return verifier
    return None


def kinds_of(secrets: Iterable[str]) -> frozenset[str]:
    """What can be served with these stored secrets."""
    kinds: set[str] = set()
    for stored in secrets:
        scheme = hashing.scheme_of(stored)
        if scheme in ("PLAIN", "CLEARTEXT"):
            return ALWAYS | set(STORABLE)
        if scheme in ("NT", "NTLM"):
            kinds.add("nt-hash")
        elif scheme:
            kinds.add("password")
        if scheme.lower() in HASHES:
            kinds.add(scheme.lower())
    return ALWAYS | kinds


def common_kinds(all_secrets: Iterable[tuple[str, ...]]) -> frozenset[str]:
    """What every account can be served with: a mechanism that works for some and fails for others helps nobody.

    Accounts without any secret don't count. Without accounts: passwords, since those are what will be added.
    """
    common: frozenset[str] | None = None
    for secrets in all_secrets:
        if secrets:
            common = kinds_of(secrets) if common is None else common & kinds_of(secrets)
    return ALWAYS | {"password"} if common is None else common


def stored_forms(password: str, kinds: Iterable[str]) -> tuple[str, ...]:
    """The secrets to keep for a password, so that it serves `kinds`. Raises ValueError for a password or kind that
    can't be. "cleartext" serves all and is kept alone."""
    wanted = set(kinds) - ALWAYS
    unknown = wanted - set(STORABLE)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not a kind of secret; there are {', '.join(STORABLE)}")
    hashed = hashing.hash_password(password) if "cleartext" not in wanted else hashing.plain(password)
    if "cleartext" in wanted:
        return (hashed,)
    more = [f"{{{kind.upper()}}}{make_verifier(password, kind)}" for kind in HASHES if kind in wanted]
    if "nt-hash" in wanted:
        more.append("{NT}" + nt_hash.of_password(password).hex())
    return (hashed, *more)


def renewed(entry: Entry, matched: str, password: str) -> Entry | None:
    """The entry with a hash of today's scheme and cost in place of the one that just matched; None if it is good."""
    if not hashing.is_outdated(matched):
        return None
    fresh: Sequence[str] = [hashing.hash_password(password) if one == matched else one for one in entry.secrets]
    return replace(entry, secrets=tuple(fresh))
