"""Accounts in a file: our own TOML form, or lines of `user:hash` as htpasswd and Dovecot's passwd-file have them.

The file is read again when it has changed; a new content that can't be read is reported and the old one stays.
Changes are written beside the file, synced, and renamed over it, under a lock that other processes see too.
Thread: any. What is loaded is one value that is replaced as a whole.
Not here: the forms (toml_form.py, line_form.py), hashes (hashing.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from smtpd_core.accounts.entry import Entry, common_kinds
from smtpd_core.accounts.password_file.form import Refused
from smtpd_core.accounts.password_file.line_form import LINES
from smtpd_core.accounts.password_file.toml_form import TOML
from smtpd_core.accounts.records import RecordStore
from smtpd_core.accounts.store import Account, unavailable
from smtpd_core.threads import Lock
from smtpd_core.wire.sasl.prep import user_name

try:
    import fcntl
except ImportError:  # not on this platform: then only the threads of one process are kept apart
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# A file of accounts beyond this is a mistake, or a case for a database.
MAX_FILE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Loaded:
    stamp: tuple[int, int, int]
    entries: dict[str, Entry]
    kinds: frozenset[str]


class PasswordFileStore(RecordStore):
    """The accounts of one file. A file that is missing or can't be read raises OSError or ValueError at once.

    `renew`: write better hashes at log-in; by default only in our own form, since other programs read the others.
    """

    def __init__(self, path: str | Path, *, case_insensitive: bool = False, renew: bool | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.case_insensitive = case_insensitive
        self._form = TOML if self.path.suffix == ".toml" else LINES
        self.renews = self._form is TOML if renew is None else renew
        self._writing = Lock()
        self._reading = Lock()
        self._refused: tuple[int, int, int] | None = None
        self._loaded = self._read()

    @property
    def kinds(self) -> frozenset[str]:
        return self._current().kinds

    @property
    def version(self) -> object:
        """What is on disk and what was read of it: another thread may be reading a new file just now."""
        try:
            return _stamp(self.path), self._loaded.stamp
        except OSError:
            return None

    def find(self, user: str) -> Entry | None:
        key = self._key_of(user)
        return self._current().entries.get(key) if key else None

    # Changing ----------------------------------------------------------------------------------------------------

    def users(self) -> list[Account]:
        """All accounts, in the order of the file."""
        return [entry.account for entry in self._current().entries.values()]

    def add(self, entry: Entry) -> None:
        """Raises ValueError where the name is taken or can't be used."""
        if not self._key_of(entry.account.user_name):
            raise ValueError(f"user name {entry.account.user_name!r} can't be used")

        def change(text: str, known: dict[str, Entry]) -> str:
            if self._key_of(entry.account.user_name) in known:
                raise ValueError(f"account {entry.account.user_name!r} is there already")
            return self._form.put(text, entry, None)

        self._change(change)

    def add_all(self, entries: Sequence[Entry], refused: Refused) -> None:
        """One change of the file for all of them."""
        taken: set[str] = set()

        def refuse(entry: Entry, reason: str) -> None:
            taken.discard(self._key_of(entry.account.user_name))
            refused(entry, reason)

        def change(text: str, known: dict[str, Entry]) -> str:
            new = []
            for entry in entries:
                name = entry.account.user_name
                key = self._key_of(name)
                if not key or key in known or key in taken:
                    refused(entry, f"account {name!r} is there already" if key else f"user name {name!r} can't be used")
                else:
                    taken.add(key)
                    new.append(entry)
            after = self._form.append(text, new, refuse)
            # However the file is laid out, it must have them and all that it had.
            kept = known | {key: one for one in new if (key := self._key_of(one.account.user_name)) in taken}
            if self._table(after) != kept:
                raise ValueError(f"{self.path} is laid out in a way that can't be added to here; edit it by hand")
            return after

        self._change(change)

    def put(self, entry: Entry) -> None:
        def change(text: str, known: dict[str, Entry]) -> str:
            old = known.get(self._key_of(entry.account.user_name))
            if old is None:
                raise ValueError(f"there is no account {entry.account.user_name!r}")
            return self._form.put(text, entry, old)

        self._change(change)

    def set_secrets(self, user: str, secrets: tuple[str, ...]) -> None:
        """Raises ValueError where there is no such account."""
        found = self.find(user)
        if found is None:
            raise ValueError(f"there is no account {user!r}")
        self.put(replace(found, secrets=secrets))

    def remove(self, user: str) -> None:
        """Raises ValueError where there is no such account."""

        def change(text: str, known: dict[str, Entry]) -> str:
            old = known.get(self._key_of(user))
            if old is None:
                raise ValueError(f"there is no account {user!r}")
            return self._form.remove(text, old)

        self._change(change)

    def _change(self, change: Callable[[str, dict[str, Entry]], str]) -> None:
        with self._writing, _locked_file(self.path):
            before = self._read()
            text = change(self._text(), before.entries)
            if len(text.encode()) > MAX_FILE:
                raise self._too_large()
            self._table(text)  # what is written must be readable
            _replace(self.path, text)
            self._loaded = self._read()

    # Reading -----------------------------------------------------------------------------------------------------

    def _key_of(self, user: str) -> str:
        try:
            return user_name(user, case_insensitive=self.case_insensitive)
        except ValueError:
            return ""

    def _current(self) -> _Loaded:
        try:
            stamp = _stamp(self.path)
            if stamp == self._loaded.stamp or stamp == self._refused:
                return self._loaded
            # One reads, which takes seconds with a hundred thousand accounts; the others go on with the old ones.
            if self._reading.acquire(blocking=False):
                try:
                    self._loaded = self._read()
                finally:
                    self._reading.release()
        except OSError as error:
            raise unavailable(f"{self.path}: {error.strerror}") from None
        except ValueError as error:
            self._refused = stamp
            log.error("%s was changed and can't be read, the old accounts stay: %s", self.path, error)
        return self._loaded

    def _read(self) -> _Loaded:
        stamp = _stamp(self.path)  # before reading: a change in between is then seen next time
        table = self._table(self._text())
        self._learn(entry.secrets for entry in table.values())
        return _Loaded(stamp, table, common_kinds(entry.secrets for entry in table.values()))

    def _text(self) -> str:
        if self.path.stat().st_size > MAX_FILE:
            raise self._too_large()
        try:
            return self.path.read_text("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is not UTF-8") from None

    def _too_large(self) -> ValueError:
        return ValueError(f"{self.path} is over {MAX_FILE} bytes; keep so many accounts in a database")

    def _table(self, text: str) -> dict[str, Entry]:
        table: dict[str, Entry] = {}
        for where, entry in self._form.read(text, str(self.path)):
            try:
                key = user_name(entry.account.user_name, case_insensitive=self.case_insensitive)
            except ValueError as error:
                raise ValueError(f"{where}: user name {entry.account.user_name!r} can't be used: {error}") from None
            if key in table:
                raise ValueError(f"{where}: account {entry.account.user_name!r} is there twice")
            table[key] = entry
        return table


def create(path: str | Path) -> None:
    """Make an empty file of accounts, readable by its owner only, where there is none."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass


def _stamp(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


@contextmanager
def _locked_file(path: Path) -> Iterator[None]:
    """One writer at a time, across processes. The lock has a file of its own, since the other one gets replaced."""
    descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    """Write, sync, rename, sync the folder: a crash leaves the old file or the new one, whole. Mode and owner stay."""
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    facts = path.stat()
    descriptor = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if hasattr(os, "fchown") and os.geteuid() == 0:
                os.fchown(file.fileno(), facts.st_uid, facts.st_gid)
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), facts.st_mode & 0o777)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY) if os.name == "posix" else None
    if folder is not None:
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
