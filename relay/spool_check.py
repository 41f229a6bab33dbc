"""Verifies the segments of a spool's directory without changing anything, beside running spools or without them.

Thread: any.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from relay import segment
from relay.disk import Disk
from relay.envelope_form import unpack
from relay.segment_reading import Reading
from relay.spool_files import Found, body_path, found_in, position_of_living
from relay.view import Fault


def spool_faults(directory: str | os.PathLike[str]) -> list[Fault]:
    """What can't be read of all that is promised there."""
    folder = os.fspath(directory)
    found: list[Fault] = []
    for name, several in found_in(folder).items() if os.path.isdir(folder) else ():
        position = position_of_living(folder, name, Disk())
        for one in several:
            live = position is not None and one.number == position.number
            found += _faults(folder, one, position.offset if live and position is not None else None)
    return found


def _faults(folder: str, found: Found, live_end: int | None) -> Iterator[Fault]:
    try:
        reading = Reading.of(found)
    except FileNotFoundError:
        return  # imported meanwhile
    if reading is None:
        yield Fault(f"{found.path}: no readable header and no record")
        return
    try:
        stop = next(one for one in (live_end, found.upto, reading.size) if one is not None)
        for one in reading.scan(segment.HEADER_SIZE, stop):
            if isinstance(one, segment.Damage):
                what = "were never promised" if one.is_tail and live_end is None else "are damaged"
                yield Fault(f"{found.path}: bytes {one.start} to {one.end} {what} ({one.why})")
                continue
            try:
                unpack(one.envelope)
            except ValueError as error:
                yield Fault(f"{found.path}: the envelope of message {one.id} can't be read: {error}")
            body = body_path(folder, found.name, one.id)
            if one.content is None and not os.path.exists(body) and live_end is None:
                yield Fault(f"{found.path}: the body of message {one.id} is not in the spool; it may be in the queue")
    finally:
        reading.close()
