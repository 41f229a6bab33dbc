"""What the stores that keep entries have in common: files and tables only say how an entry is found and put back.

An unknown user costs what a known one does: the secrets of a known one are looked at in his place, and what comes of it
is thrown away.
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
from smtpd_core.wire.sasl.verifier import DEFAULT_ITERATIONS, HASHES, ScramVerifier, Stranger

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
        self._models: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._nobody = Entry(Account(""), (hashing.fake_hash(),))
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
        found, stand_in = self.find(user), self._stand_in("password", user)
        known = found if found is not None and found.secrets else None
        try:
            matched = entries.fits(known or stand_in, password)
        except HashUnusable as reason:
            if known is None:
                return None  # a real user with such a hash is answered at once too
            raise unavailable(f"account {known.account.user_name!r}: {reason}") from None
        if known is None:
            return None
        self._remember("password", known.secrets)
        if matched is None:
            return None
        if self.renews:
            self._renew(known, matched, password)
        return known.account

    def secret(self, user: str, kind: str) -> object | None:
        found, stand_in = self.find(user), self._stand_in(kind, user)
        known = found if found is not None and found.secrets else None
        stranger = self._stranger(user, kind) if kind in HASHES else None
        try:
            answer = entries.secret(known or stand_in, kind, self.salt_key)
        except HashUnusable as reason:
            if known is not None:
                raise unavailable(f"account {user!r}: {reason}") from None
            answer = None
        if known is None or answer is None:
            return stranger
        self._remember(kind, known.secrets)
        if isinstance(answer, ScramVerifier):
            self._learn_shape(kind, answer)
        return answer

    def account(self, user: str) -> Account | None:
        found = self.find(user)
        return found.account if found else None

    def verify_token(self, user: str, token: str) -> Account | None:
        return None

    # Nobody's names -----------------------------------------------------------------------------------------------

    def _stand_in(self, kind: str, user: str) -> Entry:
        """Whose secrets are looked at for a name that is nobody's. The same name always meets the same ones, as a real
        user always meets his own. It is chosen for real users too, so that the choice tells nothing either."""
        models, number = self._models.get(kind, ()), self._number(user)
        return Entry(self._nobody.account, models[number % len(models)]) if models else self._nobody

    def _remember(self, kind: str, secrets: tuple[str, ...]) -> None:
        """Learn what a look costs here. Two threads may lose one another's model; nothing rests on it."""
        models = self._models.get(kind, ())
        if len(models) < MAX_MODELS and secrets not in models:
            self._models = self._models | {kind: (*models, secrets)}

    def _stranger(self, user: str, kind: str) -> Stranger:
        """An unknown name gets one of the shapes that the known ones have, and the same one each time."""
        try:
            name = user_name(user, case_insensitive=self.case_insensitive)
        except ValueError:
            name = user
        shapes = self._shapes.get(kind, (_USUAL_SHAPE,))
        return Stranger(name, *min(shapes, key=lambda shape: self._number(f"{shape} {name}")))

    def _learn(self, all_secrets: Iterable[tuple[str, ...]]) -> None:
        """Before anybody logs in, where a store reads all its accounts anyway. Those of before are forgotten."""
        self._models = {}
        for secrets in all_secrets:
            kinds = entries.kinds_of(secrets) if secrets else frozenset()
            for kind in kinds - entries.ALWAYS:
                self._remember(kind, secrets)
            for kind in kinds & HASHES.keys():
                for stored in secrets:
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

    def _number(self, text: str) -> int:
        """The same for the same text, and not to be foretold from outside."""
        return int.from_bytes(salt_of(self.salt_key, "choice", text, 8), "big")

    # Renewing -----------------------------------------------------------------------------------------------------

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
