"""Django's own SMTP back end against the fixture: plain, and under TLS with a log-in."""

import smtplib
import ssl
from collections.abc import Iterator

import pytest
import shop_mail
from django.core.mail import send_mail
from django.test import override_settings

from smtpd_core.testing import TestServer

secure = pytest.mark.smtpd(tls="starttls-required", accounts={"shop": "secret"}, auth="required")


@pytest.fixture(autouse=True)
def mail(smtpd: TestServer) -> Iterator[None]:
    # EMAIL_BACKEND is among them: Django's test runner, and pytest-django with it, would keep the mail in memory.
    with override_settings(**smtpd.settings()):
        yield


def test_the_reset_link_is_in_both_parts(smtpd: TestServer) -> None:
    shop_mail.reset_password("ann@a.test", "s3cr3t")
    letter = smtpd.inbox.wait_for(to="ann@a.test", subject="Reset*")
    assert letter.links == ["https://shop.test/reset?token=s3cr3t"]
    assert "Follow" in letter.text and "<a" in letter.html


def test_a_reader_who_is_refused_costs_the_others_nothing(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT", to="*@gone.test").reply(550)
    assert shop_mail.newsletter(["a@a.test", "b@gone.test", "c@a.test"]) == 2
    assert [one.recipients for one in smtpd.inbox] == [["a@a.test"], ["c@a.test"]]


def test_a_refusal_is_raised_where_it_should_be(smtpd: TestServer) -> None:
    smtpd.faults.on("content").reply(452)
    with pytest.raises(smtplib.SMTPDataError):
        send_mail("x", "x", None, ["ann@a.test"])
    smtpd.inbox.assert_none()


@secure
def test_tls_and_login_come_from_the_settings(smtpd: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", smtpd.authority_file)  # whom Python trusts
    send_mail("x", "x", None, ["ann@a.test"])
    assert smtpd.inbox.wait_for(user="shop").envelope.origin.tls


@secure
def test_an_unknown_authority_stops_the_mail(smtpd: TestServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        send_mail("x", "x", None, ["ann@a.test"])
    smtpd.inbox.assert_none()
