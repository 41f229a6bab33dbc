"""What a queue file gives back when it is opened again."""

from __future__ import annotations

from pathlib import Path

from relay.mail import Body, Message, Stop
from relay.queue_sqlite import SqliteQueue
from smtpd_core.wire.envelope import Envelope, Recipient

NOW = 1_000_000.0


def test_claims_of_a_process_that_died_are_due_at_once(tmp_path: Path) -> None:
    """They waited for the end of a lease that nobody held any more, an hour."""
    path = tmp_path / "queue.db"
    ann = Recipient("ann@here.test")
    queue = SqliteQueue(path)
    message = Message("M1", Envelope("bob@far.test", (ann,), arrived=NOW), b"", Body(5, b"hello"))
    queue.add([(message, [Stop(0, ann, "maildir:x")])], "", 0, NOW)
    assert len(queue.claim("maildir:x", 1, NOW, 3600.0)) == 1
    assert queue.due(NOW) == []
    queue.close()  # what a kill leaves is the same: the claim is in the file

    queue = SqliteQueue(path)
    assert queue.due(NOW) == [("maildir:x", 1)]
    parcel = queue.claim("maildir:x", 1, NOW, 3600.0)[0]
    assert parcel.attempt == 2, "so that the agent looks before it writes"
    queue.close()
