"""The queue's commands, with a holder and without one."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from relay.control import ControlSocket
from relay.mail import Body, Message, Outcome, Recipient, Result, Stop
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from smtpd_core.app.cli import main
from smtpd_core.draft import Draft
from smtpd_core.wire.envelope import DeliverBy, Envelope, MailParameters, Origin

NOW = 1_000_000.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A queue with one message that was deferred once, and one that waits."""
    queue = SqliteQueue(tmp_path / "queue.db")
    origin = Origin("192.0.2.1", 1234, "probe", "ESMTPS", "TLSv1.3 AES", "ann", "mx 127.0.0.1:25", "s-1")
    for id, to in (("M1", "ann@example.test"), ("M2", "eve@other.test")):
        envelope = Envelope("bob@here.test", (Recipient(to),), MailParameters(ret="HDRS"), origin, NOW)
        stop = Stop(0, envelope.recipients[0], "mx:" + to.partition("@")[2])
        queue.add([(Message(id, envelope, b"Received: x\r\n", Body(6, b"hello\n")), [stop])], "s", 1, NOW)
    (parcel,) = queue.claim("mx:example.test", 1, NOW, 60)
    outcome = Outcome(0, Result.DEFERRED, 451, "4.7.1", "greylisted", "mx1 [192.0.2.9]", NOW, 9e9)
    queue.settle(parcel, [outcome], [], NOW)
    queue.close()
    return tmp_path


def queue(state: Path, *words: str) -> int:
    return main(["queue", words[0], "--state", str(state), *words[1:]])


def test_list_tells_who_waits_for_what(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queue(state, "list") == 0
    told = capsys.readouterr().out
    assert "M1" in told and "deferred  <ann@example.test> by mx:example.test" in told
    assert "mx1 [192.0.2.9]: 451 4.7.1 greylisted" in told and told.endswith("2 messages\n")
    assert queue(state, "list", "--json", "--destination", "other.test") == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ["M2"]
    assert queue(state, "list", "--older", "1d", "--status", "deferred") == 0
    assert capsys.readouterr().out.endswith("1 message\n")


def test_show_tells_the_whole_story(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queue(state, "show", "M1") == 0
    told = capsys.readouterr().out
    for part in (
        "from probe [192.0.2.1]:1234 by ESMTPS TLSv1.3 AES as user ann on mx 127.0.0.1:25",
        "session s-1",
        "parameters ret=HDRS",
        "deferred mx1 [192.0.2.9]: 451 4.7.1 greylisted",
        "next attempt in",
    ):
        assert part in told
    assert queue(state, "show", "--json", "M1") == 0
    assert json.loads(capsys.readouterr().out)["tries"][0]["text"] == "greylisted"
    assert queue(state, "show", "nobody") == 1
    assert "no message nobody" in capsys.readouterr().err


def shown(state: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of M's story: what comes next."""
    assert queue(state, "show", "M") == 0
    return capsys.readouterr().out.splitlines()[-1].strip()


def test_show_tells_what_comes_next_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    holder = SqliteQueue(tmp_path / "queue.db")
    parameters = MailParameters(hold_for=500, by=DeliverBy(9000, "R"))
    envelope = Envelope("bob@here.test", (Recipient("ann@there.test"),), parameters, arrived=now)
    holder.add([(Message("M", envelope, b"", Body(1, b"x")), [Stop(0, envelope.recipients[0], "mx:x")])], "s", 1, now)
    assert "the first one, for which its sender had it held" in shown(tmp_path, capsys)
    (parcel,) = holder.claim("mx:x", 1, now + 501, 3600)
    assert "a courier has it; its claim is good for" in shown(tmp_path, capsys)
    busy = Outcome(0, Result.DEFERRED, 450, "4.2.0", "busy", "mx1", now, now + 6000)
    assert holder.settle(parcel, [busy], [], now)
    assert shown(tmp_path, capsys).endswith("because of the last one's mx1: 450 4.2.0 busy")
    assert holder.hold(["M"]) == 1
    assert shown(tmp_path, capsys) == "no next attempt: held until an operator releases it"
    assert holder.let_go(["M"], now + 5000) == 1
    assert "because an operator or the next hop asked for it" in shown(tmp_path, capsys)
    (parcel,) = holder.claim("mx:x", 1, now + 5001, 60)
    assert holder.settle(parcel, [replace(busy, next_attempt=now + 99_999)], [], now)
    assert "the time within which its sender wants it delivered is over, though mx1: 450" in shown(tmp_path, capsys)
    holder.close()


def test_cat_is_the_message_as_the_next_hop_gets_it(state: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert queue(state, "cat", "M1") == 0
    assert capfdbinary.readouterr().out == b"Received: x\r\nhello\n"


def test_stats_and_check(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queue(state, "stats") == 0
    assert "2 messages, 12 bytes" in capsys.readouterr().out
    assert queue(state, "check") == 0
    assert "0 faults" in capsys.readouterr().out
    assert queue(state, "stats", "--json") == 0
    assert json.loads(capsys.readouterr().out)["messages"] == 2


@pytest.mark.parametrize("is_held", [True, False])
def test_orders_are_carried_out_with_a_server_and_without(
    is_held: bool, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = SqliteQueue(state / "queue.db") if is_held else None
    control = ControlSocket(state, holder) if holder is not None else None
    assert queue(state, "hold", "M1", "M2") == 0
    assert queue(state, "release", "--status", "held", "--destination", "other.test") == 0
    assert capsys.readouterr().out == "hold: 2 of 2\nrelease: 1 of 1\n"
    assert queue(state, "delete", "--all", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": 2, "of": 2}
    assert queue(state, "retry", "M1") == 1
    if holder is not None and control is not None:
        assert control.stop(5)
        holder.close()


@pytest.mark.parametrize("words", [("delete",), ("delete", "M1", "--all"), ("hold", "M1", "--sender", "a@b.test")])
def test_an_order_says_which_messages_it_means(
    words: tuple[str, ...], state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert queue(state, *words) == 2
    assert "give ids" in capsys.readouterr().err.lower()


def test_a_queue_that_is_held_without_a_control_socket_is_not_changed(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = SqliteQueue(state / "queue.db")
    assert queue(state, "delete", "--all") == 1
    assert "held by another process" in capsys.readouterr().err
    holder.close()


def test_no_queue_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queue(tmp_path, "list") == 1
    assert f"no queue here: {tmp_path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_check_sets_aside_what_cant_be_read_and_leaves_the_rest(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = SqliteQueue(state / "queue.db")
    holder.change(lambda db: db.execute("UPDATE messages SET envelope = x'0102' WHERE id = 'M2'"))
    assert holder.claim("mx:other.test", 9, NOW, 60) == []
    holder.close()
    assert queue(state, "check") == 1
    assert "message M2: its envelope can't be read" in capsys.readouterr().out
    assert (state / "aside" / "queue-M2.content").read_bytes() == b"hello\n"
    assert (state / "aside" / "queue-M2.envelope").read_bytes() == b"\x01\x02"
    assert queue(state, "check") == 0
    queue(state, "list", "--json")
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()[-1:]] == ["M1"]


def test_a_check_names_damage_in_the_spool(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = Spool(state / "spool")
    for _ in range(3):
        draft = Draft(spool.drafts)
        draft.append(b"x" * 1000)
        assert spool.promise(draft, Envelope("bob@here.test", (Recipient("ann@here.test"),))).wait(10)
    assert queue(state, "check") == 0
    assert spool.stop(5)
    (path,) = (state / "spool").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert queue(state, "check") == 1
    assert f"{path}: bytes " in capsys.readouterr().out


@pytest.mark.parametrize("words", [["list"], ["show", "M1"], ["hold", "--all"], ["hold", "M1"], ["stats"], ["check"]])
def test_a_damaged_queue_is_said_plainly(words: list[str], state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (state / "queue.db").open("r+b") as file:
        file.truncate(5000)
    assert queue(state, *words) == 1
    assert "queue.db: " in capsys.readouterr().err


def test_a_server_beside_a_damaged_queue_says_so_and_does_not_start(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "queue.db").write_bytes(b"no database at all " * 500)
    assert main(["serve", "--state", str(state), "--listen", "127.0.0.1:0"]) != 0
    assert "queue.db can't be opened: file is not a database" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--limit", "-3"], ["--limit", "0"], ["--limit", "many"], ["--older", "5x"]])
def test_a_filter_that_means_nothing_changes_nothing(
    words: list[str], state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A negative limit deleted everything."""
    with pytest.raises(SystemExit) as ended:
        queue(state, "delete", "--all", *words)
    assert ended.value.code == 2
    assert f"argument {words[0]}: " in capsys.readouterr().err
    assert queue(state, "list") == 0
    assert capsys.readouterr().out.endswith("2 messages\n")


@pytest.mark.parametrize("order", ["list", "hold --all", "hold M1", "check"])
def test_a_state_directory_that_can_not_be_entered_is_not_said_to_be_empty(
    order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of another user's was said to hold no queue."""
    state = tmp_path / "state"
    state.symlink_to(state)
    assert main(["queue", *order.split(), "--state", str(state)]) == 1
    said = capsys.readouterr().err
    assert os.strerror(errno.ELOOP) in said and str(state) in said
