"""What a spool synced last, still in memory: intake in the same process need not read it back.

The segment is the truth: whatever is not here, or was forgotten because it became too much, is read from there.
Thread: put() from the commit loop, take() from intake.
"""

from __future__ import annotations

from relay import segment
from smtpd_core.threads import Lock

# So much is kept in memory for intake, which comes once a second at full load.
MOST = 16 << 20


class Fresh:
    """Of one spool. A segment's records follow each other without gaps, as far as they are here."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = Lock()
        self._batches: list[tuple[int, list[segment.Record]]] = []
        self._size = 0

    def put(self, number: int, records: list[segment.Record]) -> None:
        """These were synced in segment `number`."""
        size = records[-1].end - records[0].start
        with self._lock:
            if self._size + size > self._most:
                self._batches.clear()
                self._size = 0
            self._batches.append((number, records))
            self._size += size

    def take(self, number: int) -> list[segment.Record]:
        """The records of segment `number`, in their order; all others are forgotten."""
        with self._lock:
            batches, self._batches, self._size = self._batches, [], 0
        return [one for of, records in batches if of == number for one in records]
