"""Delivery to a next hop, with a scripted peer for every way to behave and to misbehave."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relay.hop import Manners, StepTimes, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Outcome, Recipient
from smtpd_core.wire.envelope import MailParameters
from smtpd_core.wire.sasl.client import Credentials
from tests.support.parcels import CONTENT, QUICK, agent_for, body, parcel, told
from tests.support.peer import ScriptedPeer
from tests.support.sink import SmtpSink

HELLO = """
    S: 220 peer.test
    C: EHLO relay.test
    S: 250-peer.test
"""
PLAIN = HELLO + "S: 250 HELP\n"
PIPE = HELLO + "S: 250 PIPELINING\n"
CHUNK = HELLO + "S: 250-PIPELINING\nS: 250 CHUNKING\n"
GROUP = "C: MAIL\nC: RCPT\nC: DATA\n"
QUIT = "C: QUIT\nS: 221 bye\n"


def deliver(script: str, *addresses: str | Recipient, content: bytes = CONTENT) -> list[Outcome]:
    """The outcomes at a peer that plays the script."""
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port)
        outcomes = agent.deliver(parcel(*addresses or ("bob@there.test",), content=content), body(content), 5.0)
        agent.close()
    return outcomes


@pytest.mark.parametrize(
    "script",
    [
        PLAIN + "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT,
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT,
        CHUNK + "C: MAIL\nC: RCPT\nC: <chunk>\nS: 250 ok\nS: 250 ok\nS: 250 2.0.0 yes\n" + QUIT,
        # EHLO is not known: HELO (RFC 5321 3.2).
        "S: 220 old\nC: EHLO\nS: 502 what\nC: HELO relay.test\nS: 250 ok\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\n"
        "C: DATA\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT,
    ],
    ids=["step by step", "pipelined", "chunked", "helo"],
)
def test_a_message_arrives_byte_for_byte(script: str) -> None:
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port)
        outcomes = agent.deliver(parcel("bob@there.test"), body(), 5.0)
        agent.close()
        assert told(outcomes) == [("relayed", 250, "2.0.0")]
        assert outcomes[0].remote == "mx0.test [127.0.0.1]"
        assert peer.contents == [b"Received: from x by y;\r\n" + CONTENT]


def test_each_recipient_has_its_own_outcome() -> None:
    outcomes = deliver(
        PIPE + "C: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 who\nS: 250 ok\n"
        "S: 450 4.2.1 later\nS: 354 go\nC: <content>\nS: 250 2.6.0 done\n" + QUIT,
        "a@x.test",
        "b@x.test",
        "c@x.test",
    )
    assert told(outcomes) == [("failed", 550, "5.1.1"), ("relayed", 250, "2.6.0"), ("deferred", 450, "4.2.1")]


MISBEHAVIOUR = [
    ("refused greeting", "S: 554 5.3.2 no mail here\n", ("failed", 554, "5.3.2"), "host"),
    ("busy greeting", "S: 421 4.3.2 full\n", ("deferred", 421, "4.3.2"), "host"),
    ("closes at once", "-- close", ("deferred", 0, "4.4.2"), "host"),
    ("resets after the hello", "S: 220 x\nC: EHLO\n-- reset", ("deferred", 0, "4.4.2"), "host"),
    ("says nothing", "-- hang", ("deferred", 0, "4.4.2"), "host"),
    ("speaks HTTP", "S: HTTP/1.1 400 Bad Request\n-- hang", ("deferred", 0, "4.4.2"), "host"),
    ("cut in the greeting", "-- say 220 pe\n-- close", ("deferred", 0, "4.4.2"), "host"),
    ("hello refused", "S: 220 x\nC: EHLO\nS: 550 no\nC: HELO\nS: 550 no\n", ("failed", 550, "5.3.2"), "host"),
    ("sender refused", PLAIN + "C: MAIL\nS: 550 5.7.1 spam\n" + QUIT, ("failed", 550, "5.7.1"), "message"),
    ("sender later", PLAIN + "C: MAIL\nS: 451 4.1.8 dns\n" + QUIT, ("deferred", 451, "4.1.8"), "message"),
    ("closes after MAIL", PLAIN + "C: MAIL\n-- close", ("deferred", 0, "4.4.2"), "host"),
    (
        "positive but wrong to MAIL",
        PLAIN + "C: MAIL\nS: 354 go on\n" + QUIT,
        ("deferred", 354, "4.5.0"),
        "host",
    ),
    (
        "421 to RCPT",
        PIPE + GROUP + "S: 250 ok\nS: 421 4.3.2 shutting down\n-- close",
        ("deferred", 421, "4.3.2"),
        "host",
    ),
    (
        "nobody accepted and yet 354",
        PIPE + GROUP + "S: 250 ok\nS: 550 5.1.1 who\nS: 354 go\nC: <content>\nS: 250 fine\n" + QUIT,
        ("failed", 550, "5.1.1"),
        "recipient",
    ),
    (
        "DATA refused",
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 451 4.3.0 busy\n" + QUIT,
        ("deferred", 451, "4.3.0"),
        "message",
    ),
    (
        "DATA answered 250",
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 250 sure\n" + QUIT,
        ("deferred", 250, "4.5.0"),
        "host",
    ),
    (
        "content refused",
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 554 5.7.1 virus\n" + QUIT,
        ("failed", 554, "5.7.1"),
        "message",
    ),
    (
        "closes after the dot",
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\n-- close",
        ("deferred", 0, "4.4.2"),
        "host",
    ),
    (
        "hangs after the dot",
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\n-- hang",
        ("deferred", 0, "4.4.2"),
        "host",
    ),
    (
        "cut in the last answer",
        PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\n-- say 250 2.0.\n-- close",
        ("deferred", 0, "4.4.2"),
        "host",
    ),
]


@pytest.mark.parametrize(("what", "script", "expected", "scope"), MISBEHAVIOUR, ids=[row[0] for row in MISBEHAVIOUR])
def test_misbehaviour_is_understood(what: str, script: str, expected: tuple[str, int, str], scope: str) -> None:
    times = replace(StepTimes.all(0.3, 0.3), content=0.3)
    quick = Manners(hello="relay.test", tls=TlsLevel.NONE, times=times)
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port, manners=quick)
        outcomes = agent.deliver(parcel("bob@there.test"), body(), 5.0)
        agent.close()
    assert told(outcomes) == [expected]
    assert outcomes[0].scope == scope


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_dialogue_cut_at_any_byte_defers_and_never_claims_delivery(cut: int) -> None:
    whole = "220 p\\r\\n250-p\\r\\n250 PIPELINING\\r\\n250 a\\r\\n250 b\\r\\n354 c\\r\\n250 d\\r\\n"
    said = whole.encode().decode("unicode_escape")[:cut]
    escaped = said.replace("\r", "\\r").replace("\n", "\\n")
    outcomes = deliver(f"-- say {escaped}\n-- close" if escaped.strip() else "-- close")
    assert [one.result.value for one in outcomes] == ["deferred"]


def test_a_refusal_in_mid_content_is_heard_before_the_content_ends() -> None:
    content = b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 76 + b"\r\n") * 400_000
    outcomes = deliver(PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nS: 552 5.3.4 too big\n-- hang", content=content)
    assert told(outcomes) == [("failed", 552, "5.3.4")]


def test_a_body_that_can_not_be_read_to_its_end_is_cut_off_without_a_final_dot() -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100_000:
                raise OSError("bad sector")
            return super().read(size)

    torn = b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n"
    with ScriptedPeer(PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 ok\n") as peer:
        agent = agent_for(peer.port)
        with pytest.raises(OSError, match="bad sector"):
            agent.deliver(parcel("bob@there.test", content=torn), lambda: Torn(torn), 5.0)
        agent.close()
    assert peer.contents == []


def test_a_closed_host_makes_room_for_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    good = PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT
    with ScriptedPeer("S: 421 4.3.2 later\n") as busy, ScriptedPeer(good) as peer:
        agent = agent_for(dead, busy.port, peer.port)
        outcomes = agent.deliver(parcel("bob@there.test"), body(), 5.0)
        agent.close()
        assert told(outcomes) == [("relayed", 250, "2.0.0")]
        assert outcomes[0].remote.startswith("mx2.test")


@contextmanager
def black_hole() -> Iterator[int]:
    """A port to which no connection is ever made, nor refused: its queue is full, and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            waiting.append(one)
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


def test_an_address_that_leads_nowhere_is_left_quickly_where_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.agents.smtp.QUICK_CONNECT", 0.3)
    manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=StepTimes.all(30.0, 30.0))
    good = PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT
    with black_hole() as nowhere, ScriptedPeer(good) as peer:
        begun = time.monotonic()
        agent = agent_for(nowhere, peer.port, manners=manners)
        assert told(agent.deliver(parcel("bob@x.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        assert time.monotonic() - begun < 15
        agent.close()


def test_a_host_that_failed_a_moment_ago_comes_after_the_others() -> None:
    one = GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
    with ScriptedPeer("S: 421 4.3.2 later\n") as busy, ScriptedPeer(PIPE + one + one + QUIT) as peer:
        agent = agent_for(busy.port, peer.port)
        for _ in range(2):
            assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()
        assert busy.sessions == 1


OURSELVES = "S: 220 RELAY.test\nC: EHLO relay.test\nS: 250-Relay.test\nS: 250 SIZE\n" + QUIT


def test_a_server_with_our_own_name_is_the_end_of_the_way() -> None:
    """An MX that led to this host under another name sent the mail round until a hundred Received lines were on it."""
    with ScriptedPeer(OURSELVES) as here, ScriptedPeer("-- hang") as worse:
        agent = agent_for(here.port, worse.port)
        outcomes = agent.deliver(parcel("bob@x.test", destination="mx:x.test"), body(), 5.0)
        agent.close()
        assert worse.sessions == 0
    assert told(outcomes) == [("failed", 554, "5.4.6")] and outcomes[0].remote == ""


def test_a_server_with_our_own_name_behind_one_that_is_away_only_waits_for_it() -> None:
    with (
        ScriptedPeer(OURSELVES, OURSELVES) as here,
        ScriptedPeer("S: 421 4.3.2 later\n", "S: 421 4.3.2 later\n") as best,
    ):
        agent = agent_for(best.port, here.port)
        for attempt in range(2):  # the second time the better one comes last, for it was away a moment ago
            outcomes = agent.deliver(parcel("bob@x.test", destination="mx:x.test"), body(), 5.0)
            assert told(outcomes) == [("deferred", 421, "4.3.2")], attempt
        agent.close()
        assert best.sessions == 2


def test_a_smart_host_may_have_our_name() -> None:
    one = "S: 220 relay.test\nC: EHLO\nS: 250 relay.test\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n"
    with ScriptedPeer(one + "C: <content>\nS: 250 2.0.0 yes\n" + QUIT) as peer:
        agent = agent_for(peer.port)
        assert told(agent.deliver(parcel("bob@x.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()


def test_after_the_final_dot_no_second_host_is_tried() -> None:
    lost = PIPE + GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\n-- close"
    with ScriptedPeer(lost) as first, ScriptedPeer(lost) as second:
        agent = agent_for(first.port, second.port)
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("deferred", 0, "4.4.2")]
        assert second.sessions == 0


def test_a_permanent_answer_to_a_recipient_is_final_at_the_first_host() -> None:
    refuses = PIPE + GROUP + "S: 250 ok\nS: 550 5.1.1 who\nS: 503 no rcpt\n" + QUIT
    with ScriptedPeer(refuses) as first, ScriptedPeer(refuses) as second:
        agent = agent_for(first.port, second.port)
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("failed", 550, "5.1.1")]
        agent.close()
        assert second.sessions == 0


def test_a_transaction_that_was_begun_and_not_ended_is_reset_before_the_next() -> None:
    script = PIPE + GROUP + "S: 250 ok\nS: 550 5.1.1 who\nS: 503 no rcpt\nC: RSET\nS: 250 ok\n"
    script += GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port)
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("failed", 550, "5.1.1")]
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()


def test_connections_are_kept_for_the_next_message_and_replaced_when_they_died() -> None:
    one = GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
    with ScriptedPeer(PIPE + one + one + "-- close", PIPE + one + QUIT) as peer:
        agent = agent_for(peer.port)
        for _ in range(2):
            assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        assert peer.sessions == 1
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        assert peer.sessions == 2
        agent.close()


@pytest.mark.parametrize(
    "refusal", ["421 too many messages", "452 4.5.3 too many messages", "421 4.4.2 you rested too long"]
)
def test_a_connection_that_carries_no_more_is_replaced_at_once(refusal: str) -> None:
    """Without LIMITS its hop tells only then: the message waited for the next attempt, and where the hop did not close,
    so did each one after it."""
    taken = "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
    refused = f"S: {refusal}\nS: 503 no\nS: 503 no\n-- hang"
    with ScriptedPeer(PIPE + GROUP + taken + GROUP + refused, PIPE + GROUP + taken + QUIT) as peer:
        agent = agent_for(peer.port)
        for _ in range(2):
            assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()
        assert peer.sessions == 2


@pytest.mark.parametrize("refusal", ["421 4.3.2", "452 4.5.3"])
def test_the_same_refusal_on_a_new_connection_is_the_last_word(refusal: str) -> None:
    taken = "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
    refused = PIPE + GROUP + f"S: {refusal} no\nS: 503 no\nS: 503 no\n"
    with ScriptedPeer(PIPE + GROUP + taken + GROUP + "-- close", refused) as peer:
        agent = agent_for(peer.port)
        agent.deliver(parcel("bob@there.test"), body(), 5.0)
        code, enhanced = refusal.split()
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("deferred", int(code), enhanced)]
        agent.close()
        assert peer.sessions == 2


def test_mailmax_ends_a_connection_and_rcptmax_a_transaction() -> None:
    limits = HELLO + "S: 250-PIPELINING\nS: 250 LIMITS MAILMAX=2 RCPTMAX=1\n"
    one = GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
    with ScriptedPeer(limits + one + one + QUIT, limits + one + QUIT) as peer:
        agent = agent_for(peer.port)
        outcomes = agent.deliver(parcel("a@x.test", "b@x.test", "c@x.test"), body(), 5.0)
        agent.close()
        assert told(outcomes) == [("relayed", 250, "2.0.0")] * 3
        assert peer.sessions == 2


def test_a_hop_that_takes_one_recipient_at_a_time_has_no_more_time_for_it_than_others() -> None:
    """LIMITS, or 452 for all but one, and a slow answer to each: a courier was held for as long as the hop liked."""
    limits = HELLO + "S: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=1\n"
    one = GROUP + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\n-- idle 2.2\nS: 250 2.0.0 yes\n"
    times = replace(QUICK, opening=1.0, transaction=1.0, content=10.0)
    manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=times)
    with ScriptedPeer(limits + one + QUIT) as peer:
        agent = agent_for(peer.port, manners=manners)
        outcomes = agent.deliver(parcel(*(f"u{n}@x.test" for n in range(5))), body(), 5.0)
        agent.close()
    assert [one.result.value for one in outcomes] == ["relayed"] + ["deferred"] * 4
    assert {(one.scope, one.remote) for one in outcomes[1:]} == {("recipient", "")}


def test_too_many_recipients_go_in_a_second_transaction_at_once() -> None:
    outcomes = deliver(
        PIPE + "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 452 4.5.3 too many\nS: 354 go\n"
        "C: <content>\nS: 250 2.0.0 yes\n"
        + GROUP
        + "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
        + QUIT,
        "a@x.test",
        "b@x.test",
    )
    assert told(outcomes) == [("relayed", 250, "2.0.0")] * 2


def test_who_is_refused_with_an_original_recipient_beyond_ascii_is_asked_for_again_without() -> None:
    """A hop with DSN and without SMTPUTF8 may take none but rfc822 there: the mail came back as for an unknown user."""
    bob = Recipient("bob@x.test", ("FAILURE",), "utf-8;b\u00f6b@x.test")
    group = "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\n"
    script = HELLO + "S: 250-PIPELINING\nS: 250 DSN\n" + group
    script += "S: 250 ok\nS: 553 ORCPT address syntax error\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
    script += GROUP + "S: 250 ok\nS: 550 5.1.1 who\nS: 554 no\n" + QUIT
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port)
        outcomes = agent.deliver(parcel(bob, "ann@x.test"), body(), 5.0)
        agent.close()
        assert told(outcomes) == [("failed", 550, "5.1.1"), ("relayed", 250, "2.0.0")]
        asked = [command for command in peer.commands if command.startswith("RCPT TO:<bob")]
        assert asked == [
            r"RCPT TO:<bob@x.test> NOTIFY=FAILURE ORCPT=utf-8;b\x{F6}b@x.test",
            "RCPT TO:<bob@x.test> NOTIFY=FAILURE",
        ]


def test_dsn_parameters_go_on_where_the_hop_offers_dsn() -> None:
    script = HELLO + "S: 250-PIPELINING\nS: 250-SIZE\nS: 250 DSN\n" + GROUP
    script += "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT
    bob = Recipient("bob@x.test", ("SUCCESS",), "rfc822;Bob@x.test")
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port)
        asked = parcel(bob, parameters=MailParameters(ret="HDRS", envid="id 1"))
        (outcome,) = agent.deliver(asked, body(), 5.0)
        agent.close()
        assert outcome.dsn_passed_on
        size = len(CONTENT) + len(asked.trace)
        assert peer.commands[1] == f"MAIL FROM:<ann@here.test> SIZE={size} RET=HDRS ENVID=id+201"
        assert peer.commands[2] == "RCPT TO:<bob@x.test> NOTIFY=SUCCESS ORCPT=rfc822;Bob@x.test"


def test_a_message_over_the_hops_size_is_not_even_tried() -> None:
    outcomes = deliver(HELLO + "S: 250 SIZE 20\n" + QUIT)
    assert told(outcomes) == [("failed", 552, "5.3.4")]


def test_lmtp_has_an_answer_for_each_recipient() -> None:
    script = (
        "S: 220 store\nC: LHLO relay.test\nS: 250-store\nS: 250 PIPELINING\nC: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\n"
        "C: DATA\nS: 250 ok\nS: 250 ok\nS: 550 5.1.1 who\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 2.0.0 in\n"
        "S: 452 4.2.2 over quota\n" + QUIT
    )
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port, manners=Manners(hello="relay.test", lmtp=True, tls=TlsLevel.NONE, times=QUICK))
        outcomes = agent.deliver(parcel("a@x.test", "b@x.test", "c@x.test"), body(), 5.0)
        agent.close()
    assert told(outcomes) == [("delivered", 250, "2.0.0"), ("failed", 550, "5.1.1"), ("deferred", 452, "4.2.2")]


def test_credentials_are_never_sent_in_clear_text_unless_that_was_allowed_on_loopback() -> None:
    offers = HELLO + "S: 250 AUTH PLAIN\n"
    who = Credentials("ann", "sesame")
    with ScriptedPeer(offers + QUIT) as peer:
        agent = agent_for(peer.port, manners=Manners(hello="relay.test", credentials=who, times=QUICK))
        (outcome,) = agent.deliver(parcel("bob@x.test"), body(), 5.0)
        assert outcome.result.value == "deferred" and "clear text" in outcome.text
        assert not any("AUTH" in command for command in peer.commands)
    accepts = offers + "C: AUTH PLAIN AGFubgBzZXNhbWU=\nS: 235 2.7.0 in\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\n"
    accepts += "C: DATA\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT
    with ScriptedPeer(accepts) as peer:
        manners = Manners(hello="relay.test", credentials=who, clear_login_allowed=True, times=QUICK)
        agent = agent_for(peer.port, manners=manners)
        assert told(agent.deliver(parcel("bob@x.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()


def test_a_log_in_that_fails_does_not_bounce_the_mail() -> None:
    script = HELLO + "S: 250 AUTH PLAIN\nC: AUTH PLAIN\nS: 535 5.7.8 no\n-- close"
    with ScriptedPeer(script) as peer:
        manners = Manners(
            hello="relay.test", credentials=Credentials("ann", "x"), clear_login_allowed=True, times=QUICK
        )
        (outcome,) = agent_for(peer.port, manners=manners).deliver(parcel("bob@x.test"), body(), 5.0)
    assert (outcome.result.value, outcome.code, outcome.scope) == ("deferred", 535, "destination")


@pytest.mark.debian("smtp-sink")
def test_a_large_message_in_flight_takes_less_than_two_windows_of_memory(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes((b"." + b"y" * 76 + b"\r\n") * 60_000)
    large = replace(parcel("bob@there.test"), size=file.stat().st_size)
    # The peer is another process: what is traced is ours alone.
    with SmtpSink() as sink:
        agent = agent_for(sink.port)
        assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        tracemalloc.start()
        try:
            outcomes = agent.deliver(large, lambda: file.open("rb", buffering=0), 5.0)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        agent.close()
    assert told(outcomes) == [("relayed", 250, "2.0.0")]
    assert peak < 2 * 65_536


@pytest.mark.skipif(sys.platform != "linux", reason="weighed by Linux's smaps")
def test_a_hundred_messages_in_flight_take_128_kib_each_with_thread_and_connection() -> None:
    """64 KiB for a window of the body, and 64 KiB for everything else."""
    hello = "S: 220 peer\nC: EHLO\nS: 250 peer\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n"
    with ScriptedPeer(hello + "-- idle 120") as peer:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.in_flight", str(peer.port), "100"],
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        )
    assert float(done.stdout) <= 128


@pytest.mark.debian("smtp-sink")
def test_fifty_messages_reach_a_real_sink_over_one_kept_connection() -> None:
    with SmtpSink() as sink:
        idle = IdleConnections()
        agent = agent_for(sink.port, idle=idle)
        for _ in range(50):
            assert told(agent.deliver(parcel("bob@there.test"), body(), 5.0)) == [("relayed", 250, "2.0.0")]
        agent.close()
