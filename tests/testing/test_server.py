"""The test server itself: exact answers, settings for frameworks, options that are wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from smtpd_core.net.guard import GuardSettings
from smtpd_core.testing import TestServer
from smtpd_core.threads import start_loop
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


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"tsl": "implicit"}, "TestServer has no option 'tsl'; did you mean 'tls'"),
        ({"acounts": {}}, "no option 'acounts'; did you mean 'accounts'"),
        ({"max_data_sise": 1}, "did you mean 'max_data_size'"),
        ({"without": ["SIEZ"]}, "no extension 'SIEZ'; did you mean SIZE"),
    ],
)
def test_a_slip_in_an_option_is_told_with_the_nearest(options: dict[str, object], near: str) -> None:
    with pytest.raises((TypeError, ValueError), match=near):
        TestServer(**options)  # type: ignore[arg-type]


def test_an_extension_that_is_dropped_may_not_be_misspelt(smtpd: TestServer) -> None:
    with pytest.raises(ValueError, match="did you mean STARTTLS"):
        smtpd.faults.on("EHLO").drop("STARTLS")
    smtpd.faults.on("EHLO").drop("XPRIVATE")


@pytest.mark.smtpd(without="size")
def test_a_single_extension_needs_no_list(smtpd: TestServer) -> None:
    with smtpd.client() as client:
        assert not client.has_extn("SIZE") and client.has_extn("DSN")


@pytest.mark.parametrize("options", [{"auth": "off"}, {"without": ["AUTH"]}])
def test_no_login_is_tried_where_the_server_has_none(options: dict[str, object]) -> None:
    with TestServer(accounts={"ann": "secret"}, **options) as smtpd, smtpd.client() as client:  # type: ignore[arg-type]
        assert client.noop()[0] == 250


def test_the_server_stops_when_the_authority_is_gone_already() -> None:
    with TestServer(tls="starttls") as smtpd:
        Path(smtpd.authority_file).unlink()
    assert not smtpd.server.active


def test_all_of_it_works_on_an_ipv6_address() -> None:
    with TestServer(local_binding="::1") as smtpd:
        with smtpd.client() as client:
            send(client)
        assert smtpd.url == f"smtp://[::1]:{smtpd.port}"
        smtpd.inbox.assert_none(to="nobody@*")


def test_none_is_exact_on_a_server_that_is_full() -> None:
    """The connection by which the server is asked was refused, and the answer was that no server is running."""
    with TestServer(guard=GuardSettings(max_connections=1)) as smtpd:
        client = smtpd.client()

        def later() -> None:
            send(client)
            client.quit()

        loop = start_loop("later", later)
        with pytest.raises(AssertionError, match="expected no letter"):
            smtpd.inbox.assert_none()
        assert loop.join(5)
        with smtpd.client(), pytest.raises(TimeoutError, match=r"is it running, or full\?\n.* -- connect"):
            smtpd.inbox.assert_none(timeout=0.2)
