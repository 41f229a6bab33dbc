"""Several stores as one, asked in order: the first that knows the answer gives it.

A store that does not answer is passed over; only where no other says yes is the whole unavailable, so that a dead
back end never turns a right password into a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from smtpd_core.accounts.store import Account, AccountStore, StoreUnavailable, version_of
from smtpd_core.wire.sasl.salts import PROCESS_KEY
from smtpd_core.wire.sasl.verifier import Stranger

T = TypeVar("T")

# Proven by something else than a password, so that users of one store may have what those of another do not.
_WITHOUT_PASSWORD = frozenset({"token", "certificate"})


class ChainStore:
    """Thread: any, as far as the stores allow."""

    def __init__(self, stores: Sequence[AccountStore]) -> None:
        if not stores:
            raise ValueError("a chain of account stores needs at least one")
        self.stores = tuple(stores)

    @property
    def kinds(self) -> frozenset[str]:
        """Of the kinds that come from a password, those that every store with passwords has; of the others, all."""
        every = [store.kinds for store in self.stores]
        with_passwords = [kinds for kinds in every if kinds - _WITHOUT_PASSWORD]
        common = frozenset.intersection(*with_passwords) if with_passwords else frozenset()
        return common | frozenset.union(*every) & _WITHOUT_PASSWORD

    @property
    def version(self) -> object:
        return tuple(version_of(store) for store in self.stores)

    @property
    def at_once(self) -> int:
        """The least of those that have a limit."""
        return min((limit for store in self.stores if (limit := getattr(store, "at_once", 0))), default=0)

    @property
    def salt_key(self) -> bytes:
        return next((store.salt_key for store in self.stores if hasattr(store, "salt_key")), PROCESS_KEY)

    @salt_key.setter
    def salt_key(self, key: bytes) -> None:
        for store in self.stores:
            if hasattr(store, "salt_key"):
                store.salt_key = key

    def verify(self, user: str, password: str) -> Account | None:
        return self._first("password", lambda store: store.verify(user, password))

    def secret(self, user: str, kind: str) -> object | None:
        return self._first(kind, lambda store: store.secret(user, kind)) if kind in self.kinds else None

    def account(self, user: str) -> Account | None:
        return self._first("", lambda store: store.account(user))

    def verify_token(self, user: str, token: str) -> Account | None:
        return self._first("token", lambda store: store.verify_token(user, token))

    def _first(self, kind: str, ask: Callable[[AccountStore], T | None]) -> T | None:
        down: StoreUnavailable | None = None
        stranger: T | None = None
        for store in self.stores:
            if kind and kind not in store.kinds:
                continue
            try:
                answer = ask(store)
            except StoreUnavailable as error:
                down = error
                continue
            if isinstance(answer, Stranger):
                stranger = stranger or answer
            elif answer is not None:
                return answer
        if down is not None:
            raise down
        return stranger
