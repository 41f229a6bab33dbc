"""`user import`: accounts of another store, with their stored secrets as they are.

From every store that can list its accounts: a file of any form, our table in a database. What can't be checked here
is not taken: its user could never log in.
Thread: main.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from smtpd_core.accounts import hashing
from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.opening import open_editable
from smtpd_core.accounts.store import EditableStore
from smtpd_core.accounts.stored import nt_hash_of
from smtpd_core.app.terminal import progress
from smtpd_core.wire.shown import shown

DONE, FAILED = 0, 1

# Added to a file in one change, each of which reads and writes all of it.
AT_ONCE = 50_000

# What differs from one hash to the next of the same kind.
_SALT_OR_DIGEST = re.compile(r"[A-Za-z0-9+/=.]{16,}")


@dataclass
class _Account:
    """What became of all that were found."""

    imported: int = 0
    replaced: int = 0
    known: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, entry: Entry, reason: str) -> None:
        self.refused[entry.account.user_name] = reason

    def miss(self, name: str) -> None:
        self.refused[name] = "it was removed meanwhile, or nobody can have this name"


class _Checks:
    """Whether stored secrets can be checked here. Of hashes that look alike one is tried, since each takes its time."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def why_not(self, entry: Entry) -> str:
        """Why the account can't be taken, or ""."""
        if not entry.account.may_log_in:
            return "it is shut, and would be open here"
        return next(filter(None, map(self._why_not, entry.secrets)), "")

    def _why_not(self, stored: str) -> str:
        if nt_hash_of(stored) is not None:
            return ""
        look = _SALT_OR_DIGEST.sub(lambda run: f"<{len(run[0])}>", stored)
        if look not in self._known:
            self._known[look] = hashing.why_unusable(stored)
        return self._known[look]


def bring_in(url: str, open_target: Callable[[], EditableStore], name: str, *, replaces: bool, as_json: bool) -> int:
    """From the store `url` names, all accounts or the one called `name`. FAILED where one could not be taken. The
    target may be made by being opened, so that comes when there is something to take."""
    source = open_editable(_url_of(url))
    names = [one.user_name for one in source.users() if not name or one.user_name == name]
    if name and not names:
        raise ValueError(f"there is no account {name!r} in the store that --from names")
    target = open_target()
    before = target.kinds if target.users() else None
    account = _brought(source, names, target, replaces)
    lost = sorted(before - target.kinds) if before is not None else []
    if as_json:
        print(json.dumps({**vars(account), "no longer served": lost}))
    else:
        for who, reason in account.refused.items():
            print(shown(f"{who}: not taken: {reason}"))
        replaced = f", {account.replaced} replaced" if replaces else ""
        left = f", {len(account.refused)} not taken" if account.refused else ""
        print(f"{account.imported} accounts imported{replaced}, {account.known} were there already{left}")
        if lost:
            print(f"not all accounts have {', '.join(lost)} any more: log-ins that need it are no longer offered")
    return FAILED if account.refused else DONE


def _brought(source: EditableStore, names: list[str], target: EditableStore, replaces: bool) -> _Account:
    account, checks = _Account(), _Checks()
    new: list[Entry] = []

    def add() -> None:
        refused = len(account.refused)
        target.add_all(new, account.refuse)
        account.imported += len(new) - (len(account.refused) - refused)
        new.clear()

    with progress("user import", len(names)) as looked:
        for name in names:
            looked()
            entry = source.find(name)
            if entry is None:
                account.miss(name)
                continue
            is_known = target.find(name) is not None
            if is_known and not replaces:
                account.known += 1
            elif reason := checks.why_not(entry):
                account.refuse(entry, reason)
            elif not is_known:
                new.append(entry)
                if len(new) == AT_ONCE:
                    add()
            else:
                _replace(entry, target, account)
        if new:
            add()
    return account


def _replace(entry: Entry, target: EditableStore, account: _Account) -> None:
    try:
        target.put(entry)
        account.replaced += 1
    except ValueError as error:
        account.refuse(entry, str(error))


def _url_of(text: str) -> str:
    """A path without a scheme is a file: a database, or accounts in one of the forms."""
    if re.match(r"[A-Za-z][A-Za-z0-9+]+:", text):
        return text
    with open(text, "rb") as file:
        return f"sqlite:{text}" if file.read(15) == b"SQLite format 3" else f"file:{text}"
