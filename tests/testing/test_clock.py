"""Days of retries pass in milliseconds, through the real queue and over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.mail import Envelope, Outcome, Parcel, Result, Stop
from relay.outbox import Outbox
from smtpd_core.testing import TestServer, VirtualClock
from smtpd_core.threads import Mailbox


def test_a_message_is_retried_for_days_and_then_bounced(smtpd: TestServer, tmp_path: Path) -> None:
    smtpd.faults.on("RCPT", to="*@full.test").reply(452)
    clock = VirtualClock()
    outcomes: Mailbox[Result] = Mailbox()

    def heard(parcel: Parcel, outcome: Outcome) -> None:
        outcomes.put(outcome.result)

    def stops(envelope: Envelope) -> list[Stop]:
        hop = f"smtp:{smtpd.host}:{smtpd.port}"
        return [Stop(n, one, hop) for n, one in enumerate(envelope.recipients)]

    began, tries = clock(), 0
    with Outbox(tmp_path, stops=stops, clock=clock, on_outcome=heard) as outbox:
        clock.wakes(outbox.wake)
        outbox.send(b"Subject: Patience\r\n\r\nx\r\n", "ann@a.test", ["bob@full.test"])
        while True:
            results = outcomes.wait(10)
            assert results, f"nothing happened after {tries} tries"
            tries += results.count(Result.DEFERRED)
            if Result.EXPIRED in results:
                break
            clock.advance(6 * 3600)
        bounce = smtpd.inbox.wait_for(to="ann@a.test", subject="*undeliver*", timeout=10)
    assert bounce.sender == ""
    assert "452" in bounce.text and tries > 5
    assert clock() - began >= 4 * 86_400


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="goes forward"):
        VirtualClock().advance(-1)
