"""SmtpRelay: MX look-up and delivery in one call, a status for each recipient, the component's members."""

from __future__ import annotations

import io
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from relay import SmtpRelay, TlsLevel, TlsPolicy
from relay.hop import Hop
from smtpd_core.server import SmtpServer
from tests.support.name_server import NameServer
from tests.support.peer import ScriptedPeer

HELLO = "S: 220 peer\nC: EHLO\nS: 250-peer\nS: 250 PIPELINING\nC: MAIL\n"
TWO = (
    HELLO + "C: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 550 5.1.1 no such user\nS: 354 go\nC: <content>\n"
    "S: 250 2.0.0 taken as 4711\nC: QUIT\nS: 221 bye\n"
)

ZONES = {
    "good.test": "@ MX 10 mx\nmx A 127.0.0.1\n",
    "null.test": "@ MX 0 .\n",
    "gone.test": "@ A 127.0.0.1\n",
}


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    with NameServer(tmp_path_factory.mktemp("nsd"), ZONES) as running:
        yield running


@pytest.mark.debian("nsd")
def test_every_recipient_has_a_status_whatever_happened(dns: NameServer) -> None:
    heard: list[str] = []
    answered: list[int] = []
    told: list[str] = []
    with ScriptedPeer(TWO) as peer:
        relay = SmtpRelay(
            dns_server=dns.address,
            port=peer.port,
            timeout=5,
            connect_timeout=5,
            server_name="me.test",
            on_send_command=lambda hop, text: heard.append(text),
            on_receive_response=lambda hop, answer: answered.append(answer.code),
            on_relay_message=lambda status: told.append(status.recipient),
        )
        statuses = relay.send(
            b"Subject: x\r\n\r\nhello\r\n",
            "ann@me.test",
            ["bob@good.test", "who@good.test", "x@null.test", "y@no.gone.test", "z@[300.1.1.1]"],
        )
        assert peer.contents == [b"Subject: x\r\n\r\nhello\r\n"]
    assert relay.status_list == statuses
    assert told == [one.recipient for one in statuses]
    sent, refused, null, gone, literal = statuses
    assert sent.is_sent and sent.response_code == 250 and sent.response_text == "taken as 4711" and not sent.error
    assert sent.domain == "good.test" and sent.mail_server == "mx.good.test [127.0.0.1]"
    assert not refused.is_sent and refused.response_code == 550 and refused.error == "no such user"
    assert (null.enhanced_code, null.is_temporary, null.mail_server) == ("5.1.10", False, "")
    assert (gone.enhanced_code, gone.is_temporary) == ("5.1.2", False)
    assert literal.enhanced_code == "5.1.2"
    assert heard[0] == "EHLO me.test" and "DATA" in heard
    assert answered[0] == 220


def test_a_dead_host_is_temporary() -> None:
    with ScriptedPeer("-- close") as peer:
        relay = SmtpRelay(smarthost=f"127.0.0.1:{peer.port}", timeout=2, connect_timeout=2)
        (status,) = relay.send(b"x\r\n", "a@b.test", ["c@d.test"])
    assert not status.is_sent and status.is_temporary and status.error


def test_use_ehlo_off_says_helo() -> None:
    script = "S: 220 p\nC: HELO me.test\nS: 250 p\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n"
    with ScriptedPeer(script + "C: <content>\nS: 250 ok\nC: QUIT\nS: 221 bye\n") as peer:
        relay = SmtpRelay(smarthost=f"127.0.0.1:{peer.port}", use_ehlo=False, server_name="me.test", timeout=5)
        assert relay.send(b"x\r\n", "a@b.test", ["c@d.test"])[0].is_sent


def test_a_password_stays_here_without_tls_unless_that_is_allowed() -> None:
    offers = "S: 220 p\nC: EHLO\nS: 250-p\nS: 250 AUTH LOGIN\n"
    login = "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: YW5u\nS: 334 UGFzc3dvcmQ6\nC: c2VzYW1l\nS: 235 2.7.0 in\n"
    mail = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nC: <content>\nS: 250 ok\nC: QUIT\nS: 221 x\n"
    with ScriptedPeer(offers, offers + login + mail) as peer:
        host = f"127.0.0.1:{peer.port}"
        strict = SmtpRelay(smarthost=host, user_name="ann", password="sesame", timeout=5)
        (status,) = strict.send(b"x\r\n", "a@b.test", ["c@d.test"])
        assert not status.is_sent and "STARTTLS" in status.error
        lax = SmtpRelay(smarthost=host, user_name="ann", password="sesame", allow_clear_text_login=True, timeout=5)
        assert lax.send(b"x\r\n", "a@b.test", ["c@d.test"])[0].is_sent


def test_message_objects_name_their_own_envelope_and_blind_copies_stay_blind() -> None:
    message = EmailMessage()
    message["From"] = "Ann <ann@me.test>"
    message["To"] = "Bob <bob@there.test>"
    message["Bcc"] = "cid@there.test"
    message["Subject"] = "hello"
    message.set_content("text\n.dot\n")
    with SmtpServer(port=0, local_binding="127.0.0.1") as server:
        taken = []
        server.on_message_received = lambda session, letter: taken.append((letter.addresses, letter.open().read()))
        host, port = server.address[:2]
        relay = SmtpRelay(smarthost=f"{host}:{port}", tls=TlsPolicy(TlsLevel.NONE), timeout=10)
        assert all(status.is_sent for status in relay.send(message))
    ((addresses, content),) = taken
    assert list(addresses) == ["bob@there.test", "cid@there.test"]
    assert b"Bcc" not in content and b"\r\n.dot\r\n" in content
    assert message["Bcc"] == "cid@there.test"


def test_bytes_and_files_need_an_envelope_and_lone_line_feeds_become_crlf() -> None:
    relay = SmtpRelay(smarthost="127.0.0.1:9")
    with pytest.raises(ValueError):
        relay.send(b"x\r\n")
    with pytest.raises(ValueError):
        relay.send(b"x\r\n", "a@b.test", [])
    with pytest.raises(ValueError):
        relay.send(b"x\r\n", "a@b.test", ["c@d.test\r\nRCPT TO:<x@y>"])
    script = "S: 220 p\nC: EHLO\nS: 250 p\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nC: <content>\n"
    with ScriptedPeer(script + "S: 250 ok\nC: QUIT\nS: 221 bye\n") as peer:
        relay = SmtpRelay(smarthost=f"127.0.0.1:{peer.port}", timeout=5)
        assert relay.send(io.BytesIO(b"Subject: x\n\n.a\n"), "a@b.test", ["c@d.test"])[0].is_sent
        assert peer.contents == [b"Subject: x\r\n\r\n.a\r\n"]


def test_an_observer_that_raises_hides_nobodys_status() -> None:
    def observer(hop: Hop, text: str) -> None:
        raise RuntimeError("a mistake")

    with SmtpServer(port=0, local_binding="127.0.0.1") as server:
        server.on_message_received = lambda session, letter: None
        host, port = server.address[:2]
        relay = SmtpRelay(smarthost=f"{host}:{port}", tls=TlsPolicy(TlsLevel.NONE), on_send_command=observer)
        (status,) = relay.send(b"x\r\n", "s@me.test", ["bob@there.test"])
    assert not status.is_sent and status.is_temporary and "a mistake" in status.error
