"""Flask-Mail against the fixture: from a request to a letter."""

import smtplib

import pytest
from flask.testing import FlaskClient
from signup_app import create_app

from smtpd_core.testing import TestServer

pytestmark = pytest.mark.smtpd(tls="starttls-required", accounts={"shop": "secret"}, auth="required")


@pytest.fixture
def browser(smtpd: TestServer) -> FlaskClient:
    # MAIL_SUPPRESS_SEND is among them: where TESTING is set, Flask-Mail would send nothing.
    return create_app({"TESTING": True, **smtpd.settings()}).test_client()


def test_the_code_and_the_terms_arrive(smtpd: TestServer, browser: FlaskClient) -> None:
    assert browser.post("/signup", data={"address": "ann@a.test"}).status_code == 200
    letter = smtpd.inbox.wait_for(to="ann@a.test", user="shop")
    assert letter.codes == ["482913"]
    assert letter.attachments == {"terms.pdf": b"%PDF-1.7 terms"}
    assert letter.envelope.origin.tls


def test_a_full_mailbox_is_an_error_of_the_request(smtpd: TestServer, browser: FlaskClient) -> None:
    smtpd.faults.on("RCPT", to="*@full.test").reply(452)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        browser.post("/signup", data={"address": "ann@full.test"})
    smtpd.inbox.assert_none()
