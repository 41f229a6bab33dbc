"""The lanes of a SQLite queue: one for each destination and rank, whose next_due is kept exact.

Thread: inside the queue's transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from relay import statements as sql

# Lanes whose numbers are remembered.
_MOST = 10_000


class Lanes:
    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._touched: set[int] = set()

    def number(self, db: sqlite3.Connection, destination: str, rank: int) -> int:
        """Of this destination at this rank; made where there is none."""
        known = self._numbers.get((destination, rank))
        if known is not None:
            return known
        row = db.execute(sql.LANE, (destination, rank)).fetchone()
        if row is None:
            row = db.execute(sql.ADD_LANE, (destination, rank)).fetchone()
        if len(self._numbers) > _MOST:
            self._numbers.clear()
        self._numbers[destination, rank] = number = int(row[0])
        return number

    def touch(self, numbers: Iterable[int]) -> None:
        """Recipients of these changed; when the next one is due is found out before the commit."""
        self._touched.update(numbers)

    def note_due(self, db: sqlite3.Connection) -> None:
        """The last step of a transaction."""
        for number in self._touched:
            db.execute(sql.LANE_DUE, (number,))
        self._touched.clear()

    def undo(self) -> None:
        """The transaction, or a part of it, was taken back, perhaps with lanes that it made."""
        self._numbers.clear()

    def forget_touched(self) -> None:
        """The transaction was taken back as a whole."""
        self._touched.clear()

    def recover(self, db: sqlite3.Connection) -> None:
        """At the start: claims of an earlier run are nobody's, and due at once; lanes that nothing uses go."""
        self.touch(lane for (lane,) in db.execute(sql.ABANDONED).fetchall())
        self.note_due(db)
        db.execute(sql.UNUSED_LANES)
