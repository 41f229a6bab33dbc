"""Faults as clients of all kinds meet them: pipelining, BDAT, log-ins, clients that leave."""

from __future__ import annotations

import smtplib
import socket
from urllib.parse import unquote, urlsplit

import pytest

from smtpd_core.testing import TestServer

_LETTER = "Subject: x\r\n\r\nx\r\n"


def _connected(smtpd: TestServer) -> socket.socket:
    one = socket.create_connection((smtpd.host, smtpd.port), timeout=5)
    one.recv(4096)
    one.sendall(b"EHLO raw.test\r\n")
    one.recv(4096)
    return one


def test_a_stage_that_does_not_exist_is_told_at_once(smtpd: TestServer) -> None:
    with pytest.raises(ValueError, match="did you mean RCPT"):
        smtpd.faults.on("RCTP")


def test_faults_that_nothing_met_are_known(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT", to="*@b.tset").reply(452)
    smtpd.faults.on("RCPT").reply(451, after=1)
    smtpd.faults.on("RCPT")
    smtpd.faults.on("NOOP").reply(251)
    with smtpd.client() as client:
        client.noop()
        client.sendmail("a@a.test", ["b@b.test"], _LETTER)
    assert [str(one) for one in smtpd.faults.idle] == [
        "RCPT to=*@b.tset",
        "RCPT",
        "RCPT (which says not what goes wrong)",
    ]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
@pytest.mark.parametrize("action", ["close", "stall"])
def test_what_was_pipelined_behind_a_lost_reply_is_not_accepted(smtpd: TestServer, stage: str, action: str) -> None:
    getattr(smtpd.faults.on(stage), action)()
    with _connected(smtpd) as client:
        client.sendall(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 15 LAST\r\nSubject: x\r\n\r\nxQUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass
    smtpd.inbox.assert_none()


def test_a_connection_is_lost_within_a_chunk_too(smtpd: TestServer) -> None:
    smtpd.faults.on("content").hang_up(5)
    with _connected(smtpd) as client:
        client.sendall(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n")
        said = b""
        while said.count(b"\r\n") < 2:
            said += client.recv(4096)
        client.sendall(b"BDAT 15 LAST\r\nSubject: x\r\n\r\nx")
        assert client.recv(4096) == b""
    smtpd.inbox.assert_none()


def test_the_message_in_which_the_connection_is_lost_is_counted_once(smtpd: TestServer) -> None:
    smtpd.faults.on("content").hang_up(5, after=1, times=1)
    fates = []
    for _ in range(3):
        try:
            with smtpd.client() as client:
                client.sendmail("a@a.test", ["b@b.test"], _LETTER)
            fates.append("sent")
        except smtplib.SMTPServerDisconnected:
            fates.append("lost")
    assert fates == ["sent", "lost", "sent"]


def test_a_message_that_ends_before_the_loss_leaves_its_session_alone(smtpd: TestServer) -> None:
    smtpd.faults.on("content").hang_up(100)
    with smtpd.client() as client:
        client.sendmail("a@a.test", ["b@b.test"], _LETTER)
        assert [client.noop()[0] for _ in range(40)] == [250] * 40


@pytest.mark.parametrize("verb", ["NOOP", "RSET", "HELP", "EXPN", "XWHAT"])
def test_a_421_ends_the_session_at_every_verb(smtpd: TestServer, verb: str) -> None:
    smtpd.faults.on(verb).reply(421, times=1)
    client = smtpd.client()
    assert client.docmd(verb)[0] == 421
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.docmd("NOOP")


@pytest.mark.smtpd(accounts={"ann": "secret", "bob": "secret"})
def test_a_fault_of_auth_is_for_the_user_that_logs_in(smtpd: TestServer) -> None:
    smtpd.faults.on("AUTH", user="bob").reply(454)
    smtpd.client().quit()
    client = smtpd.client(login=False)
    with pytest.raises(smtplib.SMTPAuthenticationError) as wrong:
        client.login("bob", "wrong")
    assert wrong.value.smtp_code == 454
    client.close()


@pytest.mark.smtpd(accounts={"ann": "secret"})
def test_a_client_that_could_not_log_in_holds_up_no_exact_answer(smtpd: TestServer) -> None:
    smtpd.faults.on("AUTH").reply(535)
    with pytest.raises(smtplib.SMTPAuthenticationError) as kept:
        smtpd.client()
    smtpd.inbox.assert_none(timeout=2)
    assert kept.value.smtp_code == 535


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_stalled_session_ends_when_its_client_leaves(tls: str) -> None:
    with TestServer(tls=tls) as smtpd:
        client = smtpd.client()
        client.sock.settimeout(0.05)  # type: ignore[union-attr]
        smtpd.faults.on("MAIL").stall()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.mail("a@a.test")
        smtpd.inbox.assert_none(timeout=2)


def test_the_url_holds_any_password() -> None:
    with TestServer(accounts={"ann@a.test": "p@s:s/w"}) as smtpd:
        found = urlsplit(smtpd.url)
    assert (found.hostname, unquote(found.username or ""), unquote(found.password or "")) == (
        "127.0.0.1",
        "ann@a.test",
        "p@s:s/w",
    )


def test_that_nothing_came_can_be_said_of_one_client(smtpd: TestServer) -> None:
    with smtpd.client(hello="one.test") as client:
        client.sendmail("a@a.test", ["b@b.test"], _LETTER)
    smtpd.inbox.assert_none(hello="other.*")
    with pytest.raises(AssertionError, match="one"):
        smtpd.inbox.assert_none(hello="one.*")
