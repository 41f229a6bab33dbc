"""What was promised in a spool's directory and is in no queue yet, for another spool to take. Nothing here is changed.

Thread: any, while no spool lives there.
Not here: importing into the queue of the same directory (intake).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from relay import segment
from relay.envelope_form import unpack
from relay.foreign import body_fault, envelope_fault, is_id
from relay.mail import Body, Message
from relay.segment_reading import Reading
from relay.spool_files import Found, body_path, found_in
from relay.view import Fault


def spool_remains(directory: str, offset_of: Callable[[str], int]) -> Iterator[Message | Fault]:
    """`offset_of(segment)` says how far the queue has imported one."""
    for several in found_in(directory).values() if os.path.isdir(directory) else ():
        for found in several:
            yield from _of_segment(directory, found, offset_of(found.key), is_last=found is several[-1])


def _of_segment(directory: str, found: Found, offset: int, *, is_last: bool) -> Iterator[Message | Fault]:
    reading = Reading.of(found)
    if reading is None:
        if os.path.getsize(found.path) > segment.HEADER_SIZE:  # else its process died while it began it
            yield Fault(f"{found.path}: no readable header and no record")
        return
    try:
        stop = reading.size if found.upto is None else min(found.upto, reading.size)
        for one in reading.scan(offset or segment.HEADER_SIZE, stop):
            if isinstance(one, segment.Record):
                yield _message(directory, found, one)
            elif not (one.is_tail and is_last and found.upto is None):  # such an end was never promised
                yield Fault(f"{found.path}: bytes {one.start} to {one.end} are damaged ({one.why})")
    finally:
        reading.close()


def _message(directory: str, found: Found, record: segment.Record) -> Message | Fault:
    path = ""
    if not is_id(record.id):
        return Fault(f"message {record.id!r}: that is no id")
    if record.content is None:
        path = body_path(directory, found.name, record.id)
        if what := body_fault(path, record.size):
            return Fault(f"message {record.id}: its content {what}", record.id)
    try:
        envelope = unpack(record.envelope)
        why = envelope_fault(envelope)
    except (ValueError, RecursionError) as error:
        why = str(error)
    if why:
        return Fault(f"message {record.id}: its envelope can't be read: {why}", record.id)
    return Message(
        record.id,
        envelope,
        record.trace,
        Body(record.size, record.content, path),
        record.resend_key.hex() if record.resend_key != segment.NO_KEY else "",
        record.envelope,
        record.is_held,
        record.was_tried,
    )
