"""smtplib under TLS: modes, trust, certificates that are bad, handshakes that fail."""

from __future__ import annotations

import smtplib
import socket
import ssl

import pytest

from smtpd_core.testing import TestServer
from tests.support.letters import send


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


BAD = [
    ("expired", "certificate has expired"),
    ("not-yet-valid", "not yet valid"),
    ("wrong-host", "Hostname mismatch"),
    ("self-signed", "self-signed"),
    ("untrusted", "unable to get local issuer"),
]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(("name", "reason"), BAD)
def test_a_bad_certificate_is_seen_as_what_it_is(name: str, reason: str, tls: str) -> None:
    with (
        TestServer(tls=tls, certificate=name) as server,
        pytest.raises(ssl.SSLCertVerificationError, match=reason),
    ):
        server.client()


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(("name", "reason"), BAD)
def test_one_handshake_can_show_a_bad_certificate(name: str, reason: str, tls: str) -> None:
    with TestServer(tls=tls) as server:
        server.faults.on("HANDSHAKE").certificate(name, times=1)
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            server.client()
        with server.client() as client:
            send(client)
        assert len(server.inbox) == 1
        server.settle()
        assert "TLS handshake failed" in server.transcript


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_handshake_that_stalls_runs_into_the_clients_timeout(tls: str) -> None:
    with TestServer(tls=tls) as server:
        server.faults.on("HANDSHAKE").stall(times=1)
        with pytest.raises(TimeoutError):
            server.client(timeout=0.3)
        with server.client() as client:
            send(client)
        server.inbox.assert_none(to="nobody@*")  # the stalled session ended with its client


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("HANDSHAKE close times=1", "EOF|reset"),
        ("HANDSHAKE cut 50 times=1", "EOF|reset"),
        ("HANDSHAKE cut 1000000 times=1", "EOF|reset|Connection unexpectedly closed"),
        ("HANDSHAKE send 'this is no TLS' times=1", "WRONG_VERSION_NUMBER|wrong version number|record layer failure"),
    ],
)
def test_a_handshake_that_breaks_off_is_an_error_of_tls(tls: str, fault: str, error: str) -> None:
    with TestServer(tls=tls) as server:
        server.faults.add(fault)
        with pytest.raises((OSError, smtplib.SMTPServerDisconnected), match=error):
            server.client()
        with server.client() as client:
            send(client)


def test_a_handshake_fails_for_one_client_only() -> None:
    with TestServer(tls="starttls") as server:
        server.faults.on("HANDSHAKE", hello="old.test").close()
        with server.client(hello="new.test") as client:
            send(client)
        with pytest.raises(OSError):
            server.client(hello="old.test")


def test_a_stalled_handshake_does_not_hold_up_the_end() -> None:
    with TestServer(tls="implicit") as server:
        server.faults.on("HANDSHAKE").stall()
        with socket.create_connection((server.host, server.port)) as client:
            client.sendall(b"\x16\x03\x01\x00\x05hello")
            assert server.stop(1.0)


def test_a_client_that_does_not_know_the_authority_refuses_it() -> None:
    with TestServer(tls="implicit") as server, pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
        smtplib.SMTP_SSL("localhost", server.port, context=ssl.create_default_context())


def test_without_tls_starttls_is_not_offered(smtpd: TestServer) -> None:
    with smtpd.client() as client, pytest.raises(smtplib.SMTPNotSupportedError):
        client.starttls()


@pytest.mark.smtpd(tls="starttls")
def test_starttls_can_be_refused(smtpd: TestServer) -> None:
    smtpd.faults.on("STARTTLS").reply(454)
    with smtplib.SMTP(smtpd.host, smtpd.port) as client, pytest.raises(smtplib.SMTPResponseException) as caught:
        client.starttls(context=smtpd.ssl_context())
    assert caught.value.smtp_code == 454
