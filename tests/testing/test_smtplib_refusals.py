"""What smtplib makes of refusals: the exception of the stage, and who is served all the same."""

from __future__ import annotations

import smtplib
from collections.abc import Callable

import pytest

from smtpd_core.testing import TestServer
from tests.support.letters import send


def refused(kind: type[smtplib.SMTPResponseException], code: int) -> Callable[[smtplib.SMTP], None]:
    def check(client: smtplib.SMTP) -> None:
        with pytest.raises(kind) as caught:
            send(client)
        assert caught.value.smtp_code == code

    return check


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("MAIL reply 451", refused(smtplib.SMTPSenderRefused, 451)),
        ("MAIL sender=a@* reply 550", refused(smtplib.SMTPSenderRefused, 550)),
        ("DATA reply 451", refused(smtplib.SMTPDataError, 451)),
        ("content reply 552", refused(smtplib.SMTPDataError, 552)),
        ("content reply 451", refused(smtplib.SMTPDataError, 451)),
        ("MAIL reply 421", refused(smtplib.SMTPSenderRefused, 421)),
    ],
)
def test_a_refusal_at_each_stage_is_the_exception_that_it_should_be(
    smtpd: TestServer, fault: str, check: Callable[[smtplib.SMTP], None]
) -> None:
    smtpd.faults.add(fault)
    client = smtpd.client()
    check(client)
    client.close()
    smtpd.inbox.assert_none()


def test_all_recipients_refused_is_one_exception_with_each(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT").reply(550)
    with smtpd.client() as client, pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        send(client, "b@b.test", "c@c.test")
    assert {code for code, _ in caught.value.recipients.values()} == {550}


def test_some_recipients_refused_are_returned_and_the_others_get_the_message(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT", to="*@full.test").reply(452, times=2)
    with smtpd.client() as client:
        assert list(send(client, "b@b.test", "c@full.test")) == ["c@full.test"]
    assert smtpd.inbox.wait_for().recipients == ["b@b.test"]


def test_a_fault_that_is_used_up_lets_the_next_try_through(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT", to="*@full.test").reply(452, times=2)
    with smtpd.client() as client:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                send(client, "c@full.test")
        assert send(client, "c@full.test") == {}


def test_a_fault_can_wait_for_the_third_time(smtpd: TestServer) -> None:
    smtpd.faults.on("content").reply(451, after=2)
    with smtpd.client() as client:
        send(client)
        send(client)
        with pytest.raises(smtplib.SMTPDataError):
            send(client)


def test_a_refused_ehlo_makes_smtplib_say_helo(smtpd: TestServer) -> None:
    smtpd.faults.on("EHLO").reply(502)
    with smtplib.SMTP(smtpd.host, smtpd.port) as client:
        send(client)
        assert not client.does_esmtp
    assert smtpd.inbox.wait_for().envelope.origin.protocol == "SMTP"


def test_a_greeting_of_554_is_a_connect_error(smtpd: TestServer) -> None:
    smtpd.faults.on("CONNECT").reply(554)
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        smtplib.SMTP(smtpd.host, smtpd.port)
    assert caught.value.smtp_code == 554


def test_ehlo_can_hide_an_extension_from_one_client(smtpd: TestServer) -> None:
    smtpd.faults.on("EHLO", hello="old.test").drop("SIZE")
    with smtpd.client(hello="old.test") as client:
        assert not client.has_extn("size")
    with smtpd.client() as client:
        assert client.has_extn("size")


def test_a_verb_without_verdict_can_answer_otherwise(smtpd: TestServer) -> None:
    smtpd.faults.on("NOOP").reply(250, "one\ntwo")
    with smtpd.client() as client:
        assert client.noop() == (250, b"one\ntwo")


@pytest.mark.parametrize(
    ("local", "error"),
    [
        ("reply-452", smtplib.SMTPRecipientsRefused),
        ("close", smtplib.SMTPServerDisconnected),
        ("content-reply-554", smtplib.SMTPDataError),
        ("content-close", smtplib.SMTPServerDisconnected),
    ],
)
def test_a_magic_address_says_what_goes_wrong(smtpd: TestServer, local: str, error: type[Exception]) -> None:
    smtpd.faults.add("magic fault.test")
    client = smtpd.client()
    with pytest.raises(error):
        send(client, f"{local}@fault.test")
    client.close()


def test_an_address_of_the_magic_domain_that_says_nothing_is_like_any_other(smtpd: TestServer) -> None:
    smtpd.faults.magic("fault.test")
    with smtpd.client() as client:
        assert send(client, "ann-marie@fault.test", "reply-452@other.test") == {}


def test_a_fault_for_one_user_leaves_others_alone() -> None:
    with TestServer(accounts={"ann": "secret", "bob": "secret"}) as server:
        server.faults.on("MAIL", user="bob").reply(550)
        for name, works in (("ann", True), ("bob", False)):
            with server.client(login=False) as client:
                client.login(name, "secret")
                if works:
                    send(client)
                else:
                    refused(smtplib.SMTPSenderRefused, 550)(client)
    assert [one.envelope.origin.user for one in server.inbox] == ["ann"]
