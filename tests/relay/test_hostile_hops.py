"""Next hops that lie, dawdle or shout: nothing of that loses mail, holds a courier for long or fills the disk."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from relay.agents.smtp import SmtpAgent
from relay.hop import Hop, Manners, StepTimes, TlsLevel
from relay.idle import IdleConnections, IdleLimits
from relay.mail import Outcome, Recipient
from relay.plan import Plan
from tests.support.parcels import CONTENT, QUICK, agent_for, body, parcel, told
from tests.support.peer import ScriptedPeer

HELLO = "S: 220 peer.test\nC: EHLO relay.test\nS: 250-peer.test\n"
PIPE = HELLO + "S: 250 PIPELINING\n"
PLAIN = HELLO + "S: 250 HELP\n"
QUIT = "C: QUIT\nS: 221 bye\n"
GROUP = "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\n"


def deliver(script: str, *addresses: str | Recipient, content: bytes = CONTENT) -> list[Outcome]:
    with ScriptedPeer(script) as peer:
        agent = agent_for(peer.port)
        outcomes = agent.deliver(parcel(*addresses or ("bob@there.test",), content=content), body(content), 5.0)
        agent.close()
    return outcomes


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_yes_that_comes_before_the_content_is_no_delivery(size: int) -> None:
    script = PIPE + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\n-- say 354 go\\r\\n250 2.0.0 already\\r\\n\n"
    outcomes = deliver(script + "-- hang", content=b"Subject: x\r\n\r\n" + b"y\r\n" * size)
    assert [(one.result.value, one.scope) for one in outcomes] == [("deferred", "host")]


def test_a_hop_that_hangs_is_waited_for_once_however_many_recipients_there_are() -> None:
    manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=StepTimes.all(0.3, 2.0))
    with ScriptedPeer(PLAIN + "C: MAIL\n-- hang") as peer:
        agent = agent_for(peer.port, manners=manners)
        began = time.monotonic()
        outcomes = agent.deliver(parcel(*(f"u{n}@there.test" for n in range(1000))), body(), 5.0)
        agent.close()
        assert peer.sessions == 1
    assert time.monotonic() - began < 3
    assert {one.result.value for one in outcomes} == {"deferred"}


def test_a_hop_that_closes_with_421_is_not_asked_again_for_the_other_recipients() -> None:
    with ScriptedPeer(PLAIN + "C: MAIL\nS: 421 4.3.2 not now\n") as peer:
        agent = agent_for(peer.port)
        outcomes = agent.deliver(parcel(*(f"u{n}@there.test" for n in range(1000))), body(), 5.0)
        agent.close()
        assert peer.sessions == 1
    assert {(one.result.value, one.code) for one in outcomes} == {("deferred", 421)}


def test_what_a_hop_says_is_kept_short_and_on_one_line() -> None:
    shout = "".join(f"S: 550-5.1.1 \x1b[31mline {n} {'x' * 1000}\n" for n in range(200))
    (one,) = deliver(
        PIPE + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\n" + shout + "S: 550 5.1.1 end\nS: 503 nobody\n" + QUIT
    )
    assert told([one]) == [("failed", 550, "5.1.1")]
    assert len(one.text) <= 1000
    assert one.text.isprintable()
    assert "line 0" in one.text


@pytest.mark.parametrize(
    "extension", ["SIZE ²", "LIMITS RCPTMAX=²", "LIMITS MAILMAX=²", "LIMITS RCPTMAX=" + "9" * 3000]
)
def test_a_number_that_is_none_says_nothing(extension: str) -> None:
    script = HELLO + f"S: 250-{extension}\nS: 250 PIPELINING\n" + GROUP
    outcomes = deliver(script + "S: 354 go\nC: <content>\nS: 250 2.0.0 yes\n" + QUIT)
    assert told(outcomes) == [("relayed", 250, "2.0.0")]


def test_a_refusal_of_the_last_host_is_not_final_while_a_better_one_is_only_away() -> None:
    with ScriptedPeer("-- close") as primary, ScriptedPeer("S: 554 5.3.2 no mail here\n") as backup:
        agent = agent_for(primary.port, backup.port)
        (one,) = agent.deliver(parcel("bob@there.test"), body(), 5.0)
        agent.close()
    assert one.result.value == "deferred"


def test_what_we_found_ourselves_is_not_put_into_the_hops_mouth() -> None:
    (one,) = deliver(HELLO + "S: 250 SIZE 10\n" + QUIT)
    assert told([one]) == [("failed", 552, "5.3.4")]
    assert one.remote == ""


def test_a_hop_that_takes_few_domains_at_once_gets_few() -> None:
    def transaction(recipients: int) -> str:
        return (
            "C: MAIL\n"
            + "C: RCPT\n" * recipients
            + "C: DATA\n"
            + "S: 250 ok\n" * (recipients + 1)
            + "S: 354 go\nC: <content>\nS: 250 2.0.0 yes\n"
        )

    script = HELLO + "S: 250-LIMITS RCPTDOMAINMAX=1\nS: 250 PIPELINING\n" + transaction(2) + transaction(1) + QUIT
    outcomes = deliver(script, "a@one.test", "b@two.test", "c@ONE.test")
    assert told(outcomes) == [("relayed", 250, "2.0.0")] * 3


def test_connections_that_rest_are_left_without_waiting_for_a_last_word() -> None:
    idle = IdleConnections(IdleLimits(rest=0.0))
    accept = PIPE + GROUP + "S: 354 go\nC: <content>\nS: 250 2.0.0 yes\n-- hang"
    with ScriptedPeer(accept) as peer:
        hop = Hop("peer.test", "127.0.0.1", peer.port)
        manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=replace(QUICK, quit=5.0))
        agent = SmtpAgent(lambda _: Plan((hop,)), lambda _: manners, idle)
        agent.deliver(parcel("bob@there.test"), body(), 5.0)
        began = time.monotonic()
        idle.expire()
        agent.deliver(parcel("bob@there.test"), body(), 5.0)
        agent.close()
    assert time.monotonic() - began < 3
