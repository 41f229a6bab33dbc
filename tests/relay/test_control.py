"""Looking at a queue beside its holder, and orders over the control socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.control import NAME, ControlSocket, ask
from relay.mail import Body, Message, Outcome, Recipient, Result, Settlement, Stop
from relay.queue_reader import SqliteReader
from relay.queue_sqlite import SqliteQueue
from relay.view import Filter, Status
from smtpd_core.wire.envelope import Envelope, MailParameters, Origin

NOW = 1_000_000.0
LOCAL, REMOTE = "maildir:m", "mx:example.test"


def message(
    id: str, to: str, destination: str, sender: str = "bob@here.test", age: float = 0.0
) -> tuple[Message, list[Stop]]:
    envelope = Envelope(
        sender, (Recipient(to),), MailParameters(ret="HDRS"), Origin("192.0.2.1", 1234, "probe", "ESMTP"), NOW - age
    )
    return Message(id, envelope, b"Received: x\r\n", Body(4, b"mail")), [Stop(0, envelope.recipients[0], destination)]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    made = SqliteQueue(tmp_path / "queue.db")
    made.add(
        [
            message("M1", "ann@example.test", REMOTE),
            message("M2", "eve@example.test", REMOTE, sender="", age=100),
            message("M3", "joe@here.test", LOCAL, sender="Carl@There.test", age=5000),
        ],
        "segment",
        1,
        NOW,
    )
    yield made
    made.close()


@pytest.fixture
def reader(queue: SqliteQueue, tmp_path: Path) -> Iterator[SqliteReader]:
    made = SqliteReader(tmp_path / "queue.db")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "M1 M2 M3"),
        (Filter(limit=2), "M1 M2"),
        (Filter(destination=REMOTE), "M1 M2"),
        (Filter(destination="example.test"), "M1 M2"),
        (Filter(destination="nowhere.test"), ""),
        (Filter(sender="carl@there.test"), "M3"),
        (Filter(sender="@there.test"), "M3"),
        (Filter(sender="<>"), "M2"),
        (Filter(recipient="@example.test", sender="@here.test"), "M1"),
        (Filter(older_than=50), "M2 M3"),
        (Filter(older_than=50, younger_than=200), "M2"),
        (Filter(destination=REMOTE, older_than=50), "M2"),
        (Filter(status=Status.WAITING), "M1 M2 M3"),
        (Filter(status=Status.HELD), ""),
    ],
)
def test_a_list_holds_what_fits_all_that_was_asked(reader: SqliteReader, wanted: Filter, found: str) -> None:
    assert [one.id for one in reader.messages(wanted, NOW)] == found.split()


def test_a_recipients_status_follows_what_happens_to_it(queue: SqliteQueue, reader: SqliteReader) -> None:
    def status(id: str) -> str:
        return reader.show(id, NOW).listed.recipients[0].status

    assert status("M1") == "waiting"
    parcels = queue.claim(REMOTE, 10, NOW, 60)
    assert status("M1") == "active"
    outcome = Outcome(0, Result.DEFERRED, 451, "4.7.1", "greylisted", "mx1.example.test [192.0.2.9]", NOW, NOW + 300)
    queue.settle_all([Settlement(one, (outcome,)) for one in parcels], NOW)
    assert status("M1") == "deferred"
    queue.hold(["M1"])
    assert status("M1") == "held"


def test_the_story_of_a_message_is_whole(queue: SqliteQueue, reader: SqliteReader) -> None:
    for turn in range(3):
        now = NOW + 300 * turn
        (first, *_) = queue.claim(REMOTE, 1, now, 60)
        outcome = Outcome(0, Result.DEFERRED, 451, "4.7.1", f"greylisted {turn}", "mx1 [192.0.2.9]", now, now + 1)
        queue.settle(first, [outcome], [], now)
        queue.hold(["M2"])
    story = reader.show("M1", NOW)
    assert story.envelope.origin.hello == "probe"
    assert [one.text for one in story.tries] == ["greylisted 0", "greylisted 1", "greylisted 2"]
    assert story.listed.recipients[0].attempts == 3
    assert story.listed.recipients[0].reason == "mx1 [192.0.2.9]: 451 4.7.1 greylisted 2"
    with pytest.raises(KeyError):
        reader.show("nobody", NOW)


def test_totals_count_by_status_and_destination(queue: SqliteQueue, reader: SqliteReader) -> None:
    queue.hold(["M3"])
    totals = reader.totals(NOW)
    assert (totals.messages, totals.bytes, totals.oldest) == (3, 12, NOW - 5000)
    assert totals.recipients == {"waiting": 2, "held": 1}
    assert totals.destinations == ((REMOTE, 2, NOW),)


def test_a_check_names_what_is_wrong(queue: SqliteQueue, reader: SqliteReader) -> None:
    assert reader.faults() == []
    queue.change(lambda db: db.execute("UPDATE messages SET envelope = x'00' WHERE id = 'M1'"))
    queue.change(lambda db: db.execute("UPDATE messages SET file = 1 WHERE id = 'M2'"))
    queue.change(lambda db: db.execute("UPDATE messages SET content = x'00' WHERE id = 'M3'"))
    faults = "\n".join(one.text for one in reader.faults())
    assert "M1: its envelope can't be read" in faults
    assert "M2: its body is missing" in faults
    assert "M3: its content has 1 bytes instead of 4" in faults


def test_orders_reach_the_holder_of_the_queue(queue: SqliteQueue, tmp_path: Path) -> None:
    woken = []
    control = ControlSocket(tmp_path, queue, lambda: woken.append(True))
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert ask(tmp_path, "hold", ["M1", "M3", "nobody"]) == 2
    assert [one.message_id for one in queue.claim(REMOTE, 9, NOW, 60)] == ["M2"]
    assert ask(tmp_path, "release", ["M1"]) == 1
    assert ask(tmp_path, "delete", ["M2", "M3"]) == 2
    assert ask(tmp_path, "retry", ["M1"]) == 0
    assert len(woken) == 3
    with pytest.raises(ValueError, match="orders are hold"):
        ask(tmp_path, "settle", ["M1"])
    assert control.stop(5)
    assert not (tmp_path / NAME).exists()
    with pytest.raises(FileNotFoundError):
        ask(tmp_path, "hold", [])


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    state = tmp_path / ("x" * 100) / ("y" * 50)
    state.mkdir(parents=True)
    queue = SqliteQueue(state / "queue.db")
    control = ControlSocket(state, queue)
    assert ask(state, "hold", ["M1"]) == 0
    assert control.stop(5)
    queue.close()


@pytest.mark.parametrize(
    "line", [b"", b"x\n", b"[]\n", b'{"order": 1, "ids": 2}\n', b'{"order": "hold", "ids": [1]}\n']
)
def test_nonsense_is_answered_and_harms_nobody(line: bytes, queue: SqliteQueue, tmp_path: Path) -> None:
    control = ControlSocket(tmp_path, queue)
    with socket.socket(socket.AF_UNIX) as probe:
        folder = os.open(tmp_path, os.O_RDONLY)
        probe.connect(f"/proc/self/fd/{folder}/{NAME}")
        os.close(folder)
        probe.sendall(line)
        probe.shutdown(socket.SHUT_WR)
        assert "error" in json.loads(probe.recv(4096))
    assert ask(tmp_path, "hold", ["M1"]) == 1
    assert control.stop(5)


def test_very_many_ids_are_one_order_for_the_operator(queue: SqliteQueue, tmp_path: Path) -> None:
    """A list longer than one order was cut, and refused as nonsense."""
    control = ControlSocket(tmp_path, queue)
    try:
        ids = [f"no-message-of-this-queue-{number:06d}" for number in range(150_000)]
        assert ask(tmp_path, "hold", [*ids, "M1"]) == 1
        assert ask(tmp_path, "hold", []) == 0
    finally:
        assert control.stop(5)


def test_deeply_nested_nonsense_is_answered_too(queue: SqliteQueue, tmp_path: Path) -> None:
    control = ControlSocket(tmp_path, queue)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / NAME))
            connection.sendall(b"[" * 200_000 + b"\n")
            assert b"error" in connection.recv(1000)
        assert ask(tmp_path, "hold", ["M1"]) == 1
    finally:
        assert control.stop(5)
