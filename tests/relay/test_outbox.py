"""The outbox: kept when send() returns, delivered over real connections, shared by processes, safe across restarts."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from certs.files import PairFiles
from relay import Domain, Outbox, Relaying, RetryPolicy, Routes, StepTimes, TlsLevel, TlsPolicy, Way
from relay.mail import Outcome, Parcel, Recipient
from smtpd_core.accounts import UserAccount
from smtpd_core.server import SmtpServer
from smtpd_core.wire.envelope import MailParameters
from smtpd_core.wire.sasl.client import Credentials
from tests.relay.test_dispatcher import actions
from tests.support.peer import ScriptedPeer


class Told:
    """Outcomes as they come, to wait for."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def __call__(self, parcel: Parcel, outcome: Outcome) -> None:
        address = next(stop.recipient.address for stop in parcel.stops if stop.number == outcome.number)
        with self._changed:
            self.outcomes.append((address, outcome.result.value))
            self._changed.notify_all()

    def wait(self, count: int, timeout: float = 20.0) -> list[tuple[str, str]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.outcomes) >= count, timeout), self.outcomes
            return sorted(self.outcomes)

    def wait_for(self, outcome: tuple[str, str], timeout: float = 20.0) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: outcome in self.outcomes, timeout)


def local(mail: Path, smarthost: str = "127.0.0.1:9") -> Routes:
    return Routes(
        {"here.test": Domain(f"maildir:{mail}/{{user}}", users={"ann"}.__contains__)}, default=f"smtp:{smarthost}"
    )


def files(mail: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(mail.glob("*/new/*"))]


def test_a_message_goes_through_spool_and_queue_into_a_mailbox_and_its_bounce_comes_back(tmp_path: Path) -> None:
    told = Told()
    routes = local(tmp_path / "mail")
    with Outbox(tmp_path / "state", stops=routes.stops, on_outcome=told) as outbox:
        id = outbox.send(b"Subject: x\n\nhello\n", "ann@here.test", ["ann@here.test", "nobody@here.test"])
        assert told.wait(3) == [
            ("ann@here.test", "delivered"),
            ("ann@here.test", "delivered"),
            ("nobody@here.test", "failed"),
        ]
    contents = files(tmp_path / "mail")
    assert len(contents) == 2
    assert any(content.endswith(b"Subject: x\r\n\r\nhello\r\n") for content in contents)
    bounce = next(content for content in contents if b"delivery-status" in content)
    assert b"Final-Recipient: rfc822;nobody@here.test" in bounce and b"Status: 5.1.1" in bounce
    assert len(id) == 15


def test_what_was_sent_before_a_stop_is_delivered_after_the_next_start(tmp_path: Path) -> None:
    routes = local(tmp_path / "mail")
    # A process that spools and dies at once: its segment is an orphan.
    script = (
        "import os, sys\n"
        "from relay.outbox import drafted, envelope_for\n"
        "from relay.spool import Spool\n"
        "spool = Spool(sys.argv[1] + '/spool')\n"
        "envelope = envelope_for('s@x.test', ['ann@here.test'], None, 1.0)\n"
        "assert spool.promise(drafted(b'Subject: y\\r\\n\\r\\nx\\r\\n'), envelope).wait(20)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    state = tmp_path / "state"
    subprocess.run([sys.executable, "-c", script, str(state)], check=False, timeout=30, cwd=os.getcwd())
    told = Told()
    with Outbox(state, stops=routes.stops, on_outcome=told) as outbox:
        outbox.send(b"Subject: z\r\n\r\nx\r\n", "s@x.test", ["ann@here.test"])
        told.wait(2)
    contents = files(tmp_path / "mail")
    assert len(contents) == 2
    assert all(any(mark in content for content in contents) for mark in (b"Subject: y", b"Subject: z"))


def test_a_second_process_only_spools_and_the_holder_delivers(tmp_path: Path) -> None:
    told = Told()
    routes = local(tmp_path / "mail")
    script = (
        "import sys\n"
        "from relay import Outbox\n"
        "with Outbox(sys.argv[1]) as outbox:\n"
        "    assert not outbox.delivers\n"
        "    for n in range(3):\n"
        "        outbox.send(b'Subject: from afar\\r\\n\\r\\nx\\r\\n', 's@x.test', ['ann@here.test'])\n"
    )
    with Outbox(tmp_path / "state", stops=routes.stops, on_outcome=told) as outbox:
        assert outbox.delivers
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "state")], check=True, timeout=30, cwd=os.getcwd())
        told.wait(3)
    assert len(files(tmp_path / "mail")) == 3


def test_a_start_that_failed_leaves_the_queue_to_the_next(tmp_path: Path) -> None:
    """It kept the lock, so that the next outbox of the same program only spooled, for nobody."""
    (tmp_path / "queue.sock").mkdir()
    outbox = Outbox(tmp_path, stops=local(tmp_path / "mail").stops)
    with pytest.raises(OSError):
        outbox.start()
    assert not outbox.delivers
    (tmp_path / "queue.sock").rmdir()
    with Outbox(tmp_path, stops=local(tmp_path / "mail").stops) as another:
        assert another.delivers
    with outbox:
        assert outbox.delivers


def test_mail_passes_from_outbox_to_this_server_byte_for_byte(tmp_path: Path) -> None:
    told = Told()
    taken: list[bytes] = []
    content = b"Subject: x\r\n\r\n" + b".dot\r\n" * 20_000 + b"last\r\n"
    with SmtpServer(port=0, local_binding="127.0.0.1") as server:
        server.on_message_received = lambda session, letter: taken.append(letter.open().read())
        host, port = server.address[:2]
        destination = f"smtp:{host}:{port}"
        relaying = Relaying(hello="relay.test", tls=TlsPolicy(TlsLevel.NONE))
        with Outbox(tmp_path / "s", stops=Routes(default=destination).stops, relaying=relaying, on_outcome=told) as box:
            for n in range(5):
                box.send(content, "s@x.test", [f"r{n}@far.test"])
            assert {result for _, result in told.wait(5)} == {"relayed"}
    assert taken == [content] * 5


def test_a_full_or_stopped_outbox_says_so(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state")
    reply = outbox.has_room()
    assert reply is not None and reply.code == 452
    with pytest.raises(OSError):
        outbox.send(b"x\r\n", "a@b.test", ["c@d.test"])
    for wrong in ([], ["a\r\nb@c.test"], [""]):
        with pytest.raises(ValueError):
            outbox.send(b"x\r\n", "a@b.test", wrong)


def test_each_way_has_its_own_credentials_port_and_retries() -> None:
    from relay.relaying import Customs

    way = Way(credentials=Credentials("u", "p"), concurrency=3, messages_per_minute=120, port=2500)
    customs = Customs(Relaying(ways={"smtp:mail.test:587": way, "mx:slow.test": Way(retry=RetryPolicy((60.0,)))}))
    with_login = customs.manners_of("smtp:mail.test:587")
    assert with_login.tls is TlsLevel.VERIFY and with_login.credentials is not None
    assert customs.manners_of("mx:a.test") is customs.manners_of("mx:b.test")
    assert customs.manners_of("mx:a.test").credentials is None
    assert customs.terms_of("smtp:mail.test:587").concurrency == 3
    assert customs.terms_of("smtp:mail.test:587").interval == 0.5
    assert customs.terms_of("mx:slow.test").retry.schedule == (60.0,)
    assert customs.port_of("smtp:mail.test:587") == 2500 and customs.port_of("mx:a.test") == 25


def test_stop_is_bounded_while_a_hop_hangs(tmp_path: Path) -> None:
    with ScriptedPeer("-- hang") as peer:
        routes = Routes(default=f"smtp:127.0.0.1:{peer.port}")
        outbox = Outbox(tmp_path / "s", stops=routes.stops, relaying=Relaying(times=StepTimes.all(30, 30)))
        outbox.start()
        outbox.send(b"x\r\n", "a@b.test", ["c@d.test"])
        wait_until(lambda: peer.sessions == 1)
        assert outbox.stop(0.5) in (True, False)


def wait_until(fact: Callable[[], bool]) -> None:
    arrived = threading.Event()
    for _ in range(1000):
        if fact():
            return
        arrived.wait(0.01)
    raise AssertionError("it did not come about")


def test_envelope_parameters_reach_the_next_hop(tmp_path: Path) -> None:
    script = (
        "S: 220 p\nC: EHLO\nS: 250-p\nS: 250-DSN\nS: 250-8BITMIME\nS: 250 PIPELINING\nC: MAIL\nC: RCPT\nC: DATA\n"
        "S: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 ok\nC: QUIT\nS: 221 x\n"
    )
    told = Told()
    with ScriptedPeer(script) as peer:
        routes = Routes(default=f"smtp:127.0.0.1:{peer.port}")
        with Outbox(tmp_path / "s", stops=routes.stops, on_outcome=told) as outbox:
            asked = MailParameters(body="8BITMIME", ret="FULL", envid="abc")
            outbox.send("Subject: ü\r\n\r\nx\r\n".encode(), "s@x.test", ["a@b.test"], asked)
            told.wait(1)
        assert peer.commands[1] == "MAIL FROM:<s@x.test> BODY=8BITMIME RET=FULL ENVID=abc"


def test_etrn_makes_deferred_mail_of_a_domain_due_at_once(tmp_path: Path) -> None:
    busy = "S: 421 4.3.2 later\n"
    takes = (
        "S: 220 p\nC: EHLO\nS: 250-p\nS: 250 PIPELINING\nC: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
        "C: <content>\nS: 250 ok\nC: QUIT\nS: 221 x\n"
    )
    told = Told()
    with ScriptedPeer(busy, takes) as peer:
        routes = Routes(default=f"smtp:127.0.0.1:{peer.port}")
        with Outbox(tmp_path / "s", stops=routes.stops, on_outcome=told) as outbox:
            outbox.send(b"x\r\n", "s@x.test", ["a@b.test"])
            told.wait(1)
            wait_until(lambda: outbox.queue is not None and (outbox.queue.next_due() or 0) > 0)
            done = 0

            def tried() -> bool:
                nonlocal done
                done = done or outbox.try_now("b.test")
                return bool(done)

            wait_until(tried)
            assert told.wait(2) == [("a@b.test", "deferred"), ("a@b.test", "relayed")]
            assert outbox.try_now("other.test") == 0


def test_a_smart_host_with_log_in_over_verified_tls_takes_the_mail(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made = ca.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "key.pem").write_bytes(made.private_key_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
    pair = PairFiles(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")).read()
    taken: list[tuple[str, str]] = []
    with SmtpServer(
        port=0,
        local_binding="127.0.0.1",
        use_tls="explicit_require",
        use_auth="required",
        user_accounts=[UserAccount("ann", "sesame")],
        certificate=pair,
    ) as server:
        server.on_message_received = lambda session, letter: taken.append((letter.user, letter.tls))
        port = server.address[1]
        destination = f"smtp:127.0.0.1:{port}"
        for password, result in (("sesame", "relayed"), ("wrong", "deferred")):
            told = Told()
            way = Way(
                tls=TlsPolicy(TlsLevel.VERIFY, str(tmp_path / "ca.pem")), credentials=Credentials("ann", password)
            )
            relaying = Relaying(hello="relay.test", ways={destination: way})
            stops = Routes(default=destination).stops
            with Outbox(tmp_path / password, stops=stops, relaying=relaying, on_outcome=told) as outbox:
                outbox.send(b"Subject: x\r\n\r\nx\r\n", "ann@x.test", ["a@b.test"])
                assert told.wait(1) == [("a@b.test", result)]
    assert [user for user, _ in taken] == ["ann"] and "TLSv1.3" in taken[0][1]


def test_a_way_whose_authorities_are_missing_is_refused_before_any_mail(tmp_path: Path) -> None:
    way = Way(tls=TlsPolicy(TlsLevel.VERIFY, str(tmp_path / "none.pem")))
    with pytest.raises(OSError, match=r"none\.pem"):
        Outbox(tmp_path / "s", relaying=Relaying(ways={"mx:a.test": way}))


def test_the_sender_of_mail_to_an_alias_hears_that_it_was_expanded_and_what_failed_there(tmp_path: Path) -> None:
    """RFC 3464 2.3.3: "expanded" is no end; the mailbox that does not exist has a notification of its own."""
    aliases = {"all": ("ann@here.test", "bob@here.test", "nobody@here.test")}
    known = frozenset({"ann", "bob", "sender"})
    here = Domain(f"maildir:{tmp_path}/mail/{{user}}", users=known.__contains__, aliases=aliases)
    routes = Routes({"here.test": here})
    told = Told()
    with Outbox(tmp_path / "s", stops=routes.stops, on_outcome=told) as outbox:
        to = Recipient("all@here.test", ("SUCCESS", "FAILURE"), "rfc822;All@here.test")
        outbox.send(b"Subject: x\r\n\r\nx\r\n", "sender@here.test", [to])
        told.wait(6)
    found = [email.message_from_bytes(mail) for mail in files(tmp_path / "mail") if b"sender@here.test" in mail]
    reports = {actions(one)[0]: one for one in found if one.get_content_type() == "multipart/report"}
    assert sorted(reports) == ["expanded", "failed"]
    expanded = reports["expanded"].as_string()
    assert "Final-Recipient: rfc822;all@here.test" in expanded and "Status: 2.1.5" in expanded
    assert "Original-Recipient: rfc822;All@here.test" in expanded
    assert "Final-Recipient: rfc822;nobody@here.test" in reports["failed"].as_string()
