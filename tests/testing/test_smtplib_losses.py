"""What smtplib makes of connections that are lost, slow or spoiled."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable

import pytest

from smtpd_core.testing import Fault, Faults, TestServer
from tests.support.letters import send


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
