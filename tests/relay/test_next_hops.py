"""Postfix, Exim and OpenSMTPD as next hops: what each takes, refuses and puts off, and how its connections are used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from relay import Outbox, Relaying, RetryPolicy, Routes, TlsLevel, TlsPolicy, Way
from relay.idle import IdleLimits
from relay.mail import Recipient
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.envelope import MailParameters
from smtpd_core.wire.sasl.client import Credentials
from tests.relay.test_outbox import Told
from tests.support.next_hops import NAME, PASSWORD, PEOPLE, SERVERS, NextHop, Server, Wanted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="each drops root, which it has to have")

CLEAR = TlsPolicy(TlsLevel.NONE)
HEAD = (
    b"From: ann@here.test\r\nSubject: %s\r\nDate: Thu, 1 Oct 2026 10:00:00 +0000\r\nMessage-ID: <%s@here.test>\r\n\r\n"
)
# Every octet but NUL, CR and LF, dots where they are stuffed, and the longest line of RFC 5321 4.5.3.1.6.
OCTETS = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
BODY = b".\r\n..\r\n.dot\r\n\r\n" + OCTETS + b"\r\n" + b"x" * 998 + b"\r\n \r\n.\r\n"


def each(fits: Callable[[Server], bool] = lambda server: True) -> list[Any]:
    return [pytest.param(one, marks=pytest.mark.debian(one.program), id=one.name) for one in SERVERS if fits(one)]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=each())
def server(request: pytest.FixtureRequest) -> Server:
    which: Server = request.param
    return which


@pytest.fixture(scope="module")
def hop(server: Server, ca: trustme.CA) -> Iterator[NextHop]:
    """It serves all tests that don't start one of their own, each of which names its messages differently."""
    with server.start(Wanted(authority=ca, size=200_000, people=3, logs_in=True)) as hop:
        yield hop


class Dialogue:
    """The commands of all connections with a hop, and its answers."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def command(self, text: str) -> None:
        self.commands.append(text)

    def reply(self, answer: Answer) -> None:
        pass

    def count(self, verb: str) -> int:
        return sum(command.partition(" ")[0] == verb for command in self.commands)


class House:
    """An outbox whose only next hop is this one, with one connection at a time."""

    def __init__(self, folder: Path, hop: NextHop, tls: TlsPolicy = CLEAR, **way: Any) -> None:
        self.told = Told()
        self.dialogue = Dialogue()
        destination = f"smtp:127.0.0.1:{hop.port}"
        relaying = Relaying(hello="relay.test", concurrency=1, ways={destination: Way(tls=tls, **way)})
        self.outbox = Outbox(
            folder / "state",
            stops=Routes(default=destination).stops,
            relaying=relaying,
            idle=IdleLimits(rest=0.1) if "retry" in way else IdleLimits(),
            observer=lambda hop: self.dialogue,
            on_outcome=self.told,
        )

    def __enter__(self) -> House:
        self.outbox.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.outbox.stop()

    def send(self, *people: str | Recipient, name: str, body: bytes = BODY) -> list[tuple[str, str]]:
        """What became of each at the first attempt."""
        before = len(self.told.outcomes)
        head = HEAD.replace(b"%s", name.encode())
        self.outbox.send(head + body, "", people, MailParameters(body="8BITMIME"))
        self.told.wait(before + len(people))
        return sorted(self.told.outcomes[before : before + len(people)])


def bodies(hop: NextHop, name: str, count: int) -> list[bytes]:
    """Those that the hop keeps of messages of this name, at least so many, with the line ends that they came with."""
    kept = hop.mail(count, f"\nSubject: {name}\n".encode())
    return [mail.replace(b"\n", b"\r\n").partition(b"\r\n\r\n")[2] for mail in kept]


def test_it_keeps_every_octet_for_those_whom_it_knows(tmp_path: Path, server: Server, hop: NextHop) -> None:
    large = BODY * 40
    with House(tmp_path, hop) as house:
        assert house.send("nobody@there.test", name="none") == [("nobody@there.test", "failed")], hop.log()
        for name, body in (("small", BODY), ("large", large)):
            assert house.send("bob@there.test", "nobody@there.test", "u1@there.test", name=name, body=body) == [
                ("bob@there.test", "relayed"),
                ("nobody@there.test", "failed"),
                ("u1@there.test", "relayed"),
            ], hop.log()
    copies = 2 if server.delivers else 1
    assert bodies(hop, "small", copies) == [BODY] * copies
    assert bodies(hop, "large", copies) == [large] * copies
    assert bodies(hop, "none", 0) == []
    # All on one connection, by chunks where they are offered, else behind dots.
    assert house.dialogue.count("EHLO") == 1
    assert (house.dialogue.count("BDAT") > 2, house.dialogue.count("DATA") == 0) == (server.chunks, server.chunks)


def test_tls_is_used_where_it_can_be(tmp_path: Path, server: Server, hop: NextHop) -> None:
    with House(tmp_path, hop, TlsPolicy(TlsLevel.OPPORTUNISTIC)) as house:
        assert house.send("bob@there.test", name="by-tls") == [("bob@there.test", "relayed")], hop.log()
    assert house.dialogue.count("STARTTLS") == 1
    [mail] = hop.mail(1, b"\nSubject: by-tls\n")
    assert b" with esmtps" in mail.lower() or not server.shakes_hands


@pytest.mark.parametrize("server", each(lambda server: server.shakes_hands), indirect=True)
@pytest.mark.parametrize("is_known", [True, False])
def test_its_certificate_is_verified(tmp_path: Path, hop: NextHop, ca: trustme.CA, is_known: bool) -> None:
    (ca if is_known else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    name = f"verified-{is_known}"
    with House(tmp_path, hop, TlsPolicy(TlsLevel.VERIFY, str(tmp_path / "ca.pem"))) as house:
        became = "relayed" if is_known else "deferred"
        assert house.send("bob@there.test", name=name) == [("bob@there.test", became)], hop.log()
    assert bodies(hop, name, int(is_known)) == [BODY] * is_known
    assert house.dialogue.count("MAIL") == int(is_known)


@pytest.mark.parametrize("server", each(lambda server: bool(server.logs_in)), indirect=True)
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_a_log_in_is_taken_or_no_mail_is_sent(tmp_path: Path, server: Server, hop: NextHop, password: str) -> None:
    is_right = password == PASSWORD
    way = {"credentials": Credentials(NAME, password)}
    with House(tmp_path, hop, TlsPolicy(TlsLevel.REQUIRE), **way) as house:
        became = "relayed" if is_right else "deferred"
        assert house.send("bob@there.test", name=password) == [("bob@there.test", became)], hop.log()
    assert any(command.startswith(f"AUTH {server.logs_in}") for command in house.dialogue.commands)
    assert [b" with esmtpsa" in mail for mail in hop.mail(0, f"\nSubject: {password}\n".encode())] == [True] * is_right


def test_what_is_larger_than_it_takes_comes_back(tmp_path: Path, hop: NextHop) -> None:
    with House(tmp_path, hop) as house:
        assert house.send("bob@there.test", name="huge", body=BODY * 400) == [("bob@there.test", "failed")]
        assert house.send("bob@there.test", name="fits") == [("bob@there.test", "relayed")], hop.log()
    assert bodies(hop, "fits", 1) == [BODY]
    assert bodies(hop, "huge", 0) == []


def test_who_is_put_off_is_tried_again_until_taken(tmp_path: Path, hop: NextHop) -> None:
    with House(tmp_path, hop, retry=RetryPolicy(schedule=(0.3,), jitter=0)) as house:
        first = house.send("bob@there.test", "later@there.test", name="later")
        assert first == [("bob@there.test", "relayed"), ("later@there.test", "deferred")], hop.log()
        hop.relent()
        assert house.told.wait_for(("later@there.test", "relayed")), hop.log()
    assert bodies(hop, "later", 2) == [BODY] * 2


def test_an_original_recipient_beyond_ascii_is_no_reason_to_refuse(tmp_path: Path, hop: NextHop) -> None:
    bob = Recipient("bob@there.test", orcpt="utf-8;b\u00f6b@there.test")
    with House(tmp_path, hop) as house:
        assert house.send(bob, name="orcpt") == [("bob@there.test", "relayed")], hop.log()
    assert bodies(hop, "orcpt", 1) == [BODY]


def test_its_limit_of_recipients_is_no_refusal(tmp_path: Path, hop: NextHop) -> None:
    people = [one for one in PEOPLE if one.startswith("u")]
    with House(tmp_path, hop) as house:
        assert house.send(*people, name="crowd") == [(one, "relayed") for one in people], hop.log()
    assert house.dialogue.count("MAIL") == 3


@pytest.mark.parametrize("counting", each(lambda server: server.counts_messages))
def test_its_limit_of_messages_on_a_connection_holds_up_nothing(tmp_path: Path, counting: Server) -> None:
    with counting.start(Wanted(messages=3)) as hop:
        with House(tmp_path, hop) as house:
            for number in range(7):
                assert house.send("bob@there.test", name=f"{number}") == [("bob@there.test", "relayed")], hop.log()
        assert len(hop.mail(7)) == 7
    assert house.dialogue.count("EHLO") == 3
