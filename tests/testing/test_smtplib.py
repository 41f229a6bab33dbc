"""What smtplib makes of a server: plain, under TLS, with AUTH, and of every fault. One sentence a test."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage

import pytest

from smtpd_core.testing import Fault, Faults, TestServer

CONTENT = "Subject: Hello\r\n\r\nHi\r\n"


def send(
    client: smtplib.SMTP, *to: str, sender: str = "a@a.test", content: str = CONTENT
) -> dict[str, tuple[int, bytes]]:
    return client.sendmail(sender, list(to) or ["b@b.test"], content)


# Without faults


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


# TLS


@pytest.mark.parametrize("tls", ["starttls", "starttls-required", "implicit"])
def test_a_client_that_trusts_the_test_authority_sends_under_tls(tls: str) -> None:
    with TestServer(tls=tls) as server:
        with server.client() as client:
            send(client)
        assert server.inbox.wait_for().envelope.origin.tls.startswith("TLSv1.3")


@pytest.mark.smtpd(tls="starttls-required")
def test_where_tls_is_required_mail_without_it_is_refused(smtpd: TestServer) -> None:
    with smtplib.SMTP(smtpd.host, smtpd.port) as client, pytest.raises(smtplib.SMTPSenderRefused) as caught:
        send(client)
    assert caught.value.smtp_code == 530


@pytest.mark.parametrize(
    ("leaf", "reason"), [("expired", "expired"), ("wrong-host", "Hostname mismatch"), ("self-signed", "self-signed")]
)
def test_a_bad_certificate_is_seen_as_what_it_is(leaf: str, reason: str) -> None:
    with TestServer(tls="starttls", certificate=leaf) as server, smtplib.SMTP("localhost", server.port) as client:
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            client.starttls(context=server.ssl_context())
        client.close()


def test_a_client_that_does_not_know_the_authority_refuses_it() -> None:
    with TestServer(tls="implicit") as server, pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
        smtplib.SMTP_SSL("localhost", server.port, context=ssl.create_default_context())


def test_without_tls_starttls_is_not_offered(smtpd: TestServer) -> None:
    with smtpd.client() as client, pytest.raises(smtplib.SMTPNotSupportedError):
        client.starttls()


# AUTH


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


# Faults that are replies


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


@pytest.mark.smtpd(accounts={"ann": "secret"})
def test_a_login_fails_as_often_as_told(smtpd: TestServer) -> None:
    smtpd.faults.on("AUTH").reply(454, times=3)
    with smtpd.client(login=False) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann", "secret")  # smtplib tries each mechanism that it knows
        client.login("ann", "secret")


@pytest.mark.smtpd(tls="starttls")
def test_starttls_can_be_refused(smtpd: TestServer) -> None:
    smtpd.faults.on("STARTTLS").reply(454)
    with smtplib.SMTP(smtpd.host, smtpd.port) as client, pytest.raises(smtplib.SMTPResponseException) as caught:
        client.starttls(context=smtpd.ssl_context())
    assert caught.value.smtp_code == 454


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


# Faults of the connection


def lost(act: Callable[[smtplib.SMTP], object], fault: Callable[[Faults], Fault], server: TestServer) -> None:
    fault(server.faults)
    client = smtplib.SMTP(server.host, server.port)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        act(client)
    client.close()


@pytest.mark.parametrize("stage", ["EHLO", "MAIL", "RCPT", "DATA", "content"])
def test_a_connection_cut_at_each_stage_is_a_disconnection(smtpd: TestServer, stage: str) -> None:
    lost(send, lambda faults: faults.on(stage).close(), smtpd)


def test_a_connection_cut_instead_of_the_banner_is_a_disconnection(smtpd: TestServer) -> None:
    smtpd.faults.on("CONNECT").close()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        smtplib.SMTP(smtpd.host, smtpd.port)


def test_a_reply_cut_in_the_middle_is_a_disconnection(smtpd: TestServer) -> None:
    lost(send, lambda faults: faults.on("MAIL").cut(5), smtpd)


def test_a_message_accepted_but_cut_before_the_reply_is_in_the_inbox(smtpd: TestServer) -> None:
    lost(send, lambda faults: faults.on("content").close(), smtpd)
    assert smtpd.inbox.wait_for().subject == "Hello"


def test_a_message_refused_after_the_dot_is_not_in_the_inbox(smtpd: TestServer) -> None:
    smtpd.faults.on("content").reply(554)
    with smtpd.client() as client, pytest.raises(smtplib.SMTPDataError):
        send(client)
    smtpd.inbox.assert_none()


def test_a_connection_cut_within_the_content_leaves_no_letter(smtpd: TestServer) -> None:
    smtpd.faults.on("content").hang_up(1000)
    client = smtpd.client()
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(client, content="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 100_000)
    client.close()
    smtpd.inbox.assert_none()


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "content"])
def test_a_server_that_stalls_runs_into_the_clients_timeout(smtpd: TestServer, stage: str) -> None:
    smtpd.faults.on(stage).stall()
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)) as caught:
        client = smtplib.SMTP(smtpd.host, smtpd.port, timeout=0.1)
        send(client)
    assert isinstance(caught.value, TimeoutError) or "timed out" in str(caught.value)


def test_a_slow_banner_is_awaited(smtpd: TestServer) -> None:
    smtpd.faults.on("CONNECT").delay(0.1)
    began = time.monotonic()
    with smtplib.SMTP(smtpd.host, smtpd.port, timeout=5):
        assert time.monotonic() - began >= 0.1


def test_a_slow_reader_still_gets_the_message(smtpd: TestServer) -> None:
    smtpd.faults.on("DATA").read_late(0.05)
    with smtpd.client() as client:
        send(client)
    assert smtpd.inbox.wait_for()


def test_a_reply_in_single_octets_is_read_whole(smtpd: TestServer) -> None:
    smtpd.faults.on("EHLO").split()
    with smtpd.client() as client:
        assert client.has_extn("pipelining")
        send(client)
    assert smtpd.inbox.wait_for()


def test_a_malformed_reply_is_an_error_of_smtplib(smtpd: TestServer) -> None:
    smtpd.faults.on("MAIL").send(b"what?\r\n")
    client = smtplib.SMTP(smtpd.host, smtpd.port)
    with pytest.raises(smtplib.SMTPSenderRefused) as caught:
        send(client)
    assert caught.value.smtp_code == -1
    client.close()


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


@pytest.mark.smtpd(tls="starttls")
def test_a_handshake_that_stalls_runs_into_the_clients_timeout(smtpd: TestServer) -> None:
    smtpd.faults.on("HANDSHAKE").stall()
    client = smtplib.SMTP("localhost", smtpd.port, timeout=0.2)
    with pytest.raises(TimeoutError):
        client.starttls(context=smtpd.ssl_context())
    client.close()


@pytest.mark.smtpd(tls="starttls")
def test_a_connection_that_ends_instead_of_a_handshake_is_an_error(smtpd: TestServer) -> None:
    smtpd.faults.on("HANDSHAKE").close(times=1)
    client = smtplib.SMTP("localhost", smtpd.port)
    with pytest.raises((ssl.SSLError, OSError)):
        client.starttls(context=smtpd.ssl_context())
    client.close()
    with smtpd.client() as client:
        send(client)


# Addresses that are faults


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


# The kit itself


def test_none_is_exact_because_open_connections_are_awaited(smtpd: TestServer) -> None:
    sock = socket.create_connection((smtpd.host, smtpd.port))
    with pytest.raises(TimeoutError, match="still open"):
        smtpd.inbox.assert_none(timeout=0.05)
    sock.close()
    smtpd.inbox.assert_none()


def test_the_settings_of_frameworks_come_as_environment(smtpd: TestServer) -> None:
    found = smtpd.environ()
    assert found["EMAIL_PORT"] == found["MAIL_PORT"] == str(smtpd.port)
    assert smtpd.url == f"smtp://127.0.0.1:{smtpd.port}"


def test_the_session_server_is_clean_at_the_start_of_each_test(smtpd_session: TestServer) -> None:
    smtpd_session.faults.on("NOOP").reply(500)
    with smtpd_session.client() as client:
        send(client)
    assert len(smtpd_session.inbox) == 1


def test_the_session_server_is_clean_again(smtpd_session: TestServer) -> None:
    assert len(smtpd_session.inbox) == 0
    with smtpd_session.client() as client:
        assert client.noop()[0] == 250


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("RCPT", "a stage and an action"),
        ("RCPT to=a@b", "no action"),
        ("RCPT explode", "no action 'explode'"),
        ("RCPT reply", "needs a code"),
        ("RCPT reply abc", "a whole number"),
        ("RCPT reply 999", "not an SMTP reply code"),
        ("RCPT delay soon", "seconds are due"),
        ("magic", "a domain is due"),
    ],
)
def test_a_fault_that_is_none_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Faults().add(text)


@pytest.mark.parametrize("options", [{"tls": "maybe"}, {"certificate": "unknown"}])
def test_a_wrong_option_names_the_right_ones(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is due"):
        TestServer(**options)  # type: ignore[arg-type]
