"""Mail as rows of a SQLite queue, and back. Pure, but for the inserting itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from relay import statements as sql
from relay import timing
from relay.envelope_form import pack
from relay.mail import Envelope, Message, Outcome, Recipient, Result, Stop

Row = tuple[Any, ...]

STATE_OF = {
    Result.DELIVERED: sql.DELIVERED,
    Result.RELAYED: sql.RELAYED,
    Result.FAILED: sql.FAILED,
    Result.EXPIRED: sql.EXPIRED,
}


def message_row(seq: int, message: Message, count: int) -> Row:
    """Of a message with `count` recipients."""
    envelope, body = message.envelope, message.body
    return (
        seq, message.id, text(envelope.sender), envelope.arrived, body.size, timing.deadline(envelope), count,
        1 if body.path else 0, message.packed or pack(envelope), message.trace, body.content,
    )  # fmt: skip


def recipient_row(seq: int, stop: Stop, message: Message, lane: int, when: float) -> Row:
    state = sql.HELD if message.is_held else sql.WAITING
    claims = 1 if message.was_tried else 0
    dsn = _dsn(stop, message.envelope)
    return (seq, stop.number, text(stop.recipient.address), dsn, lane, state, when, 0, claims, 0)


def attempt_row(seq: int, one: Outcome, now: float) -> Row:
    return (
        seq, one.number, one.at or now, one.result.value, one.code, one.enhanced, text(one.text), text(one.remote),
        one.scope, one.next_attempt,
    )  # fmt: skip


def recipient(envelope: Envelope, number: int, address: str, dsn: str) -> Recipient:
    """As it was given to the queue."""
    if not dsn:
        return envelope.recipients[number]
    notify, _, orcpt = dsn.partition("\0")
    return Recipient(address, tuple(notify.split(",")) if notify else (), orcpt)


def insert(db: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[Row]) -> None:
    """Many rows in few steps: each step gives the interpreter lock away and has to win it back."""
    at = 0
    size = sql.ROWS
    while at < len(rows):
        while size > len(rows) - at:
            size //= 4
        size = max(size, 1)
        db.execute(statement(size), [value for row in rows[at : at + size] for value in row])
        at += size


def text(value: str) -> str:
    """Text that the database takes: what is no character is replaced; the packed envelope keeps it as it was."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _dsn(stop: Stop, envelope: Envelope) -> str:
    """Empty where the envelope says it; a recipient made by an alias brings its own."""
    if stop.number < len(envelope.recipients) and envelope.recipients[stop.number] == stop.recipient:
        return ""
    return f"{','.join(stop.recipient.notify)}\0{text(stop.recipient.orcpt)}"
