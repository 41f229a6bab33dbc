"""Tests of the sign-up's mail: under TLS, with a login, and what happens when either fails."""

import smtplib
import ssl

import pytest
import signup

from smtpd_core.testing import TestServer

pytestmark = pytest.mark.smtpd(tls="starttls-required", accounts={"shop": "secret"}, auth="required")


@pytest.fixture
def mail(smtpd: TestServer) -> signup.Mail:
    return signup.Mail(smtpd.environ(), smtpd.ssl_context())


def test_the_code_and_the_terms_arrive(smtpd: TestServer, mail: signup.Mail) -> None:
    signup.welcome(mail, "ann@a.test", "482913")
    letter = smtpd.inbox.wait_for(to="ann@a.test", user="shop")
    assert letter.codes == ["482913"]
    assert letter.attachments == {"terms.pdf": b"%PDF-1.7 terms"}
    assert letter.envelope.origin.tls


def test_an_untrusted_certificate_stops_the_mail(smtpd: TestServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        signup.welcome(signup.Mail(smtpd.environ(), ssl.create_default_context()), "ann@a.test", "1234")
    smtpd.inbox.assert_none()


def test_a_wrong_password_stops_the_mail(smtpd: TestServer, mail: signup.Mail) -> None:
    mail.config = {**mail.config, "MAIL_PASSWORD": "wrong"}
    with pytest.raises(smtplib.SMTPAuthenticationError):
        signup.welcome(mail, "ann@a.test", "1234")
    smtpd.inbox.assert_none()


def test_a_server_that_hangs_up_is_an_error(smtpd: TestServer, mail: signup.Mail) -> None:
    smtpd.faults.on("DATA").close()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        signup.welcome(mail, "ann@a.test", "1234")
