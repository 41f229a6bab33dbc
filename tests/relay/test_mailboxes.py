"""Maildir, mbox and pipe: what lies where, what a repeated claim does, and what trouble means."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from relay.agents.maildir import MaildirAgent
from relay.agents.mbox import MboxAgent
from relay.agents.pipe import PipeAgent
from relay.maildir_store import MailboxStore
from smtpd_core.draft import Draft
from smtpd_core.wire.envelope import Envelope, Recipient
from tests.support.parcels import CONTENT, body, parcel, told

TRACE = b"Received: from x by y;\r\n"
DELIVERED = ("delivered", 250, "2.0.0")


def test_a_maildir_gets_each_recipient_its_own_file_byte_for_byte(tmp_path: Path) -> None:
    to = f"maildir:{tmp_path}/{{domain}}/{{user}}"
    agent = MaildirAgent("mx.test")
    assert told(agent.deliver(parcel("ann@a.test", "bob+x@a.test", destination=to), body(), 1.0)) == [DELIVERED] * 2
    (ann,) = (tmp_path / "a.test/ann/new").iterdir()
    assert ann.name == "1800000000.ABC123R0.mx.test"
    assert ann.read_bytes() == b"Return-Path: <ann@here.test>\r\nDelivered-To: ann@a.test\r\n" + TRACE + CONTENT
    (bob,) = (tmp_path / "a.test/bob/new").iterdir()
    assert b"Delivered-To: bob+x@a.test\r\n" in bob.read_bytes()
    assert stat.S_IMODE(ann.stat().st_mode) == 0o600
    assert list((tmp_path / "a.test/ann/tmp").iterdir()) == []


@pytest.mark.parametrize("moved", [False, True])
def test_a_second_claim_looks_before_it_writes(tmp_path: Path, moved: bool) -> None:
    to = f"maildir:{tmp_path}"
    agent = MaildirAgent("mx.test")
    agent.deliver(parcel("ann@a.test", destination=to), body(), 1.0)
    (file,) = (tmp_path / "new").iterdir()
    if moved:
        file.rename(tmp_path / "cur" / f"{file.name}:2,S")
    again = agent.deliver(parcel("ann@a.test", destination=to, attempt=2), body(), 99.0)
    assert told(again) == [DELIVERED]
    assert len([*(tmp_path / "new").iterdir(), *(tmp_path / "cur").iterdir()]) == 1


@pytest.mark.parametrize(
    "user", ["../../../etc/cron.d/x", "..", ".", "a/b", "/abs", "{domain}", "a\n", "%2e", "x" * 200, "~root", "-rf"]
)
def test_no_local_part_leads_out_of_the_mail_directory(tmp_path: Path, user: str) -> None:
    root = tmp_path / "mail"
    agent = MaildirAgent("mx.test")
    (outcome,) = agent.deliver(parcel(f"{user}@a.test", destination=f"maildir:{root}/{{domain}}/{{user}}"), body(), 1.0)
    assert outcome.result.value == "delivered"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mail"]
    assert [entry.name for entry in root.iterdir()] == ["a.test"]
    (file,) = root.glob("a.test/*/new/*")
    # No control character cuts the header of the file either.
    assert file.read_bytes().count(b"\r\n", 0, file.read_bytes().index(TRACE)) == 2


def test_a_mailbox_in_trouble_is_temporary_and_its_path_stays_secret(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (outcome,) = MaildirAgent().deliver(parcel("ann@a.test", destination=f"maildir:{tmp_path}/file/x"), body(), 1.0)
    assert outcome.result.value == "deferred"
    assert str(tmp_path) not in outcome.text


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    agent = MaildirAgent()
    to = f"maildir:{tmp_path}/m"
    agent.deliver(parcel("first@a.test", destination=to), body(), 1.0)
    monkeypatch.setattr(os, "fsync", full)
    (outcome,) = agent.deliver(parcel("ann@a.test", destination=to, id="DEF"), body(), 1.0)
    assert (outcome.result.value, outcome.enhanced, outcome.scope) == ("deferred", "4.3.1", "destination")
    assert list((tmp_path / "m/tmp").iterdir()) == []
    assert len(list((tmp_path / "m/new").iterdir())) == 1


def test_an_mbox_marks_from_lines_and_ends_each_message_with_an_empty_line(tmp_path: Path) -> None:
    content = b"Subject: x\r\n\r\nFrom here\r\n>From there\r\n From not\r\nlast"
    agent = MboxAgent()
    to = f"mbox:{tmp_path}/{{user}}"
    for _ in range(2):
        agent.deliver(parcel("ann@a.test", destination=to, content=content), body(content), 0.0)
    one = (
        b"From ann@here.test Thu Jan  1 00:00:00 1970\nReturn-Path: <ann@here.test>\nDelivered-To: ann@a.test\n"
        b"Received: from x by y;\nSubject: x\n\n>From here\n>>From there\n From not\nlast\n\n"
    )
    assert (tmp_path / "ann").read_bytes() == one * 2


def test_an_mbox_takes_lines_longer_than_its_window(tmp_path: Path) -> None:
    content = b"Subject: x\r\n\r\n" + b"a" * 300_000 + b"\r\nFrom x\r\n"
    MboxAgent().deliver(parcel("ann@a.test", destination=f"mbox:{tmp_path}/m", content=content), body(content), 0.0)
    found = (tmp_path / "m").read_bytes()
    assert b"\n" + b"a" * 300_000 + b"\n>From x\n\n" in found
    assert b"\r" not in found


def test_a_failed_append_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = f"mbox:{tmp_path}/m"
    MboxAgent().deliver(parcel("ann@a.test", destination=to), body(), 0.0)
    before = (tmp_path / "m").read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fails)
    (outcome,) = MboxAgent().deliver(parcel("ann@a.test", destination=to), body(), 0.0)
    assert outcome.result.value == "deferred"
    assert (tmp_path / "m").read_bytes() == before


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, ("delivered", 250, "2.0.0")),
        (67, ("failed", 550, "5.1.1")),
        (77, ("failed", 550, "5.7.0")),
        (75, ("deferred", 451, "4.3.0")),
        (1, ("deferred", 451, "4.3.0")),
        (127, ("deferred", 451, "4.3.0")),
    ],
)
def test_a_commands_exit_status_is_the_verdict(tmp_path: Path, status: int, expected: tuple[str, int, str]) -> None:
    script = tmp_path / "deliver"
    script.write_text(f'#!/bin/sh\ncat > "{tmp_path}/in"\necho "$1|$2|$SENDER" > "{tmp_path}/args"\nexit {status}\n')
    script.chmod(0o755)
    to = f"pipe:{script} {{recipient}} 'to {{user}}'"
    assert told(PipeAgent(20).deliver(parcel("ann+x@a.test", destination=to), body(), 1.0)) == [expected]
    assert (tmp_path / "in").read_bytes().endswith(TRACE + CONTENT)
    assert (tmp_path / "args").read_text() == "ann+x@a.test|to ann|ann@here.test\n"


@pytest.mark.parametrize("user", ["$(touch /tmp/x)", "`id`", "a;b", "a b", "'", '"', "|id", "*"])
def test_no_shell_ever_sees_a_local_part(tmp_path: Path, user: str) -> None:
    script = tmp_path / "deliver"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > "{tmp_path}/arg"\necho $# > "{tmp_path}/count"\n')
    script.chmod(0o755)
    PipeAgent(20).deliver(parcel(f"{user}@a.test", destination=f"pipe:{script} {{recipient}}"), body(), 1.0)
    assert (tmp_path / "arg").read_text() == f"{user}@a.test"
    assert (tmp_path / "count").read_text() == "1\n"


@pytest.mark.parametrize("address", ['"../out"@a.test', '"/{place}/out"@a.test', "ann@../out", '".."@a.test'])
def test_the_names_that_a_command_gets_lead_to_no_other_file(tmp_path: Path, address: str) -> None:
    """A command that wrote to {user} wrote wherever a stranger said."""
    box = tmp_path / "box"
    box.mkdir()
    script = tmp_path / "deliver"
    script.write_text(f'#!/bin/sh\ncd "{box}" && echo mail > "$1" && echo mail > "$2"\n')
    script.chmod(0o755)
    to = f"pipe:{script} {{user}} {{domain}}"
    there = address.replace("{place}", str(tmp_path))
    (outcome,) = PipeAgent(20).deliver(parcel(there, destination=to), body(), 1.0)
    assert told([outcome]) == [("delivered", 250, "2.0.0")]
    assert len(list(box.iterdir())) == 2 and {one.name for one in tmp_path.iterdir()} == {"box", "deliver"}


def test_a_name_that_would_be_an_option_is_refused(tmp_path: Path) -> None:
    (outcome,) = PipeAgent(20).deliver(parcel("-rf@a.test", destination="pipe:/bin/true {user}"), body(), 1.0)
    assert told([outcome]) == [("failed", 550, "5.1.3")]


def test_a_command_that_hangs_is_killed_and_tried_again() -> None:
    (outcome,) = PipeAgent(0.2).deliver(parcel("ann@a.test", destination="pipe:/bin/sleep 60"), body(), 1.0)
    assert told([outcome]) == [("deferred", 451, "4.4.7")]


@pytest.mark.parametrize("command", ["", "'open", "/no/such/program"])
def test_a_command_that_is_none_is_temporary(command: str) -> None:
    (outcome,) = PipeAgent(5).deliver(parcel("ann@a.test", destination=f"pipe:{command}"), body(), 1.0)
    assert outcome.result.value == "deferred"


def test_a_mailbox_store_keeps_at_once(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path / "mail", domains=("here.test",))
    assert store.holds("ann@HERE.test") and not store.holds("ann@far.test")
    draft = Draft(store.drafts)
    draft.append(CONTENT)
    draft.trace = TRACE
    ticket = store.keep(Envelope("s@x.test", (Recipient("ann@here.test"),)), draft)
    assert ticket.wait(10) and ticket.outcome is None
    (file,) = (tmp_path / "mail/new").iterdir()
    assert file.read_bytes().endswith(TRACE + CONTENT)
    assert store.stop()
    late = store.keep(Envelope("s@x.test", (Recipient("ann@here.test"),)), Draft())
    assert late.wait(10) and isinstance(late.outcome, OSError)
    assert store.start() and not store.start()
    store.stop()


def test_a_mailbox_store_takes_back_what_nobody_has_read(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path / "mail" / "{user}")
    envelope = Envelope("s@x.test", (Recipient("ann@here.test"), Recipient("bob@here.test")))
    draft = Draft(store.drafts)
    draft.append(CONTENT)
    id = draft.id
    assert store.keep(envelope, draft).wait(10)
    (read,) = (tmp_path / "mail/bob/new").iterdir()
    read.rename(tmp_path / "mail/bob/cur" / f"{read.name}:2,S")
    store.withdraw(envelope, id)
    assert store.stop(10)
    assert not list((tmp_path / "mail/ann/new").iterdir())
    assert len(list((tmp_path / "mail/bob/cur").iterdir())) == 1


def test_a_mailbox_store_keeps_for_all_or_for_none(tmp_path: Path) -> None:
    """The client hears 452 for the message, and sends it to all of them again."""
    store = MailboxStore(tmp_path / "mail" / "{user}")
    (tmp_path / "mail" / "bob").write_text("a file where a Maildir should be")
    draft = Draft(store.drafts)
    draft.append(CONTENT)
    ticket = store.keep(Envelope("s@x.test", (Recipient("ann@here.test"), Recipient("bob@here.test"))), draft)
    assert ticket.wait(10) and isinstance(ticket.outcome, OSError)
    assert not list((tmp_path / "mail/ann/new").iterdir())
    store.stop()
