"""Accounts in memory: what the component calls UserAccounts.

Passwords are given in clear and stay so, hence every mechanism that works with a password can be served.
Thread: any; the accounts are fixed when the store is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from smtpd_core.accounts import hashing, nt_hash
from smtpd_core.accounts.store import Account
from smtpd_core.wire.sasl.prep import user_name
from smtpd_core.wire.sasl.salts import PROCESS_KEY, salt_of
from smtpd_core.wire.sasl.verifier import HASHES, Stranger, make_verifier


@dataclass(frozen=True, slots=True)
class UserAccount:
    """One account. `email` is an address it may send as, `addresses` are more ("@example.test" is a whole domain);
    `may_act_as` are the authorisation identities it may ask for. `password` is never shown."""

    user_name: str
    password: str = field(repr=False)
    display_name: str = ""
    email: str = ""
    addresses: tuple[str, ...] = ()
    may_act_as: tuple[str, ...] = ()

    def without_password(self) -> Account:
        return Account(self.user_name, self.display_name, self.email, self.addresses, self.may_act_as)


class MemoryStore:
    """A list of accounts. Two accounts with one name, or a name or password that can't be used, raise ValueError."""

    kinds = frozenset({"password", "cleartext", "nt-hash", "certificate", *HASHES})

    def __init__(self, accounts: Iterable[UserAccount], *, case_insensitive: bool = False) -> None:
        self.case_insensitive = case_insensitive
        self._accounts: dict[str, UserAccount] = {}
        self.salt_key = PROCESS_KEY
        self._nobody = secrets.token_urlsafe(16)
        for account in accounts:
            self._take(account)

    def _take(self, account: UserAccount) -> None:
        try:
            key = user_name(account.user_name, case_insensitive=self.case_insensitive)
        except ValueError as error:
            raise ValueError(f"user name {account.user_name!r} can't be used: {error}") from None
        if not account.password:
            raise ValueError(f"account {account.user_name!r} has an empty password")
        if key in self._accounts:
            raise ValueError(f"account {account.user_name!r} is there twice")
        self._accounts[key] = account

    def _find(self, user: str) -> UserAccount | None:
        return self._accounts.get(self._key_of(user))

    def _key_of(self, user: str) -> str:
        """As the name would be kept; one that can't be a name stays as it is and is nobody's."""
        try:
            return user_name(user, case_insensitive=self.case_insensitive)
        except ValueError:
            return user

    def verify(self, user: str, password: str) -> Account | None:
        found = self._find(user)
        fits = hashing.matches("{PLAIN}" + (found.password if found else self._nobody), password)
        return found.without_password() if found and fits else None

    def secret(self, user: str, kind: str) -> object | None:
        """Made anew at each look, for unknown names too: the time would tell of what is kept for known ones only."""
        found = self._find(user)
        password = found.password if found else self._nobody
        made: object | None = None
        if kind == "cleartext":
            made = password
        elif kind == "nt-hash":
            made = nt_hash.of_password(password)
        elif kind in HASHES:
            name = self._key_of(found.user_name if found else user)
            made = make_verifier(password, kind, salt=salt_of(self.salt_key, kind, name))
            return made if found else Stranger(name)
        return made if found else None

    def account(self, user: str) -> Account | None:
        found = self._find(user)
        return found.without_password() if found else None

    def verify_token(self, user: str, token: str) -> Account | None:
        return None
