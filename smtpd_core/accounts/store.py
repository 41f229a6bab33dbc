"""The contract of an account store, and the values that cross it.

One of the few interfaces that outsiders implement: every method may be called from any thread, may block (the engine
bounds how many at a time), and says "the back end failed" by raising StoreUnavailable, never by a wrong answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from smtpd_core.accounts.entry import Entry

log = logging.getLogger(__name__)


class StoreUnavailable(Exception):
    """The back end did not answer; the client sees 454 4.7.0. The server neither logs nor sends its words, which may
    be a driver's and quote anything: a store that has something to say to the operator logs it by itself."""


def unavailable(reason: str) -> StoreUnavailable:
    """For the stores here, which choose their words: the exception, with its reason in the log."""
    log.warning("account store: %s", reason)
    return StoreUnavailable(reason)


@dataclass(frozen=True, slots=True)
class Account:
    """Who logged in. `user_name` is the store's own spelling; `addresses` are those it may send as ("@example.test"
    is a whole domain); `may_act_as` are the authorisation identities it may ask for. Who may not log in is shut out
    however an identity is proven, and still gets mail; who may not relay sends to our own domains only."""

    user_name: str
    display_name: str = ""
    email: str = ""
    addresses: tuple[str, ...] = ()
    may_act_as: tuple[str, ...] = ()
    may_log_in: bool = True
    may_relay: bool = True


class AccountStore(Protocol):
    """Kinds of secret: "password" (verify), "cleartext" (CRAM-MD5), "scram-sha-1" and "scram-sha-256" (a verifier),
    "nt-hash" (NTLM), "token" (XOAUTH2, OAUTHBEARER), "certificate" (EXTERNAL)."""

    @property
    def kinds(self) -> frozenset[str]:
        """What this store can answer; only mechanisms that it can serve are offered. A plain attribute will do."""

    # More that a store may have. `version`, where its kinds may change: any value that is another one when they may
    # have; it is read at each EHLO and must not wait for anything. `salt_key`, where it makes SCRAM verifiers of clear
    # passwords or describes a Stranger: bytes that its salts are made from (wire/sasl/salts.py), which a server sets.
    # `at_once`: how many may be in it at a time, where that is less than the server would let in (half of its threads).

    def verify(self, user: str, password: str) -> Account | None:
        """The account, or None for a wrong password or an unknown user, in the same time for both."""

    def secret(self, user: str, kind: str) -> object | None:
        """The stored secret of a kind other than password: str for "cleartext", 16 bytes for "nt-hash",
        ScramVerifier (wire/sasl/verifier.py) for the two of SCRAM.
        None for an unknown user, or a Stranger (same file) that tells how a verifier of this store would look: the
        mechanism goes on with a fake, and fails at its end."""

    def account(self, user: str) -> Account | None:
        """The account behind an identity that was proven otherwise (SCRAM, certificate)."""

    def verify_token(self, user: str, token: str) -> Account | None:
        """The account that the bearer token stands for, where "token" is among the kinds."""


def version_of(store: AccountStore | None) -> object:
    """What a store says of its version, None where it has none."""
    return getattr(store, "version", None)


class EditableStore(AccountStore, Protocol):
    """A store that the command line may change. Errors are ValueError: taken, missing, no room for it."""

    def users(self) -> list[Account]:
        """All accounts."""

    def add(self, entry: Entry) -> None:
        """A new account."""

    def add_all(self, entries: Sequence[Entry], refused: Callable[[Entry, str], None]) -> None:
        """New accounts, all that can be kept; `refused` is told of each other one, and why."""

    def find(self, user: str) -> Entry | None:
        """The account with its stored secrets. Raises StoreUnavailable."""

    def put(self, entry: Entry) -> None:
        """In place of the account of this name. ValueError where there is none, or no room for it."""

    def set_secrets(self, user: str, secrets: tuple[str, ...]) -> None:
        """New stored secrets for a known account."""

    def remove(self, user: str) -> None:
        """Forget an account."""
