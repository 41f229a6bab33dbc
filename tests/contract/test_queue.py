"""The contract of a queue, run on every implementation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.mail import Body, Message, Outcome, Parcel, Recipient, Result, Settlement, Stop, replace
from relay.queue import Queue
from relay.queue_memory import MemoryQueue
from relay.queue_sqlite import SqliteQueue
from smtpd_core.wire.envelope import DeliverBy, Envelope, MailParameters, Origin

NOW = 1_000_000.0
LEASE = 60.0
LOCAL, REMOTE = "maildir:/m/{user}", "mx:example.test"


def _sqlite(folder: Path) -> Queue:
    return SqliteQueue(folder / "queue.db")


def _memory(folder: Path) -> Queue:
    return MemoryQueue()


MAKERS: dict[str, Callable[[Path], Queue]] = {"memory": _memory, "sqlite": _sqlite}


@pytest.fixture(params=MAKERS)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


def message(
    id: str = "M1",
    *to: str,
    content: bytes = b"hello\r\n",
    destination: str = LOCAL,
    path: str = "",
    arrived: float = NOW,
    **parameters: Any,
) -> tuple[Message, list[Stop]]:
    """A message to `to` (default one recipient), all for one destination."""
    recipients = tuple(Recipient(address) for address in to or ("ann@example.test",))
    envelope = Envelope(
        "bob@example.test", recipients, MailParameters(**parameters), Origin("192.0.2.1", 1234, "probe"), arrived
    )
    body = Body(os.path.getsize(path), None, path) if path else Body(len(content), content)
    return Message(id, envelope, b"Received: by mx\r\n", body), [
        Stop(number, one, destination) for number, one in enumerate(recipients)
    ]


def claim_one(queue: Queue, destination: str = LOCAL, now: float = NOW) -> Parcel:
    (parcel,) = queue.claim(destination, 10, now, LEASE)
    return parcel


def outcomes(parcel: Parcel, result: Result, next_attempt: float = 0.0) -> list[Outcome]:
    return [Outcome(one.number, result, 250, at=NOW, next_attempt=next_attempt) for one in parcel.stops]


def test_a_message_comes_out_as_it_went_in(queue: Queue) -> None:
    sent, stops = message(
        "M1", "ann@example.test", "jürgen@example.test", content=b"a\x00\xff\r\n" * 100,
        size=700, body="8BITMIME", smtputf8=True, ret="HDRS", envid="e 1", auth="", priority=3,
        by=DeliverBy(900_000, "N", True), require_tls=True,
    )  # fmt: skip
    queue.add([(sent, stops)], "segment", 10, NOW)
    parcel = claim_one(queue)
    assert (parcel.message_id, parcel.envelope, parcel.trace) == ("M1", sent.envelope, sent.trace)
    assert parcel.stops == tuple(stops)
    assert (parcel.size, parcel.destination, parcel.attempt) == (500, LOCAL, 1)
    with queue.open_body("M1") as body:
        assert body.read() == sent.body.content
        body.seek(2)
        assert body.read(1) == b"\xff"


def test_a_message_from_another_queue_stays_held_and_counts_as_tried(queue: Queue) -> None:
    sent, stops = message("M1")
    queue.add([(replace(sent, is_held=True, was_tried=True), stops)], "segment", 10, NOW)
    assert queue.claim(LOCAL, 10, NOW, LEASE) == []
    assert (queue.due(NOW), queue.next_due()) == ([], None)
    assert queue.let_go(["M1"], NOW) == 1
    assert claim_one(queue).attempt == 2


def test_a_large_body_is_a_file_that_outlives_the_name_it_came_by(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(os.urandom(300_000))
    content = path.read_bytes()
    queue.add([message(path=str(path))], "segment", 10, NOW)
    path.unlink()
    with queue.open_body("M1") as body:
        assert body.read() == content
    queue.settle(parcel := claim_one(queue), outcomes(parcel, Result.DELIVERED), [], NOW)
    with pytest.raises(KeyError):
        queue.open_body("M1")
    assert not (tmp_path / "bodies").exists() or not list((tmp_path / "bodies").iterdir())


def test_the_offset_of_a_source_moves_with_what_is_added(queue: Queue) -> None:
    assert queue.offset("segment") == 0
    queue.add([message("M1")], "segment", 10, NOW)
    queue.add([], "segment", 20, NOW)
    assert queue.offset("segment") == 20
    queue.forget_source("segment")
    assert queue.offset("segment") == 0


def test_a_message_added_twice_is_stored_once(queue: Queue) -> None:
    queue.add([message("M1"), message("M1")], "segment", 10, NOW)
    queue.add([message("M1")], "another", 10, NOW)
    assert len(queue.claim(LOCAL, 10, NOW, LEASE)) == 1


def test_recipients_with_one_destination_share_a_parcel_and_keep_their_numbers(queue: Queue) -> None:
    sent, _ = message("M1", "a@x.test", "b@y.test", "c@x.test")
    stops = [
        Stop(n, one, REMOTE if "x.test" in one.address else LOCAL) for n, one in enumerate(sent.envelope.recipients)
    ]
    queue.add([(sent, stops)], "segment", 10, NOW)
    assert [one.number for one in claim_one(queue, REMOTE).stops] == [0, 2]
    assert [one.number for one in claim_one(queue, LOCAL).stops] == [1]
    assert queue.claim(REMOTE, 10, NOW, LEASE) == []


def test_a_recipient_made_by_an_alias_brings_its_own_parameters(queue: Queue) -> None:
    sent, _ = message("M1", "list@x.test")
    alias = Recipient("ann@y.test", ("FAILURE", "DELAY"), "rfc822;list@x.test")
    queue.add([(sent, [Stop(0, alias, LOCAL), Stop(1, sent.envelope.recipients[0], LOCAL)])], "s", 1, NOW)
    assert [one.recipient for one in claim_one(queue).stops] == [alias, sent.envelope.recipients[0]]


def test_due_names_destinations_longest_waiting_first(queue: Queue) -> None:
    assert queue.next_due() is None
    queue.add([message("M1", destination=LOCAL)], "s", 1, NOW + 5)
    queue.add([message("M2", destination=REMOTE), message("M3", destination=REMOTE)], "s", 2, NOW)
    assert queue.due(NOW - 1) == []
    assert queue.due(NOW) == [(REMOTE, 2)]
    assert queue.due(NOW + 5) == [(REMOTE, 2), (LOCAL, 1)]
    assert queue.due(NOW + 5, limit=1) == [(REMOTE, 2)]
    assert queue.next_due() == NOW


def test_room_bounds_a_claim_in_messages(queue: Queue) -> None:
    queue.add([message(f"M{n}", *(f"u{m}@x.test" for m in range(30))) for n in range(9)], "s", 1, NOW)
    first = queue.claim(LOCAL, 4, NOW, LEASE)
    rest = queue.claim(LOCAL, 100, NOW, LEASE)
    assert (len(first), len(rest)) == (4, 5)
    assert all(len(one.stops) == 30 for one in first + rest)
    assert len({one.message_id for one in first + rest}) == 9


def test_a_claim_holds_until_its_lease_ends_and_then_counts_as_an_attempt(queue: Queue) -> None:
    queue.add([message()], "s", 1, NOW)
    first = claim_one(queue)
    assert queue.claim(LOCAL, 10, NOW + LEASE - 1, LEASE) == []
    assert queue.due(NOW + LEASE - 1) == []
    assert queue.next_due() == NOW + LEASE
    second = claim_one(queue, now=NOW + LEASE)
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.stops[0].attempts == 0


def test_a_lost_lease_can_neither_settle_nor_extend(queue: Queue) -> None:
    queue.add([message()], "s", 1, NOW)
    late = claim_one(queue)
    holder = claim_one(queue, now=NOW + LEASE)
    bounce = message("B1", "bob@example.test", destination=REMOTE)
    assert queue.settle(late, outcomes(late, Result.FAILED), [bounce], NOW) is False
    assert queue.extend(late, NOW, LEASE) is False
    queue.release(late, NOW)
    assert queue.claim(REMOTE, 10, NOW + 2, LEASE) == []
    assert queue.extend(holder, NOW + 100, LEASE) is True
    assert queue.next_due() == NOW + 100 + LEASE
    assert queue.settle(holder, outcomes(holder, Result.DELIVERED), [], NOW) is True
    assert queue.settle(holder, outcomes(holder, Result.DELIVERED), [], NOW) is False
    assert queue.next_due() is None


def test_a_released_claim_is_due_at_once(queue: Queue) -> None:
    queue.add([message()], "s", 1, NOW)
    queue.release(claim_one(queue), NOW + 1)
    assert queue.due(NOW + 1) == [(LOCAL, 1)]
    assert claim_one(queue, now=NOW + 1).stops[0].attempts == 0


def test_a_deferred_recipient_waits_for_its_time_and_final_ones_are_never_tried_again(queue: Queue) -> None:
    queue.add([message("M1", "a@x.test", "b@x.test", "c@x.test")], "s", 1, NOW)
    parcel = claim_one(queue)
    ends = [
        Outcome(0, Result.DELIVERED, at=NOW),
        Outcome(1, Result.DEFERRED, 451, next_attempt=NOW + 300, at=NOW),
        Outcome(2, Result.FAILED, 550, at=NOW),
    ]
    assert queue.settle(parcel, ends, [], NOW) is True
    assert queue.next_due() == NOW + 300
    again = claim_one(queue, now=NOW + 300)
    assert [(one.number, one.attempts) for one in again.stops] == [(1, 1)]
    assert queue.settle(again, outcomes(again, Result.EXPIRED), [], NOW + 300) is True
    assert queue.next_due() is None
    with pytest.raises(KeyError):
        queue.open_body("M1")


def test_a_bounce_is_added_in_the_same_step(queue: Queue) -> None:
    queue.add([message("M1", destination=REMOTE)], "s", 1, NOW)
    parcel = claim_one(queue, REMOTE)
    bounce = message("B1", "bob@example.test", content=b"your mail failed\r\n")
    assert queue.settle(parcel, outcomes(parcel, Result.FAILED), [bounce], NOW) is True
    assert claim_one(queue).message_id == "B1"
    assert queue.claim(REMOTE, 10, NOW + 9e6, LEASE) == []


def test_several_parcels_settle_in_one_step_each_by_its_own_lease(queue: Queue) -> None:
    queue.add([message(f"M{n}") for n in range(3)], "s", 1, NOW)
    parcels = queue.claim(LOCAL, 10, NOW, LEASE)
    queue.settle(parcels[1], outcomes(parcels[1], Result.DELIVERED), [], NOW)
    reports = [Settlement(one, tuple(outcomes(one, Result.DELIVERED))) for one in parcels]
    assert queue.settle_all(reports, NOW) == [True, False, True]
    assert queue.next_due() is None


@pytest.mark.parametrize(
    ("parameters", "first"),
    [
        ({"hold_for": 500}, NOW + 500),
        ({"hold_until": "1970-01-12T14:00:00Z"}, 1_000_800.0),
        ({"hold_until": "1970-01-12T15:00:00+01:00"}, 1_000_800.0),
        ({"hold_until": "1970-01-01T00:00:00Z"}, NOW),
        ({}, NOW),
    ],
)
def test_futurerelease_decides_the_first_attempt(queue: Queue, parameters: dict[str, Any], first: float) -> None:
    queue.add([message(**parameters)], "s", 1, NOW)
    assert queue.next_due() == first


def test_nothing_is_put_off_beyond_its_deliverby_deadline(queue: Queue) -> None:
    queue.add([message(by=DeliverBy(100, "R"))], "s", 1, NOW)
    parcel = claim_one(queue)
    queue.settle(parcel, outcomes(parcel, Result.DEFERRED, NOW + 300), [], NOW)
    assert queue.next_due() == NOW + 100
    parcel = claim_one(queue, now=NOW + 100)
    queue.settle(parcel, outcomes(parcel, Result.DEFERRED, NOW + 900), [], NOW + 100)
    assert queue.next_due() == NOW + 900


def test_urgent_mail_goes_first_and_then_the_longest_waiting(queue: Queue) -> None:
    for n, priority in enumerate([None, -3, 5, 0, 5]):
        queue.add([message(f"M{n}", priority=priority)], "s", n, NOW + n)
    claimed = [queue.claim(LOCAL, 1, NOW + 10, LEASE)[0].message_id for _ in range(5)]
    assert claimed == ["M2", "M4", "M0", "M3", "M1"]


def test_held_mail_is_not_tried_until_it_is_let_go(queue: Queue) -> None:
    queue.add([message("M1"), message("M2")], "s", 1, NOW)
    assert queue.hold(["M1", "nobody"]) == 1
    assert [one.message_id for one in queue.claim(LOCAL, 10, NOW, LEASE)] == ["M2"]
    assert queue.let_go(["M1", "M2"], NOW + 7) == 1
    assert claim_one(queue, now=NOW + 7).message_id == "M1"


def test_mail_held_while_under_way_stays_held_after_it_is_deferred(queue: Queue) -> None:
    queue.add([message("M1")], "s", 1, NOW)
    parcel = claim_one(queue)
    assert queue.hold(["M1"]) == 1
    assert queue.settle(parcel, outcomes(parcel, Result.DEFERRED, NOW + 1), [], NOW) is True
    assert queue.next_due() is None
    assert queue.let_go(["M1"], NOW + 2) == 1
    assert claim_one(queue, now=NOW + 2).message_id == "M1"


def test_mail_held_and_let_go_while_under_way_is_not_claimed_twice(queue: Queue) -> None:
    """It was due at once, and a second courier delivered it beside the first."""
    queue.add([message()], "seg", 1, NOW)
    (parcel,) = queue.claim(LOCAL, 1, NOW, LEASE)
    assert queue.hold(["M1"]) == 1
    assert queue.let_go(["M1"], NOW + 1) == 1
    assert queue.claim(LOCAL, 1, NOW + 2, LEASE) == []
    assert queue.settle(parcel, [Outcome(0, Result.DEFERRED, 450, "4.2.0", "busy", next_attempt=NOW + 9)], [], NOW + 3)
    assert queue.claim(LOCAL, 1, NOW + 8, LEASE) == []
    assert len(queue.claim(LOCAL, 1, NOW + 9, LEASE)) == 1


def test_retry_brings_deferred_mail_forward_and_leaves_claims_alone(queue: Queue) -> None:
    queue.add([message("M1"), message("M2")], "s", 1, NOW)
    first, second = sorted(queue.claim(LOCAL, 10, NOW, LEASE), key=lambda one: one.message_id)
    queue.settle(first, outcomes(first, Result.DEFERRED, NOW + 3600), [], NOW)
    assert queue.retry_now(["M1", "M2"], NOW + 1) == 1
    assert claim_one(queue, now=NOW + 1).message_id == "M1"
    assert queue.extend(second, NOW, LEASE) is True


def test_deleted_mail_is_gone_and_its_report_is_refused(queue: Queue) -> None:
    queue.add([message("M1")], "s", 1, NOW)
    parcel = claim_one(queue)
    assert queue.delete(["M1", "M1"]) == 1
    assert queue.settle(parcel, outcomes(parcel, Result.DELIVERED), [], NOW) is False
    assert queue.next_due() is None


def test_when_a_recipient_was_last_tried_is_known(queue: Queue) -> None:
    queue.add([message("M1", "ann@example.test", "bo@example.test")], "seg", 1, NOW)
    assert queue.last_tried("M1", 0) == 0.0
    assert queue.last_tried("M2", 0) == 0.0
    for at in (NOW, NOW + 10):
        (parcel,) = queue.claim(LOCAL, 1, at, LEASE)
        assert queue.settle(parcel, [Outcome(n, Result.DEFERRED, at=at, next_attempt=at + 10) for n in (0, 1)], [], at)
        assert queue.last_tried("M1", 1) == at
