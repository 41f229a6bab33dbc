"""What is still to be delivered of a queue's file, for another queue to take.

Only recipients that are open, each under the address that it has in the queue, which aliases may have led to; where
they go next is for the other one's routing. Nothing here is changed.
The notice that an alias was expanded (agents/expand) stays behind: its recipient would be expanded again.
Thread: one at a time, and no server holds the file.
"""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from relay import statements as sql
from relay.envelope_form import pack, unpack
from relay.foreign import body_fault, envelope_fault, is_id
from relay.mail import Body, Message, replace
from relay.queue import QueueUnreadable
from relay.queue_reader import open_to_read
from relay.queue_rows import recipient
from relay.view import Fault

# What the columns of a row hold: id, size, file, envelope, trace, content; number, address, dsn, state, claims.
_MESSAGE = (str, int, int, bytes, bytes, (bytes, type(None)))
_RECIPIENT = (int, str, str, int, int)


class QueueRemains:
    """Of the file `path`. Raises QueueUnreadable where it is damaged as a whole, of another program or a later one;
    FileNotFoundError where it is missing."""

    def __init__(self, path: str) -> None:
        self._folder = os.path.dirname(os.path.abspath(path))
        try:
            self._db = open_to_read(path)
            self.count: int = self._db.execute(sql.COUNT).fetchone()[0]
            self._keys: dict[str, bytes] = {
                id: key for id, key in self._db.execute(sql.REMAINING_RESENDS) if isinstance(key, bytes)
            }
        except sqlite3.Error as error:
            raise QueueUnreadable(f"the queue {path} can't be read: {error}") from error

    def offset(self, source: str) -> int:
        """How far the segment `source` was imported."""
        found = self._db.execute(sql.SOURCE, (source,)).fetchone()
        return found[0] if found else 0

    def has(self, id: str) -> bool:
        """Whether the message is in the queue, readable or not."""
        return self._db.execute(sql.HAS, (id,)).fetchone() is not None

    def messages(self) -> Iterator[Message | Fault | None]:
        """All of it in order of arrival; None for a message that has nothing left to deliver."""
        numbers = array("q")
        try:
            numbers.extend(row[0] for row in self._db.execute(sql.NUMBERS))
        except sqlite3.Error as error:
            behind = f"behind message number {numbers[-1]}" if numbers else "at all"
            yield Fault(f"the queue's messages can't be found {behind}: {error}")
        for number in numbers:
            try:
                row = self._db.execute(sql.REMAINING, (number,)).fetchone()
                rows = self._db.execute(sql.REMAINING_RECIPIENTS, (number,)).fetchall()
            except sqlite3.Error as error:
                yield Fault(f"message number {number} can't be read: {error}")
                continue
            if rows and not (_are(row, _MESSAGE) and is_id(row[0]) and all(_are(one, _RECIPIENT) for one in rows)):
                yield Fault(f"message number {number}: it has an id or a value that no queue gives")
            else:
                yield self._message(row, rows) if rows else None

    def _message(self, row: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Message | Fault:
        """Of its row, and of the rows of its recipients that are open."""
        id, size, has_file, packed, trace, content = row
        try:
            envelope = unpack(packed)
            left = tuple(recipient(envelope, number, address, dsn) for number, address, dsn, _, _ in rows)
            why = envelope_fault(whole := replace(envelope, recipients=left))
        except (ValueError, IndexError, RecursionError) as error:
            why = str(error)
        if why:
            return Fault(f"message {id}: its envelope can't be read: {why}", id)
        path = os.path.join(self._folder, "bodies", id) if has_file else ""
        if has_file:
            what = body_fault(path, size)
        elif content is None:
            what = "is missing"
        else:
            what = "" if len(content) == size else f"has {len(content)} bytes instead of {size}"
        if what:
            return Fault(f"message {id}: its content {what}", id)
        if left != envelope.recipients:
            envelope = whole
            packed = pack(envelope)
        return Message(
            id,
            envelope,
            trace,
            Body(size, None if has_file else content, path),
            self._keys.get(id, b"").hex(),
            packed,
            is_held=any(state == sql.HELD for *_, state, _ in rows),
            was_tried=any(claims for *_, claims in rows),
        )

    def close(self) -> None:
        """Idempotent."""
        self._db.close()


def _are(row: Sequence[Any], kinds: Sequence[type | tuple[type, ...]]) -> bool:
    return all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True))
