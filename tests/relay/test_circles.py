"""Mail that goes in a circle ends, and its sender is told once."""

from __future__ import annotations

import email
import smtplib
import sys
from pathlib import Path

import pytest

from relay import Domain, Outbox, Relaying, Routes, TlsLevel, TlsPolicy
from relay.agents.final import OncePerMailbox
from relay.agents.missing import MissingAgent
from relay.mail import Envelope, Stop
from smtpd_core.server import SmtpServer
from tests.relay.test_dispatcher import actions
from tests.relay.test_outbox import Told, files, wait_until
from tests.support.parcels import body, parcel, told


def test_a_circle_between_two_routes_ends_with_one_notification(tmp_path: Path) -> None:
    routes: list[Routes] = []

    def stops(envelope: Envelope) -> list[Stop]:
        return routes[0].stops(envelope)

    told = Told()
    relaying = Relaying(hello="relay.test", tls=TlsPolicy(TlsLevel.NONE))
    outbox = Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told)
    with SmtpServer(port=0, local_binding="127.0.0.1", store=outbox, max_received=10) as server:
        home = Domain(f"maildir:{tmp_path}/mail/{{user}}", users={"ann"}.__contains__)
        routes.append(Routes({"here.test": home}, default=f"smtp:127.0.0.1:{server.address[1]}"))
        with smtplib.SMTP(*server.address[:2], timeout=20) as client:
            client.sendmail("ann@here.test", ["bob@there.test"], "Subject: round\r\n\r\nand round\r\n")
            # Null senders go in circles without a word at the end.
            client.sendmail("", ["bob@there.test"], "Subject: round\r\n\r\nand round\r\n")
        wait_until(lambda: [result for _, result in told.outcomes].count("failed") == 2)
        wait_until(lambda: len(files(tmp_path / "mail")) == 1)
    assert [result for _, result in told.outcomes].count("relayed") <= 20
    (notification,) = files(tmp_path / "mail")
    assert actions(email.message_from_bytes(notification)) == ["failed"]
    assert b"5.4.6" in notification


FORWARDS = """
import os, smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=20) as client:
    client.sendmail(os.environ["SENDER"], [os.environ["RECIPIENT"]], sys.stdin.buffer.read())
"""


def test_mail_that_a_command_sends_back_is_returned_at_its_second_coming(tmp_path: Path) -> None:
    routes: list[Routes] = []
    told = Told()
    script = tmp_path / "forward.py"
    script.write_text(FORWARDS)
    outbox = Outbox(tmp_path / "s", stops=lambda envelope: routes[0].stops(envelope), on_outcome=told)
    with SmtpServer(port=0, local_binding="127.0.0.1", store=outbox) as server:
        command = f"pipe:{sys.executable} {script} {server.address[1]}"
        home = Domain(f"maildir:{tmp_path}/mail/{{user}}", users={"ann"}.__contains__)
        routes.append(Routes({"here.test": home, "list.test": Domain(command)}))
        with smtplib.SMTP(*server.address[:2], timeout=20) as client:
            client.sendmail("ann@here.test", ["Bob@list.test"], "Subject: round\r\n\r\nand round\r\n")
        outcomes = told.wait(3)
    assert outcomes == [("Bob@list.test", "delivered"), ("Bob@list.test", "failed"), ("ann@here.test", "delivered")]
    (notification,) = files(tmp_path / "mail")
    assert b"Status: 5.4.6" in notification


@pytest.mark.parametrize("kind", ["maildir", "mbox", "pipe"])
def test_each_kind_of_mailbox_gets_mail_once_and_others_get_theirs(tmp_path: Path, kind: str) -> None:
    places = {"maildir": f"maildir:{tmp_path}/{{user}}", "mbox": f"mbox:{tmp_path}/{{user}}", "pipe": "pipe:/bin/true"}
    routes = Routes({"here.test": Domain(places[kind])})
    content = (
        b"Received: from x by y; z\r\nDelivered-To: <ANN@here.test>\r\nDelivered-To: else@here.test\r\n"
        b"Subject: x\r\n\r\nDelivered-To: bob@here.test\r\n"
    )
    told = Told()
    with Outbox(tmp_path / "s", stops=routes.stops, on_outcome=told) as outbox:
        outbox.send(content, "", ["ann@here.test", "bob@here.test", "ann+x@here.test"])
        assert told.wait(3) == [
            ("ann+x@here.test", "delivered"), ("ann@here.test", "failed"), ("bob@here.test", "delivered")
        ]  # fmt: skip
    if kind == "maildir":
        (mail,) = (tmp_path / "bob" / "new").iterdir()
        assert mail.read_bytes() == b"Return-Path: <>\r\nDelivered-To: bob@here.test\r\n" + content


def test_aliases_make_no_false_circle(tmp_path: Path) -> None:
    """One names itself, two lead to one mailbox, and mail from one mailbox to another carries the first's line."""
    aliases = {"ann": ("ann@here.test", "bob@here.test"), "all": ("ann@here.test", "bob@here.test", "cid@here.test")}
    routes = Routes({"here.test": Domain(f"maildir:{tmp_path}/mail/{{user}}", aliases=aliases)})
    told = Told()
    with Outbox(tmp_path / "s", stops=routes.stops, on_outcome=told) as outbox:
        outbox.send(b"Delivered-To: all@here.test\r\n\r\nx\r\n", "", ["all@here.test", "ann@here.test"])
        assert told.wait(3) == [(f"{user}@here.test", "delivered") for user in ("ann", "bob", "cid")]


def test_archives_may_be_sent_in_again(tmp_path: Path) -> None:
    routes = Routes({"here.test": Domain(f"maildir:{tmp_path}/mail/{{user}}")})
    told = Told()
    with Outbox(tmp_path / "s", stops=routes.stops, on_outcome=told, returns_circles=False) as outbox:
        outbox.send(b"Delivered-To: ann@here.test\r\n\r\nx\r\n", "", ["ann@here.test"])
        assert told.wait(1) == [("ann@here.test", "delivered")]


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("\u00c4nn@here.test", "Delivered-To: \u00c4nn@here.test"),
        ("\u00e4nn@here.test", "Delivered-To: \u00c4NN@here.test"),
        ("ann@here.test", "Delivered-To:\r\n <ann@here.test>"),
        ("ann@here.test", "delivered-to:Ann@HERE.test "),
    ],
)
def test_the_line_is_known_in_any_script_and_layout(address: str, line: str) -> None:
    """Upper case beyond ASCII was no match for itself, and a line that a hop had folded was empty."""
    content = f"{line}\r\nSubject: x\r\n\r\n".encode()
    outcomes = OncePerMailbox(MissingAgent()).deliver(parcel(address), body(content), 5.0)
    assert told(outcomes) == [("failed", 554, "5.4.6")]
