"""A state directory that a stranger made: nothing in it leads anywhere, hangs anybody, or chokes the queue here."""

from __future__ import annotations

import errno
import json
import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from relay.disk import Disk
from relay.foreign import Unfit, envelope_fault
from relay.mail import Message, replace
from relay.queue_sqlite import SqliteQueue
from relay.remains import Remains
from relay.segment import Record
from relay.spool_files import Found
from relay.spool_remains import _message
from relay.view import Fault
from smtpd_core.wire.envelope import DeliverBy, Envelope, MailParameters, Origin, Recipient
from tests.support.elsewhere import envelope, put_in_queue, put_in_spool


@pytest.fixture
def old(tmp_path: Path) -> Path:
    put_in_queue(tmp_path / "old", ["Q1", "Q2"], large=["Q1"])
    put_in_spool(tmp_path / "old", ["S1"], large=["S1"])
    return tmp_path / "old"


def told(old: Path) -> tuple[list[str], list[str]]:
    """The ids that can be taken, and what is wrong with the others."""
    with Remains(old) as remains:
        several = list(remains)
    return [one.id for one in several if isinstance(one, Message)], [one.text for one in several if type(one) is Fault]


@pytest.mark.parametrize("name", ["queue.db", "queue.lock", "bodies", "spool", "spool/bodies"])
def test_a_link_leads_nowhere(name: str, old: Path) -> None:
    """The lock file that a link named was made, wherever that was; the queue of another server was taken."""
    elsewhere = old.with_name("elsewhere")
    (old / name).rename(elsewhere)
    (old / name).symlink_to(elsewhere)
    with pytest.raises(Unfit, match=f"old/{name} is a symbolic link where a f"):
        Remains(old)


def test_a_lock_that_is_a_link_makes_no_file(old: Path) -> None:
    (old / "queue.lock").unlink()
    (old / "queue.lock").symlink_to(old.with_name("made"))
    with pytest.raises(Unfit, match=r"queue\.lock is a symbolic link"):
        Remains(old)
    assert not old.with_name("made").exists()


@pytest.mark.parametrize("name", ["queue.db", "spool/AAAA-00000001.seg", "bodies/Q1"])
def test_a_pipe_hangs_nobody(name: str, old: Path) -> None:
    (old / name).unlink(missing_ok=True)
    os.mkfifo(old / name)
    if name.startswith("bodies"):
        with closing(sqlite3.connect(old / "queue.db")) as db:
            db.execute("UPDATE messages SET size = 0 WHERE id = 'Q1'")
            db.commit()
    (old.parent / "new").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "queue", "import", str(old), "--state", str(old.parent / "new")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode > 0
    assert "something else where a file is due" in done.stderr or "message Q1: its content is no file" in done.stdout


def test_no_file_from_elsewhere_becomes_a_message(old: Path) -> None:
    """A link of the right length in the place of a body was followed, and mailed to whom the envelope named."""
    secret = old.with_name("secret")
    for body in (old / "bodies" / "Q1", *(old / "spool" / "bodies").iterdir()):
        secret.write_bytes(body.read_bytes())
        body.unlink()
        body.symlink_to(secret)
    taken, faults = told(old)
    assert taken == ["Q2"]
    assert faults == ["message Q1: its content is a symbolic link", "message S1: its content is a symbolic link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_body_that_may_not_be_read_stops_no_other(old: Path) -> None:
    (old / "bodies" / "Q1").chmod(0)
    assert told(old) == (["Q2", "S1"], ["message Q1: its content can't be read: Permission denied"])


@pytest.mark.parametrize(
    "change",
    [
        "messages SET id = '../../x'",
        "messages SET id = '/etc/passwd', file = 1, content = NULL",
        "messages SET id = x'00'",
        "messages SET envelope = 'E'",
        "messages SET size = 'many'",
        "messages SET content = 'text', size = 4",
        "messages SET trace = 'text'",
        "recipients SET address = x'00', dsn = 'x'",
        "recipients SET dsn = x'00'",
        "recipients SET number = 'one'",
    ],
)
def test_a_row_that_no_queue_writes_is_named_and_the_others_come(change: str, old: Path) -> None:
    where = "id = 'Q2'" if change.startswith("messages") else "message = (SELECT seq FROM messages WHERE id = 'Q2')"
    with closing(sqlite3.connect(old / "queue.db")) as db:
        db.execute(f"UPDATE {change} WHERE {where}")
        db.commit()
    assert told(old) == (["Q1", "S1"], ["message number 2: it has an id or a value that no queue gives"])


ANY: Any = 5
CHOKING = [
    replace(envelope(), arrived=math.nan),
    replace(envelope(), arrived=math.inf),
    replace(envelope(), recipients=(Recipient(ANY),)),
    replace(envelope(), sender="\ud800"),
    replace(envelope(), origin=Origin(hello=ANY)),
    replace(envelope(), parameters=MailParameters(priority=10**30)),
    replace(envelope(), parameters=MailParameters(hold_for=10**400)),
    replace(envelope(), parameters=MailParameters(by=DeliverBy(10**400, "R"))),
    replace(envelope(), parameters=MailParameters(hold_for=cast(int, ""))),
    replace(envelope(), recipients=()),
]


@pytest.mark.parametrize("nothing", [{}, [], ""])
def test_a_time_to_deliver_by_that_is_none_is_told(nothing: Any) -> None:
    record = envelope().to_record()
    record["parameters"]["by"] = nothing
    assert envelope_fault(Envelope.from_record(record)) == f"{nothing!r} is no time to deliver by"


@pytest.mark.parametrize("choking", CHOKING)
def test_an_envelope_that_no_queue_could_store_is_left_behind(choking: Envelope, old: Path) -> None:
    """A queue here refused the whole batch that it came with, and the intake stood still with all that came after."""
    packed = json.dumps(choking.to_record()).encode("ascii")  # the one form that can hold them all
    queue = SqliteQueue(old / "queue.db")
    queue.change(lambda db: db.execute("UPDATE messages SET envelope = ? WHERE id = 'Q2'", (packed,)))
    queue.close()
    taken, faults = told(old)
    assert taken == ["Q1", "S1"]
    assert faults[0].startswith("message Q2: its envelope can't be read: ")
    record = Record("S2", packed, b"", 1, b"x", bytes(16), 0, 0)
    assert isinstance(_message(str(old), Found("A", 1, "", None), record), Fault)


class ReadOnly(Disk):
    def lock(self, path: str) -> int | None:
        raise OSError(errno.EROFS, "Read-only file system", path)


def test_a_place_that_cant_be_written_is_refused_with_what_helps(old: Path) -> None:
    with pytest.raises(Unfit, match="Read-only file system; copy it to where it can be written, and import the copy"):
        Remains(old, ReadOnly())
