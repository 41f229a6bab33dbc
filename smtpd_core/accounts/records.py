"""What the stores that keep entries have in common: files and tables only say how an entry is found and put back.

An unknown user costs what a known one does: the given password is checked against a hash of the same scheme and the
answer thrown away.
Thread: any.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable

from smtpd_core.accounts import entry as entries
from smtpd_core.accounts import hashing
from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.store import Account, StoreUnavailable, unavailable
from smtpd_core.accounts.stored import HashUnusable, verifier_of
from smtpd_core.wire.sasl.prep import user_name
from smtpd_core.wire.sasl.salts import PROCESS_KEY, salt_of
from smtpd_core.wire.sasl.verifier import DEFAULT_ITERATIONS, HASHES, ScramVerifier, Stranger, make_verifier

log = logging.getLogger(__name__)

# Stored secrets of real users that unknown ones are checked against; a few are enough to mirror a mix of schemes.
MAX_MODELS = 64
_USUAL_SHAPE = (DEFAULT_ITERATIONS, 16)


class RecordStore(ABC):
    """A store of entries. Subclasses say find(), and put() where hashes are renewed."""

    renews: bool
    at_once = hashing.AT_ONCE
    case_insensitive: bool

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, int], ...]] = {}
        self._models: tuple[tuple[str, ...], ...] = ()
        self._derives = False
        self.salt_key = PROCESS_KEY

    @property
    @abstractmethod
    def kinds(self) -> frozenset[str]:
        """What every account can be served with."""

    @abstractmethod
    def find(self, user: str) -> Entry | None:
        """The entry of a user as the client wrote it, or None. Raises StoreUnavailable."""

    def put(self, entry: Entry) -> None:
        """Keep the renewed entry in place of the one of the same name."""
        raise NotImplementedError

    def verify(self, user: str, password: str) -> Account | None:
        found = self.find(user)
        if found is None:
            self._check_somebody_else(user, password)
            return None
        if not found.secrets:
            self._check_somebody_else(user, password)
            return None
        self._remember(found)
        try:
            matched = entries.fits(found, password)
        except HashUnusable as reason:
            raise unavailable(f"account {found.account.user_name!r}: {reason}") from None
        if matched is None:
            return None
        if self.renews:
            self._renew(found, matched, password)
        return found.account

    def secret(self, user: str, kind: str) -> object | None:
        found = self.find(user)
        try:
            if found is not None:
                self._derives = self._derives or (kind in HASHES and entries.derives(found, kind))
                answer = entries.secret(found, kind, self.salt_key)
                if isinstance(answer, ScramVerifier):
                    self._learn_shape(kind, answer)
                    return answer
                return self._stranger(user, kind) if kind in HASHES else answer
            if kind not in HASHES:
                return None
            if self._derives:
                make_verifier("nobody", kind)  # what the look-up of a user with a clear password costs
            return self._stranger(user, kind)
        except HashUnusable as reason:
            raise unavailable(f"account {user!r}: {reason}") from None

    def account(self, user: str) -> Account | None:
        found = self.find(user)
        return found.account if found else None

    def verify_token(self, user: str, token: str) -> Account | None:
        return None

    def _check_somebody_else(self, user: str, password: str) -> None:
        """The same name always meets the same model, as a real user always meets his own hash."""
        models = self._models
        if not models:
            hashing.matches(hashing.fake_hash(), password)
            return
        model = models[self._number(user) % len(models)]
        try:
            entries.fits(Entry(Account(""), model), password)
        except HashUnusable:
            pass  # a real user with such a hash is answered at once too

    def _stranger(self, user: str, kind: str) -> Stranger:
        """An unknown name gets one of the shapes that the known ones have, and the same one each time."""
        try:
            name = user_name(user, case_insensitive=self.case_insensitive)
        except ValueError:
            name = user
        shapes = self._shapes.get(kind, (_USUAL_SHAPE,))
        return Stranger(name, *min(shapes, key=lambda shape: self._number(f"{shape} {name}")))

    def _learn_shapes(self, all_secrets: Iterable[Iterable[str]]) -> None:
        """Before anybody logs in, where a store reads all its accounts anyway."""
        for kind in HASHES:
            for stored in (one for some in all_secrets for one in some if kind.upper() in one[:20].upper()):
                try:
                    verifier = verifier_of(stored, kind)
                except HashUnusable:
                    continue
                if verifier is not None:
                    self._learn_shape(kind, verifier)

    def _learn_shape(self, kind: str, verifier: ScramVerifier) -> None:
        shape, known = (verifier.iterations, len(verifier.salt)), self._shapes.get(kind, ())
        if shape not in known and len(known) < MAX_MODELS:
            self._shapes = self._shapes | {kind: (*known, shape)}

    def _remember(self, found: Entry) -> None:
        """Learn what a check costs here. Two threads may lose one another's model; nothing rests on it."""
        if len(self._models) < MAX_MODELS and found.secrets not in self._models:
            self._models = (*self._models, found.secrets)

    def _renew(self, found: Entry, matched: str, password: str) -> None:
        fresh = entries.renewed(found, matched, password)
        if fresh is None:
            return
        try:
            self.put(fresh)
        except (OSError, StoreUnavailable, ValueError) as reason:
            # The log-in is good; only the better hash has to wait for another time.
            log.warning("the password hash of account %r could not be renewed: %s", found.account.user_name, reason)
        else:
            log.info("the password hash of account %r was renewed", found.account.user_name)

    def _number(self, text: str) -> int:
        """The same for the same text, and not to be foretold from outside."""
        return int.from_bytes(salt_of(self.salt_key, "choice", text, 8), "big")
