"""What answers mean: result, scope and kind, by step."""

from __future__ import annotations

import pytest

from relay.hop import Word
from relay.judge import host_is_in_trouble, judged
from relay.mail import Result
from smtpd_core.wire.answers import Answer

D, F, R, L = Result.DEFERRED, Result.FAILED, Result.RELAYED, Result.DELIVERED

TABLE = [
    # step, code, enhanced, text -> result, scope, kind
    ("connect", 0, "", "", D, "host", ""),
    ("greeting", 0, "", "", D, "host", ""),
    ("greeting", 421, "4.3.2", "", D, "host", ""),
    ("greeting", 450, "", "", D, "host", ""),
    ("greeting", 554, "5.3.2", "", F, "host", ""),
    ("hello", 521, "", "", F, "host", ""),
    ("tls", 454, "4.7.0", "", D, "host", ""),
    ("tls", 501, "", "", D, "host", ""),
    ("auth", 535, "5.7.8", "", D, "destination", ""),
    ("auth", 0, "", "", D, "destination", ""),
    ("mail", 550, "5.7.1", "", F, "message", ""),
    ("mail", 451, "4.3.0", "", D, "host", ""),
    ("mail", 451, "4.1.8", "", D, "message", ""),
    ("mail", 452, "4.3.1", "", D, "host", ""),
    ("mail", 552, "5.3.4", "", F, "message", ""),
    ("mail", 0, "", "", D, "host", ""),
    ("rcpt", 550, "5.1.1", "", F, "recipient", "no such user"),
    ("rcpt", 550, "", "", F, "recipient", "no such user"),
    ("rcpt", 553, "5.1.3", "", F, "recipient", "no such user"),
    ("rcpt", 550, "5.7.1", "", F, "recipient", ""),
    ("rcpt", 550, "5.2.2", "", F, "recipient", "mailbox full"),
    ("rcpt", 552, "5.2.2", "", F, "recipient", "mailbox full"),
    ("rcpt", 452, "4.2.2", "", D, "recipient", "mailbox full"),
    ("rcpt", 552, "", "", D, "recipient", "too many recipients"),
    ("rcpt", 452, "4.5.3", "", D, "recipient", "too many recipients"),
    ("rcpt", 451, "4.5.3", "", D, "recipient", "too many recipients"),
    ("rcpt", 550, "5.5.3", "", F, "recipient", ""),
    ("rcpt", 450, "4.7.1", "Greylisted, try again later", D, "recipient", "greylisted"),
    ("rcpt", 451, "", "Graylisting in action", D, "recipient", "greylisted"),
    ("rcpt", 450, "4.2.1", "", D, "recipient", ""),
    ("rcpt", 421, "", "", D, "host", ""),
    ("rcpt", 354, "", "", D, "host", "wrong code"),
    ("data", 451, "", "", D, "message", ""),
    ("data", 554, "", "", F, "message", ""),
    ("data", 250, "", "", D, "host", "wrong code"),
    ("content", 250, "2.0.0", "", R, "recipient", ""),
    ("content", 354, "", "", D, "host", "wrong code"),
    ("content", 451, "4.7.1", "greylisted", D, "message", "greylisted"),
    ("content", 552, "5.3.4", "", F, "message", ""),
    ("content", 0, "", "", D, "host", "lost"),
]


@pytest.mark.parametrize(("step", "code", "enhanced", "text", "result", "scope", "kind"), TABLE)
def test_the_table(step: str, code: int, enhanced: str, text: str, result: Result, scope: str, kind: str) -> None:
    verdict = judged(Word(step, Answer(code, enhanced, text) if code else None, "" if code else "gone"))
    assert (verdict.result, verdict.scope, verdict.kind) == (result, scope, kind)


def test_under_lmtp_the_content_is_judged_for_each_recipient_and_success_is_delivery() -> None:
    assert judged(Word("content", Answer(250)), lmtp=True).result is L
    assert judged(Word("content", Answer(550, "5.2.2")), lmtp=True).scope == "recipient"


@pytest.mark.parametrize("code", [*range(200, 600, 7), 0])
@pytest.mark.parametrize("step", ["connect", "greeting", "hello", "tls", "auth", "mail", "rcpt", "data", "content"])
def test_only_a_5xx_fails_and_only_a_2xx_to_the_content_succeeds(step: str, code: int) -> None:
    result = judged(Word(step, Answer(code) if code else None)).result
    if result is F:
        assert code >= 500
    if result in (R, L):
        assert step == "content" and 200 <= code < 300


def test_another_host_is_tried_for_the_hosts_own_trouble_and_never_after_the_final_dot() -> None:
    assert host_is_in_trouble(Word("connect"))
    assert host_is_in_trouble(Word("greeting", Answer(554)))
    assert host_is_in_trouble(Word("rcpt", Answer(421)))
    assert not host_is_in_trouble(Word("content"))
    assert not host_is_in_trouble(Word("rcpt", Answer(450)))
    assert not host_is_in_trouble(Word("mail", Answer(550)))
