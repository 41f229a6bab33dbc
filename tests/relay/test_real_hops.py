"""Real mail servers as next hops: Postfix, and this server itself with log-ins, client certificates and LMTP."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from certs.files import Pair, PairFiles
from relay import Outbox, Relaying, Routes, StepTimes, TlsLevel, TlsPolicy, Way
from relay.mail import Recipient
from smtpd_core import ListenerSettings, Reply
from smtpd_core.accounts import UserAccount
from smtpd_core.server import SmtpServer
from smtpd_core.wire.envelope import DeliverBy, MailParameters
from smtpd_core.wire.sasl.client import Credentials
from tests.relay.test_outbox import Told
from tests.support.peer import ScriptedPeer
from tests.support.postfix import Postfix

CLEAR = TlsPolicy(TlsLevel.NONE)
CONTENT = b"Subject: hello\r\n\r\n.dot\r\n" + b"line\r\n" * 5000 + b"last\r\n"


@pytest.mark.debian("postfix")
@pytest.mark.skipif(os.geteuid() != 0, reason="an instance of Postfix needs root")
@pytest.mark.parametrize("discard", ["", "chunking", "pipelining, chunking", "8bitmime, dsn"])
def test_postfix_takes_what_is_sent_and_says_whom_it_does_not_know(tmp_path: Path, discard: str) -> None:
    told = Told()
    with Postfix(smtpd_discard_ehlo_keywords=discard) as hop:
        stops = Routes(default=f"smtp:127.0.0.1:{hop.port}").stops
        relaying = Relaying(hello="relay.test", tls=CLEAR)
        with Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told) as outbox:
            for _ in range(3):
                outbox.send(CONTENT, "", ["bob@there.test", "nobody@there.test"])
            outcomes = told.wait(6)
        assert outcomes == [("bob@there.test", "relayed")] * 3 + [("nobody@there.test", "failed")] * 3, hop.log()
        for mail in hop.mail(3):
            # It completes headers and keeps lines in the way of its system.
            head, _, body = mail.replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
            assert b"\r\nSubject: hello" in head
            assert body == CONTENT.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def pair_of(ca: trustme.CA, folder: Path, *names: str) -> Pair:
    made = ca.issue_cert(*names)
    (folder / "key.pem").write_bytes(made.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
    return PairFiles(str(folder / "cert.pem"), str(folder / "key.pem")).read()


@pytest.mark.parametrize("with_certificate", [True, False])
def test_a_hop_that_asks_for_our_certificate_gets_it(tmp_path: Path, ca: trustme.CA, with_certificate: bool) -> None:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pair = pair_of(ca, tmp_path, "localhost", "127.0.0.1")
    told = Told()
    with SmtpServer(
        port=0,
        local_binding="127.0.0.1",
        certificate=pair,
        use_tls="explicit_require",
        require_client_certificate="require",
        client_ca_file=str(tmp_path / "ca.pem"),
    ) as server:
        server.on_message_received = lambda session, letter: None
        destination = f"smtp:127.0.0.1:{server.address[1]}"
        policy = TlsPolicy(TlsLevel.VERIFY, str(tmp_path / "ca.pem"), pair if with_certificate else None)
        relaying = Relaying(hello="relay.test", tls=policy, times=StepTimes.all(5.0, 5.0))
        stops = Routes(default=destination).stops
        with Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told) as outbox:
            outbox.send(CONTENT, "ann@x.test", ["a@b.test"])
            assert told.wait(1) == [("a@b.test", "relayed" if with_certificate else "deferred")]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
@pytest.mark.parametrize("password", ["sesame", "wrong"])
def test_a_log_in_by_each_mechanism_is_understood_by_this_server(tmp_path: Path, mechanism: str, password: str) -> None:
    users: list[str] = []
    told = Told()
    with SmtpServer(
        port=0,
        local_binding="127.0.0.1",
        use_tls="none",
        use_auth="required",
        auth_mechanisms=(mechanism,),
        clear_text_without_tls=True,
        user_accounts=[UserAccount("ann", "sesame")],
    ) as server:
        server.on_message_received = lambda session, letter: users.append(session.user_name)
        destination = f"smtp:127.0.0.1:{server.address[1]}"
        way = Way(tls=CLEAR, credentials=Credentials("ann", password), clear_login_allowed=True)
        relaying = Relaying(hello="relay.test", ways={destination: way})
        stops = Routes(default=destination).stops
        with Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told) as outbox:
            outbox.send(CONTENT, "ann@x.test", ["a@b.test"])
            is_right = password == "sesame"
            assert told.wait(1) == [("a@b.test", "relayed" if is_right else "deferred")]
    assert users == (["ann"] if is_right else [])


def test_the_next_smart_host_serves_where_the_first_is_away(tmp_path: Path) -> None:
    told = Told()
    with ScriptedPeer("S: 421 4.3.2 away\n") as first, SmtpServer(port=0, local_binding="127.0.0.1") as second:
        second.on_message_received = lambda session, letter: None
        destination = f"smtp:127.0.0.1:{first.port},127.0.0.1:{second.address[1]}"
        relaying = Relaying(hello="relay.test", tls=CLEAR)
        stops = Routes(default=destination).stops
        with Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told) as outbox:
            for number in range(20):
                outbox.send(CONTENT, "ann@x.test", [f"u{number}@b.test"])
            assert {result for _, result in told.wait(20)} == {"relayed"}
        # Known to be away, it is not asked for every message.
        assert first.sessions <= 6


def refuse_nobody(session: object, recipient: Recipient) -> Reply | None:
    return Reply(550, "5.1.1", "who") if "nobody" in recipient.address else None


def test_lmtp_over_a_unix_socket_has_an_answer_for_each_recipient(tmp_path: Path) -> None:
    told = Told()
    path = tmp_path / "lmtp.sock"
    with SmtpServer(listeners=[ListenerSettings(f"unix:{path}", "lmtp", tls="none")]) as server:
        server.on_recipient_to = refuse_nobody
        server.on_message_received = lambda session, letter: [Reply(250, "2.0.0", "kept"), Reply(452, "4.2.2", "full")]
        stops = Routes(default=f"lmtp:{path}").stops
        with Outbox(tmp_path / "s", stops=stops, on_outcome=told) as outbox:
            outbox.send(CONTENT, "", ["ann@x.test", "bob@x.test", "nobody@x.test"])
            assert told.wait(3) == [
                ("ann@x.test", "delivered"), ("bob@x.test", "deferred"), ("nobody@x.test", "failed")
            ]  # fmt: skip


def test_what_is_left_of_a_by_time_goes_on_and_nobody_is_vouched_for(tmp_path: Path) -> None:
    script = (
        "S: 220 p\nC: EHLO\nS: 250-p\nS: 250-DELIVERBY\nS: 250-AUTH PLAIN\nS: 250 PIPELINING\nC: AUTH PLAIN\n"
        "S: 235 ok\nC: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 ok\n"
        "C: QUIT\nS: 221 x\n"
    )
    told = Told()
    with ScriptedPeer(script) as peer:
        destination = f"smtp:127.0.0.1:{peer.port}"
        way = Way(tls=CLEAR, credentials=Credentials("ann", "x"), clear_login_allowed=True)
        relaying = Relaying(hello="relay.test", ways={destination: way})
        stops = Routes(default=destination).stops
        with Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told) as outbox:
            asked = MailParameters(by=DeliverBy(120, "R"), auth="ann@x.test")
            outbox.send(CONTENT, "s@x.test", ["a@b.test"], asked)
            told.wait(1)
        mail = next(line for line in peer.commands if line.startswith("MAIL"))
        assert mail in {f"MAIL FROM:<s@x.test> AUTH=<> BY={left};R" for left in range(100, 121)}


def test_an_address_that_can_not_be_written_down_is_refused_at_once(tmp_path: Path) -> None:
    with Outbox(tmp_path / "s") as outbox, pytest.raises(ValueError, match="no mail address"):
        outbox.send(b"x\r\n", "s@x.test", [Recipient("b\udcff@x.test")])
