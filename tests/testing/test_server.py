"""The test server itself: exact answers, settings for frameworks, options that are wrong."""

from __future__ import annotations

import socket

import pytest

from smtpd_core.testing import TestServer
from tests.support.letters import send


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


@pytest.mark.parametrize("options", [{"tls": "maybe"}, {"certificate": "unknown"}])
def test_a_wrong_option_names_the_right_ones(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is due"):
        TestServer(**options)  # type: ignore[arg-type]
