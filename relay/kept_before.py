"""Messages promised before this process began, for telling second copies: (resend key, id, Unix time) of each.

Read once, before mail is taken: what lies in the spool first and the queue afterwards, since an intake in another
process may move messages meanwhile, and only in this direction.
A dead spool's segment is synced before its keys are believed: after a kill its last records may be whole and not on
disk, and whoever is answered with their id was promised that they are.
Thread: the one that starts the outbox.
Not here: comparing copies (resends), importing (intake).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

from relay import segment
from relay.disk import Disk
from relay.envelope_form import unpack
from relay.queue_resends import QueueResends
from relay.resends import Resends
from relay.segment_reading import Reading
from relay.spool_files import Found, Position, bytes_in, found_in, position_of_living

log = logging.getLogger(__name__)


def remember_all(
    resends: Resends,
    spool_directory: str,
    queue: QueueResends,
    since: float,
    goes_on: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Whoever sends again what was kept since then, before this process began, hears the first copy's id. `goes_on` is
    called for every message in the spool, with the bytes that are read and those in all."""
    total = bytes_in(spool_directory)
    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        goes_on(min(done, total), total)

    resends.remember(promised_keys(spool_directory, since, Disk(), read))
    resends.remember(queue.since(since))


def promised_keys(
    directory: str, since: float, disk: Disk, read: Callable[[int], None] = lambda size: None
) -> Iterator[tuple[bytes, str, float]]:
    """Of the messages in the segments of `directory` that arrived since then, whether their spools live or not. `read`
    is called with the bytes of each record.

    What can't be read is left out, and its copies are stored twice; intake says what is wrong with it.
    """
    for name, several in found_in(directory).items():
        try:
            position = position_of_living(directory, name, disk)
            for found in several:
                if os.stat(found.path).st_mtime >= since:
                    yield from _keys_in(found, position, since, disk, read)
        except FileNotFoundError:
            continue  # imported meanwhile: the queue knows its keys
        except OSError as error:
            log.warning("spool %s: second copies of what it holds are not recognised: %s", name, error)


def _keys_in(
    found: Found, position: Position | None, since: float, disk: Disk, read: Callable[[int], None]
) -> Iterator[tuple[bytes, str, float]]:
    if position is not None and found.number > position.number:
        return
    reading = Reading.of(found)
    if reading is None:
        return
    try:
        stop = reading.size
        if found.upto is not None:
            stop = min(found.upto, stop)
        elif position is None:
            reading.sync(disk)
        elif found.number == position.number:
            stop = position.offset
        for one in reading.scan(segment.HEADER_SIZE, stop):
            read(one.end - one.start)
            if isinstance(one, segment.Record) and one.resend_key != segment.NO_KEY:
                try:
                    arrived = unpack(one.envelope).arrived
                except ValueError:
                    continue  # set aside by intake
                if arrived >= since:
                    yield one.resend_key, one.id, arrived
    finally:
        reading.close()
