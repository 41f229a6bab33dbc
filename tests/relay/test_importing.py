"""Mail from another state directory: what is brought along, and what each death on the way leaves."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay import importing as importing_module
from relay.disk import Disk
from relay.importing import Importing, ImportUnderWay
from relay.intake import Intake
from relay.mail import Body, Message, Outcome, Recipient, Result, Stop, replace
from relay.queue import QueueIsHeld, QueueUnreadable
from relay.queue_memory import MemoryQueue
from relay.queue_sqlite import SqliteQueue
from relay.remains import Remains
from relay.spool import Spool
from relay.view import Fault
from smtpd_core.wire.envelope import DeliverBy, MailParameters
from tests.support.elsewhere import LARGE, content_of, envelope, put_in_queue, put_in_spool
from tests.support.spooling import to_one_maildir

NOW = 2_000_000.0
CALLS = ("create", "append", "sync", "sync_directory", "link", "rename", "remove")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Five messages in the queue, one of them large, one held; two in the spool, one of them large."""
    put_in_queue(tmp_path / "old", ["Q1", "Q2", "Q3", "Q4", "Q5"], large=["Q2"], held=["Q3"])
    put_in_spool(tmp_path / "old", ["S1", "S2"], large=["S2"])
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


def bring(old: Path, new: Path, disk: Disk | None = None) -> list[str]:
    """Bring all over; the ids that were taken."""
    taken = []
    with Remains(old) as remains, Importing(new, lambda: None, disk=disk) as importing:
        for one in remains:
            assert isinstance(one, Message), one
            if not importing.has(one.id):
                assert importing.take(one)
                taken.append(one.id)
        importing.hand_over()
    return taken


def found(new: Path) -> list[tuple[Message, bytes]]:
    """What the server there finds in its spool; with what it delivers of each."""
    messages: list[Message] = []

    class Told(MemoryQueue):
        def add(self, batch: Any, source: str, offset: int, now: float) -> None:
            super().add(batch, source, offset, now)
            messages.extend(message for message, _ in batch)

    queue = Told()
    Intake(new / "spool", queue, to_one_maildir, clock=lambda: NOW).import_all()
    contents = []
    for message in messages:
        with queue.open_body(message.id) as body:
            contents.append(body.read())
    return list(zip(messages, contents, strict=True))


def tree(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.suffix != ".lock" and not path.name.endswith(("-shm", "-wal"))
    }


def test_everything_arrives_under_its_id_and_nothing_leaves_its_place(old: Path, new: Path) -> None:
    before = tree(old)
    assert bring(old, new) == ["Q1", "Q2", "Q3", "Q4", "Q5", "S1", "S2"]
    assert tree(old) == before
    arrived = {message.id: (message, content) for message, content in found(new)}
    assert list(arrived) == ["Q1", "Q2", "Q3", "Q4", "Q5", "S1", "S2"]
    for id, (message, content) in arrived.items():
        assert content == content_of(id, LARGE if id in ("Q2", "S2") else 0)
        assert (message.envelope, message.trace) == (envelope(), b"Received: elsewhere\r\n")
        assert message.is_held is (id == "Q3")
        assert bool(message.resend_key) is id.startswith("S")
    assert not list((new / "spool" / "bodies").iterdir())


def test_what_was_brought_once_is_never_taken_again_delivered_or_not(old: Path, new: Path) -> None:
    bring(old, new)
    assert bring(old, new) == []
    assert len(found(new)) == 7  # and these are settled now
    assert bring(old, new) == []
    assert found(new) == []
    put_in_spool(old, ["S3"])
    assert bring(old, new) == ["S3"]


class Dead(BaseException):
    """The process ends here."""


class MortalDisk(Disk):
    """Dies before its n-th step, or behind it."""

    def __init__(self, n: int, *, behind: bool) -> None:
        self.left, self._behind = n, behind
        for name in CALLS:
            setattr(self, name, self._mortal(getattr(super(), name)))

    def _mortal(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any) -> Any:
            self.left -= 1
            if self.left < 0 or (self.left == 0 and not self._behind):
                raise Dead
            result = call(*words)
            if self.left == 0:
                raise Dead
            return result

        return step


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_an_import_that_dies_at_any_step_and_is_made_again_brings_everything_once(
    behind: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server delivers what came before the second one begins."""
    monkeypatch.setattr(importing_module, "MESSAGES", 2)
    old = tmp_path / "old"
    put_in_queue(old, ["Q1", "Q2", "Q3"], large=["Q2"])
    put_in_spool(old, ["S1", "S2"], large=["S2"])
    steps = 0
    died = True
    while died:
        steps += 1
        new = tmp_path / f"new{steps}"
        new.mkdir()
        try:
            bring(old, new, MortalDisk(steps, behind=behind))
            died = False
        except Dead:
            pass
        delivered = found(new)
        bring(old, new)
        delivered += found(new)
        assert Counter(message.id for message, _ in delivered) == Counter(["Q1", "Q2", "Q3", "S1", "S2"]), steps
        for message, content in delivered:
            assert content == content_of(message.id, LARGE if message.id in ("Q2", "S2") else 0)
        left = [path.name for path in (new / "spool").rglob("*") if path.is_file()]
        assert left == ["lock"], steps
    assert steps > 30


def test_only_open_recipients_come_along_each_as_aliases_left_it(tmp_path: Path, new: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    queue = SqliteQueue(old / "queue.db")
    asked = replace(
        envelope("done@example.test", "list@here.test", "open@example.test"),
        parameters=MailParameters(priority=3, by=DeliverBy(900_000, "N"), ret="HDRS", hold_until="2033-05-18T03:33Z"),
    )
    member = Recipient("ann@far.test", ("FAILURE",), "rfc822;list@here.test")
    stops = [
        Stop(0, asked.recipients[0], "smtp:a:25"),
        Stop(1, asked.recipients[2], "smtp:b:25"),
        Stop(2, member, "smtp:b:25"),
        Stop(3, asked.recipients[1], "expand:2"),
    ]
    message = Message("M1", asked, b"", Body(2, b"hi"), resend_key="0f" * 16)
    queue.add([(message, stops)], "", 0, NOW)
    (parcel,) = queue.claim("smtp:a:25", 9, 9e9, 60)
    queue.settle(parcel, [Outcome(0, Result.RELAYED)], [], NOW)
    queue.close()
    bring(old, new)
    ((brought, content),) = found(new)
    # The second stop lies at the first recipient's number no more.
    assert [one.address for one in brought.envelope.recipients] == ["open@example.test", "ann@far.test"]
    assert brought.envelope == replace(asked, recipients=(asked.recipients[2], member))
    assert (brought.resend_key, content, brought.was_tried) == ("0f" * 16, b"hi", False)


def test_what_may_have_been_delivered_already_is_looked_for_first(tmp_path: Path, new: Path) -> None:
    old = tmp_path / "old"
    put_in_queue(old, ["Q1"])
    queue = SqliteQueue(old / "queue.db")
    queue.claim("smtp:gone:25", 1, NOW, 60)  # and dies
    queue.close()
    bring(old, new)
    queue = SqliteQueue(new / "queue.db")
    Intake(new / "spool", queue, to_one_maildir, clock=lambda: NOW).import_all()
    (parcel,) = queue.claim("maildir:m", 1, NOW, 60)
    queue.close()
    assert parcel.attempt == 2


def test_what_is_damaged_is_named_and_all_else_comes(old: Path) -> None:
    (old / "bodies" / "Q2").unlink()
    (segment,) = (old / "spool").glob("*.seg")
    (body,) = (old / "spool" / "bodies").iterdir()
    body.write_bytes(b"short")
    with Remains(old) as remains:
        several = list(remains)
    assert [one.id for one in several if isinstance(one, Message)] == ["Q1", "Q3", "Q4", "Q5", "S1"]
    told = [one.text for one in several if isinstance(one, Fault)]
    assert told[0] == "message Q2: its content is missing"
    assert told[1].startswith("message S2: its content has 5 bytes instead of 300")
    data = bytearray(segment.read_bytes())
    data[120] ^= 0xFF
    segment.write_bytes(data)
    with Remains(old) as remains:
        told = [one.text for one in remains if isinstance(one, Fault)]
    assert "are damaged" in told[1]


def test_what_the_queue_has_of_a_segment_is_not_found_in_the_spool_again(tmp_path: Path) -> None:
    """It may be settled by now."""
    old = tmp_path / "old"
    put_in_spool(old, ["S1", "S2"])
    queue = SqliteQueue(old / "queue.db")
    segments = {path: path.read_bytes() for path in (old / "spool").glob("*.seg")}
    Intake(old / "spool", queue, to_one_maildir, clock=lambda: NOW).import_all()
    (path, data), *_ = segments.items()
    queue.add([], path.stem, len(data), NOW)
    queue.delete(["S1"])
    queue.close()
    path.write_bytes(data)  # it died before it removed the segment
    with Remains(old) as remains:
        assert [one.id for one in remains if one is not None] == ["S2"]


def test_a_place_that_cant_be_taken_from_is_refused(old: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has neither queue\.db nor spool/"):
        Remains(tmp_path)
    holder = SqliteQueue(old / "queue.db")
    with pytest.raises(QueueIsHeld, match="in use by a running server"):
        Remains(old)
    holder.close()
    spool = Spool(old / "spool")
    with pytest.raises(QueueIsHeld, match="which spools"):
        Remains(old)
    spool.stop()
    with Remains(old), pytest.raises(QueueIsHeld):
        SqliteQueue(old / "queue.db")
    queue = SqliteQueue(old / "queue.db")
    queue.change(lambda db: db.execute("PRAGMA user_version = 99"))
    queue.close()
    with pytest.raises(QueueUnreadable, match="schema version 99"):
        Remains(old)


def test_a_place_that_was_itself_being_brought_to_is_refused_until_that_is_finished(old: Path, new: Path) -> None:
    """What was promised there may lie neither in its queue nor in its spool."""
    with pytest.raises(Dead):
        bring(old, new, MortalDisk(12, behind=True))
    with pytest.raises(QueueIsHeld, match="was not finished"):
        Remains(new)
    bring(old, new)
    with Remains(new) as remains:
        assert len(list(remains)) == 7


def test_what_was_brought_away_and_back_lies_in_the_spool_once(old: Path, new: Path) -> None:
    """The server of the first place would have imported it from both segments, and delivered in between."""
    bring(old, new)
    put_in_spool(new, ["N1"])
    back = bring(new, old)
    assert "N1" in back and not {"S1", "S2"} & set(back)


def test_what_lies_in_a_place_twice_is_brought_once(tmp_path: Path, new: Path) -> None:
    """Two segments with the same message are what an import back and forth once left."""
    for _ in range(2):
        put_in_spool(tmp_path / "old", ["S1"])
    assert bring(tmp_path / "old", new) == ["S1"]


class FullDisk(Disk):
    """No room for a body, from the second one on."""

    bodies = 0

    def link(self, source: int | str, path: str) -> None:
        if "bodies" in path:
            self.bodies += 1
            if self.bodies == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        super().link(source, path)


def test_an_import_that_fails_leaves_the_disk_to_the_server(tmp_path: Path, new: Path) -> None:
    """What it had not promised once lay there until the next import, and the disk stayed full."""
    put_in_queue(tmp_path / "old", ["Q1", "Q2", "Q3"], large=["Q1", "Q2", "Q3"])
    with pytest.raises(OSError, match="No space left"):
        bring(tmp_path / "old", new, FullDisk())
    left = [str(path.relative_to(new / "spool")) for path in (new / "spool").rglob("*") if path.is_file()]
    assert left == ["importing/lock"]
    assert bring(tmp_path / "old", new) == ["Q1", "Q2", "Q3"]


class NearlyFull(Disk):
    left = 2

    def free(self, path: str) -> int:
        self.left -= 1
        return importing_module.FLOOR - (self.left < 1)


def test_the_server_keeps_room_to_go_on_with(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue had none to take over what was brought, and the disk stayed full for good."""
    monkeypatch.setattr(importing_module, "MESSAGES", 2)
    with pytest.raises(OSError, match="only 127 MiB are free there, and 128 MiB stay free for the server"):
        bring(old, new, NearlyFull())
    assert [message.id for message, _ in found(new)] == ["Q1", "Q2"]


def test_large_bodies_are_handed_over_before_they_fill_the_disk(
    tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only envelopes were counted: five hundred bodies of any size were copied before a server got the first."""
    monkeypatch.setattr(importing_module, "BYTES", 2 * LARGE)
    ids = ["Q1", "Q2", "Q3", "Q4"]
    put_in_queue(tmp_path / "old", ids, large=ids)
    bring(tmp_path / "old", new)
    assert len(list((new / "spool").glob("*.seg"))) == 2


def test_a_ledger_that_cant_be_read_is_named(old: Path, new: Path) -> None:
    bring(old, new)
    (ids,) = (new / "imported").iterdir()
    ids.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=rf"{ids.name} is damaged, so it can't be told"):
        bring(old, new)


def test_two_imports_into_one_place_are_refused(new: Path) -> None:
    with Importing(new, lambda: None), pytest.raises(ImportUnderWay, match="under way"):
        Importing(new, lambda: None)
    Importing(new, lambda: None).close()


def test_a_body_that_cant_be_linked_is_copied(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(self: Disk, source: int | str, path: str) -> None:
        raise PermissionError(1, "another's file")

    monkeypatch.setattr(Disk, "link", no_link)
    bring(old, new)
    monkeypatch.undo()
    assert sum(os.path.getsize(path) for path in (new / "spool" / "bodies").iterdir()) > 2 * LARGE
    assert {message.id: content for message, content in found(new)}["Q2"] == content_of("Q2", LARGE)
