"""What smtplib makes of a server that works: messages, extensions, limits, several messages a connection."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage

import pytest

from smtpd_core.testing import TestServer
from tests.support.letters import CONTENT, send


def test_a_message_arrives_with_its_envelope(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        assert send(client, "b@b.test", "c@c.test") == {}
    letter = smtpd.inbox.wait_for(to="c@c.test")
    assert (letter.sender, letter.recipients, letter.subject) == ("a@a.test", ["b@b.test", "c@c.test"], "Hello")
    assert letter.content == CONTENT.encode()


def test_the_null_sender_is_an_empty_string(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        send(client, sender="")
    assert smtpd.inbox.wait_for().sender == ""


def test_an_email_message_is_sent_with_its_own_addresses(smtpd: TestServer) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@a.test", "b@b.test", "Grüße"
    message.set_content("Ä\n")
    with smtpd.client() as client:
        client.send_message(message)
    letter = smtpd.inbox.wait_for(to="b@b.test")
    assert (letter.subject, letter.text) == ("Grüße", "Ä\n")


def test_an_internationalised_address_goes_by_smtputf8(smtpd: TestServer) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "dörte@a.test", "b@b.test", "x"
    message.set_content("x\n")
    with smtpd.client() as client:
        client.send_message(message)
    letter = smtpd.inbox.wait_for()
    assert letter.sender == "dörte@a.test" and letter.envelope.parameters.smtputf8


@pytest.mark.smtpd(without=["SMTPUTF8"])
def test_without_smtputf8_smtplib_refuses_to_send_such_an_address(smtpd: TestServer) -> None:
    message = EmailMessage()
    message["From"], message["To"] = "dörte@a.test", "b@b.test"
    message.set_content("x\n")
    with smtpd.client() as client, pytest.raises(smtplib.SMTPNotSupportedError):
        client.send_message(message)


@pytest.mark.parametrize("extension", ["PIPELINING", "SIZE", "8BITMIME", "DSN", "CHUNKING"])
def test_an_extension_can_be_left_out(extension: str) -> None:
    with TestServer(without=[extension]) as server, server.client() as client:
        assert not client.has_extn(extension)


@pytest.mark.smtpd(max_data_size=1000)
def test_a_message_over_the_announced_size_is_refused_at_mail(smtpd: TestServer) -> None:
    with smtpd.client() as client, pytest.raises(smtplib.SMTPSenderRefused) as caught:
        send(client, content="x" * 2000)
    assert caught.value.smtp_code == 552


@pytest.mark.smtpd(max_recipients=2)
def test_recipients_over_the_limit_are_refused_and_the_others_served(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        refused = send(client, "a@b.test", "b@b.test", "c@b.test")
    assert refused["c@b.test"][0] == 452
    assert smtpd.inbox.wait_for().recipients == ["a@b.test", "b@b.test"]


def test_a_source_address_is_seen_by_the_server(smtpd: TestServer) -> None:
    with smtplib.SMTP(smtpd.host, smtpd.port, source_address=("127.0.0.2", 0)) as client:
        send(client)
    assert smtpd.inbox.wait_for().envelope.origin.address == "127.0.0.2"


def test_the_hello_name_selects_an_inbox(smtpd: TestServer) -> None:
    for name in ("worker1.test", "worker2.test"):
        with smtpd.client(hello=name) as client:
            send(client)
    assert len(smtpd.inbox.filter(hello="worker1.*")) == 1


def test_several_messages_of_one_connection_are_counted(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        for _ in range(3):
            send(client)
    assert smtpd.inbox.wait_for(count=3).subject == "Hello"
    assert len(smtpd.inbox) == 3


def test_vrfy_and_help_and_noop_are_answered(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        assert client.verify("ann")[0] == 252
        assert b"MAIL" in client.help()
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250


def test_a_line_that_begins_with_a_dot_arrives_as_it_was(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        send(client, content="Subject: x\r\n\r\n.\r\n..a\r\n")
    assert smtpd.inbox.wait_for().content == b"Subject: x\r\n\r\n.\r\n..a\r\n"
