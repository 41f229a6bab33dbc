"""A state directory of a server that does not run, with mail in its queue and in its spool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relay.mail import Body, Message, Stop
from relay.queue_sqlite import SqliteQueue
from relay.resends import Resends
from relay.spool import Spool
from smtpd_core.draft import Draft
from smtpd_core.wire.envelope import Envelope, Origin, Recipient

LARGE = 300_000


def envelope(*to: str, arrived: float = 1_000_000.0) -> Envelope:
    several = tuple(Recipient(one) for one in to or ("ann@example.test",))
    return Envelope("bob@here.test", several, origin=Origin("192.0.2.1", listener="submission"), arrived=arrived)


def content_of(id: str, size: int = 0) -> bytes:
    return f"Subject: {id}\r\nMessage-ID: <{id}@here.test>\r\n\r\n".encode() + b"x" * size


def put_in_queue(state: Path, ids: Sequence[str], *, large: Sequence[str] = (), held: Sequence[str] = ()) -> None:
    """One recipient each, for a next hop that this directory alone knows."""
    state.mkdir(exist_ok=True)
    queue = SqliteQueue(state / "queue.db")
    batch = []
    for id in ids:
        content = content_of(id, LARGE if id in large else 0)
        path = ""
        if id in large:
            path = str(state / f"{id}.body")
            Path(path).write_bytes(content)
        made = envelope()
        body = Body(len(content), None if path else content, path)
        batch.append(
            (Message(id, made, b"Received: elsewhere\r\n", body), [Stop(0, made.recipients[0], "smtp:gone:25")])
        )
    queue.add(batch, "", 0, 1_000_000.0)
    if held:
        queue.hold(held)
    queue.close()
    for id in large:
        (state / f"{id}.body").unlink()


def put_in_spool(state: Path, ids: Sequence[str], *, large: Sequence[str] = ()) -> None:
    """Promised, and never imported: their process was killed."""
    spool = Spool(state / "spool", resends=Resends(lambda: 1_000_000.0))
    for id in ids:
        draft = Draft(spool.drafts, id=id)
        draft.trace = b"Received: elsewhere\r\n"
        draft.append(content_of(id, LARGE if id in large else 0))
        ticket = spool.promise(draft, envelope())
        assert ticket.wait(10) and ticket.outcome is None
    spool.stop()
