"""smtplib logs in, or does not."""

from __future__ import annotations

import smtplib

import pytest

from smtpd_core.testing import TestServer
from tests.support.letters import send


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login", "auth_cram_md5"])
@pytest.mark.smtpd(accounts={"ann": "secret"})
def test_each_mechanism_of_smtplib_logs_in(smtpd: TestServer, mechanism: str) -> None:
    with smtpd.client(login=False) as client:
        client.user, client.password = "ann", "secret"
        name = mechanism.removeprefix("auth_").replace("_", "-").upper()
        assert client.auth(name, getattr(client, mechanism))[0] == 235
        send(client)
    assert smtpd.inbox.wait_for(user="ann").envelope.origin.user == "ann"


@pytest.mark.smtpd(accounts={"ann": "secret"})
def test_a_wrong_password_is_535(smtpd: TestServer) -> None:
    with smtpd.client(login=False) as client, pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        client.login("ann", "wrong")
    assert caught.value.smtp_code == 535


@pytest.mark.smtpd(accounts={"ann": "secret"}, auth="required")
def test_where_login_is_required_mail_without_it_is_530(smtpd: TestServer) -> None:
    with smtpd.client(login=False) as client, pytest.raises(smtplib.SMTPSenderRefused) as caught:
        send(client)
    assert caught.value.smtp_code == 530


def test_without_accounts_auth_is_not_offered(smtpd: TestServer) -> None:
    with smtpd.client() as client, pytest.raises(smtplib.SMTPNotSupportedError):
        client.login("ann", "secret")


@pytest.mark.smtpd(accounts={"ann": "secret"})
def test_no_secret_stands_in_a_transcript(smtpd: TestServer) -> None:
    with smtpd.client():
        pass
    smtpd.settle()
    assert "secret" not in smtpd.transcript and "AUTH" in smtpd.transcript


@pytest.mark.smtpd(accounts={"ann": "secret"})
def test_a_login_fails_as_often_as_told(smtpd: TestServer) -> None:
    smtpd.faults.on("AUTH").reply(454, times=3)
    with smtpd.client(login=False) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann", "secret")  # smtplib tries each mechanism that it knows
        client.login("ann", "secret")
