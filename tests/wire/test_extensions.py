"""Every extension is a row: shown when its condition holds, and dropped by a listener that does not want it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtpd_core.wire.extensions import EXTENSIONS, Standing, announced
from smtpd_core.wire.server import ProtocolSettings
from tests.support.transcript import play

EVERYTHING = ProtocolSettings(
    service="submission", starttls=True, mechanisms=("PLAIN",), expn=True, etrn=True, requiretls=True
)
BEFORE = Standing(trusted=True)
AFTER = Standing(tls=True, trusted=True)


def keywords(settings: ProtocolSettings, standing: Standing) -> set[str]:
    return {line.split()[0] for line in announced(settings, standing)}


@pytest.mark.parametrize("row", EXTENSIONS, ids=lambda row: row.keyword)
def test_each_is_shown_somewhere_and_can_be_dropped(row):
    assert row.keyword in keywords(EVERYTHING, BEFORE) | keywords(EVERYTHING, AFTER)
    without = replace(EVERYTHING, without=frozenset({row.keyword.lower()}))
    assert row.keyword not in keywords(without, BEFORE) | keywords(without, AFTER)
    assert not (set(row.mail) - {"BODY"}) & set(without.mail_parsers)
    assert not set(row.rcpt) & set(without.rcpt_parsers)


@pytest.mark.parametrize(
    "keyword, settings, standing, shown",
    [
        ("STARTTLS", {}, BEFORE, True),
        ("STARTTLS", {}, AFTER, False),
        ("STARTTLS", {"starttls": False}, BEFORE, False),
        ("AUTH", {}, BEFORE, False),
        ("AUTH", {}, AFTER, True),
        ("AUTH", {"clear_text_without_tls": True}, BEFORE, True),
        ("AUTH", {}, AFTER._replace(logged_in=True), False),
        ("EXPN", {"expn": False}, BEFORE, False),
        ("ETRN", {"etrn": False}, BEFORE, False),
        ("REQUIRETLS", {}, BEFORE, False),
        ("REQUIRETLS", {}, AFTER, True),
        ("REQUIRETLS", {"requiretls": False}, AFTER, False),
        ("FUTURERELEASE", {"service": "mx"}, BEFORE, False),
        ("FUTURERELEASE", {"max_hold": 0}, BEFORE, False),
        ("XCLIENT", {}, Standing(), False),
        ("XFORWARD", {}, Standing(), False),
        ("LIMITS", {"max_recipients": 0}, BEFORE, False),
        ("BINARYMIME", {"without": frozenset({"CHUNKING"})}, BEFORE, False),
    ],
)
def test_the_condition_of_each(keyword, settings, standing, shown):
    assert (keyword in keywords(replace(EVERYTHING, **settings), standing)) is shown


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"max_message_size": 1000}, "SIZE 1000"),
        ({"max_message_size": 0}, "SIZE 0"),
        ({"max_recipients": 7}, "LIMITS RCPTMAX=7"),
        ({"max_hold": 3600}, "FUTURERELEASE 3600 9999-12-31T23:59:59Z"),
        ({"min_deliver_by": 240}, "DELIVERBY 240"),
        ({"priority_profile": "MIXER"}, "MT-PRIORITY MIXER"),
    ],
)
def test_what_stands_behind_the_keyword(settings, line):
    """RFC 1870 4, RFC 9422 4, RFC 4865 4, RFC 2852 3, RFC 6710 3."""
    assert line in announced(replace(EVERYTHING, **settings), BEFORE)


def test_without_enhanced_codes_no_reply_carries_one():
    play(
        """
        S: 220 mx.test ready
        C: HELO probe
        S: 250 mx.test
        C: MAIL FROM:<>
        S: 250 Sender ok
        C: FOO
        S: 500 Unknown command
        C: HELP MAIL
        S: 214 MAIL FROM:<address> [parameters]
    """,
        without=frozenset({"ENHANCEDSTATUSCODES"}),
    )
