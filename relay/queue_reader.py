"""Looks into a SQLite queue, beside a running server or without one; never writes.

Thread: one at a time.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from relay import statements as sql
from relay.envelope_form import unpack
from relay.view import Addressee, Fault, Filter, Listed, Status, Story, Totals, Try

# Messages read at a time.
_CHUNK = 200

_FINAL = {sql.DELIVERED: "delivered", sql.RELAYED: "relayed", sql.FAILED: "failed", sql.EXPIRED: "expired"}


# What any method may raise besides where the file is damaged.
Unreadable = sqlite3.Error


def open_to_read(path: str) -> sqlite3.Connection:
    """A connection that never writes. Raises FileNotFoundError, or sqlite3.Error where it is none of this program's."""
    try:
        os.stat(path)  # SQLite says but that it can't be opened
    except FileNotFoundError:
        raise FileNotFoundError(f"no queue here: {path} does not exist") from None
    db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and db.execute("PRAGMA schema_version").fetchone()[0] == 0:
            raise FileNotFoundError(f"no queue here: {path} is empty; a server that starts makes one of it")
        if version != sql.VERSION:
            raise sqlite3.DatabaseError(
                f"{path} has schema version {version}, this program reads {sql.VERSION}; "
                "a server of this program brings an older one up to date when it starts"
            )
    except BaseException:
        db.close()
        raise
    return db


class SqliteReader:
    """A QueueView of the queue in the file `path`. Raises FileNotFoundError where there is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._db = open_to_read(self.path)

    def messages(self, filter: Filter, now: float) -> Iterator[Listed]:
        left = filter.limit or -1
        for chunk in self._candidates(filter, now):
            for one in self._listed(chunk, now):
                if _fits(one, filter, now):
                    yield one
                    left -= 1
                    if left == 0:
                        return

    def _candidates(self, filter: Filter, now: float) -> Iterator[Sequence[int]]:
        """Messages by number in chunks, narrowed by what has an index."""
        if filter.destination:
            # Eight bytes a message, so that no snapshot stays open while the list is printed.
            rows = self._db.execute(sql.LIST_LANES, (json.dumps(self._lanes(filter.destination)),))
            seqs = array("q", (row[0] for row in rows))
            for at in range(0, len(seqs), _CHUNK):
                yield seqs[at : at + _CHUNK]
            return
        oldest = now - filter.younger_than if filter.younger_than else -1.0
        newest = now - filter.older_than if filter.older_than else 9e99
        after = 0
        while chunk := [row[0] for row in self._db.execute(sql.LIST_ALL, (after, oldest, newest, _CHUNK))]:
            yield chunk
            after = chunk[-1]

    def _lanes(self, destination: str) -> list[int]:
        return [row[0] for row in self._db.execute(sql.LANES_NAMED, (destination, destination))]

    def _listed(self, seqs: Sequence[int], now: float) -> list[Listed]:
        chosen = json.dumps(list(seqs))
        addressees: dict[int, list[Addressee]] = {}
        for seq, *row in self._db.execute(sql.LIST_RECIPIENTS, (chosen,)):
            addressees.setdefault(seq, []).append(_addressee(row, now))
        return [
            Listed(id, sender, arrived, size, tuple(addressees.get(seq, ())))
            for seq, id, sender, arrived, size in self._db.execute(sql.LIST_MESSAGES, (chosen,))
        ]

    def show(self, id: str, now: float) -> Story:
        row = self._db.execute(sql.SHOW, (id,)).fetchone()
        if row is None:
            raise KeyError(id)
        seq, packed, trace = row
        (listed,) = self._listed([seq], now)
        tries = tuple(Try(*one) for one in self._db.execute(sql.SHOW_ATTEMPTS, (seq,)))
        return Story(listed, unpack(packed), trace.decode("utf-8", "replace"), tries)

    def open_body(self, id: str) -> BinaryIO:
        row = self._db.execute(sql.BODY, (id,)).fetchone()
        if row is None:
            raise KeyError(id)
        return open(self._path_of_body(id), "rb") if row[0] else io.BytesIO(row[1])

    def has(self, id: str) -> bool:
        return self._db.execute(sql.HAS, (id,)).fetchone() is not None

    def trace(self, id: str) -> bytes:
        """The header lines that precede the content. Raises KeyError."""
        row = self._db.execute(sql.SHOW, (id,)).fetchone()
        if row is None:
            raise KeyError(id)
        found: bytes = row[2]
        return found

    def totals(self, now: float) -> Totals:
        messages, size, oldest = self._db.execute(sql.TOTALS).fetchone()
        counts: dict[str, int] = {}
        for state, attempted, leased, count in self._db.execute(sql.TOTAL_RECIPIENTS, (now,)):
            name = _status(state, attempted, leased)
            counts[name] = counts.get(name, 0) + count
        return Totals(messages, size or 0, oldest, counts, tuple(self._db.execute(sql.TOTAL_DESTINATIONS)))

    def faults(self, looked: Callable[[], None] | None = None) -> Sequence[Fault]:
        found = [
            Fault(f"database: {row[0]}") for row in self._db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"
        ]
        without_body: list[str] = []
        for id, size, has_file, packed, length in self._db.execute(sql.CHECK_MESSAGES):
            if looked is not None:
                looked()
            try:
                unpack(packed)
            except ValueError as error:
                found.append(Fault(f"message {id}: its envelope can't be read: {error}", id))
                continue
            if has_file:
                path = self._path_of_body(id)
                length = os.path.getsize(path) if os.path.exists(path) else None
            if length is None:
                without_body.append(id)
            elif length != size:
                found.append(Fault(f"message {id}: its content has {length} bytes instead of {size}", id))
        # A message that was settled meanwhile took its body along.
        still_here = self._db.execute(sql.KNOWN_IDS, (json.dumps(without_body),))
        found += [Fault(f"message {row[0]}: its body is missing", row[0]) for row in still_here]
        found += [Fault(f"message {row[0]}: no recipient is left", row[0]) for row in self._db.execute(sql.CHECK_EMPTY)]
        lost = self._db.execute(sql.CHECK_LOST)
        return found + [Fault(f"a recipient of message number {row[0]}, which is gone") for row in lost]

    def _path_of_body(self, id: str) -> str:
        return os.path.join(os.path.dirname(self.path), "bodies", id)

    def close(self) -> None:
        self._db.close()


def _addressee(row: Sequence[Any], now: float) -> Addressee:
    number, address, destination, state, attempts, next_attempt, lease, code, enhanced, text, remote = row
    reason = " ".join(str(part) for part in (code or "", enhanced, text) if part)
    if reason and remote:
        reason = f"{remote}: {reason}"
    status = _status(state, attempts, lease and next_attempt > now)
    return Addressee(number, address, destination, status, attempts, next_attempt, reason)


def _status(state: int, attempted: int, leased: int) -> str:
    if state in _FINAL:
        return _FINAL[state]
    if state == sql.HELD:
        return Status.HELD
    if leased:
        return Status.ACTIVE
    return Status.DEFERRED if attempted else Status.WAITING


def _fits(one: Listed, filter: Filter, now: float) -> bool:
    age = now - one.arrived
    if age < filter.older_than or (filter.younger_than and age > filter.younger_than):
        return False
    if filter.sender and not _is_address(one.sender, filter.sender):
        return False
    if filter.recipient and not any(_is_address(to.address, filter.recipient) for to in one.recipients):
        return False
    return not filter.status or any(to.status == filter.status for to in one.recipients)


def _is_address(address: str, wanted: str) -> bool:
    """Equal, or of the domain that "@domain" names; "<>" is the null sender. Case is ignored."""
    address, wanted = address.lower(), wanted.lower()
    if wanted == "<>":
        return address == ""
    return address.endswith(wanted) if wanted.startswith("@") else address == wanted


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
