"""Tests of the shop's mail: a password reset, a newsletter with refusals, retries."""

import smtplib

import pytest
import shop

from smtpd_core.testing import TestServer


@pytest.fixture(autouse=True)
def settings(smtpd: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in smtpd.environ().items():
        monkeypatch.setenv(name, value)


def test_the_reset_link_has_the_token(smtpd: TestServer) -> None:
    token = shop.reset_password("ann@a.test")
    letter = smtpd.inbox.wait_for(to="ann@a.test", subject="Reset*")
    assert letter.links == [f"https://shop.test/reset?token={token}"]


def test_refused_readers_are_reported_and_the_others_served(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT", to="*@gone.test").reply(550)
    assert shop.newsletter(["a@a.test", "b@gone.test", "c@a.test"]) == ["b@gone.test"]
    assert smtpd.inbox.wait_for(subject="News").recipients == ["a@a.test", "c@a.test"]


def test_a_temporary_refusal_is_tried_again(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT").reply(451, times=2)
    assert shop.send_with_retry("ann@a.test") == 3


def test_a_permanent_refusal_is_not(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT").reply(550)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        shop.send_with_retry("ann@a.test")
    smtpd.inbox.assert_none()
