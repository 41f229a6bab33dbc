"""Certificates on a server that is at work: renewal under load, handshakes that never end, daemon and SIGHUP."""

from __future__ import annotations

import signal
import smtplib
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs.files import Pair, PairFiles, pem_of, write_pair
from certs.issue import Wish, authority, issue
from certs.renewal import Renewal
from smtpd_core import SmtpServer, UserAccount
from smtpd_core.net import GuardSettings, ListenerSettings, Timeouts
from tests.app.daemon import DaemonProcess

STALLED = 2_000


@pytest.fixture(scope="module")
def root() -> Pair:
    return authority("Scene Root")


@pytest.fixture
def trusting(root: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=pem_of(root.certificate).decode())
    return context


def mail(address: tuple[str, int], context: ssl.SSLContext, count: int = 1) -> list[str]:
    """Messages on one connection under STARTTLS; the serial number of the certificate that it saw."""
    with smtplib.SMTP(*address, timeout=60) as client:
        client._host = "localhost"  # type: ignore[attr-defined]  # the name that is asked for and checked
        client.starttls(context=context)
        shown = client.sock.getpeercert()["serialNumber"]  # type: ignore[union-attr]
        for _ in range(count):
            client.sendmail("ann@a.test", ["bob@b.test"], b"Subject: x\r\n\r\nhello\r\n")
    return [shown]


def serial(pair: Pair) -> str:
    return f"{pair.certificate.serial_number:X}".rjust(40, "0")


def leaf(root: Pair, **changes: object) -> Pair:
    return issue(Wish(("localhost", "127.0.0.1"), **changes), root)  # type: ignore[arg-type]


def test_a_renewal_under_load_breaks_no_session(root: Pair, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    certificate, key = tmp_path / "mx.pem", tmp_path / "mx.key"
    pairs = [leaf(root) for _ in range(6)]
    write_pair(pairs[0], certificate, key)
    renewal = Renewal([PairFiles(str(certificate), str(key))])
    got: list[int] = []
    server = SmtpServer(port=0, contexts=renewal.contexts, use_tls="explicit_allow")
    server.on_message_received = lambda session, message: got.append(1)
    with server, ThreadPoolExecutor(8) as clients:
        work = [clients.submit(mail, server.address, trusting, 3) for _ in range(20)]
        for pair in pairs[1:]:
            write_pair(pair, certificate, key)
            assert renewal.reload(datetime.now(UTC)) == []
            work += [clients.submit(mail, server.address, trusting, 3) for _ in range(20)]
            assert mail(server.address, trusting)[0].rjust(40, "0") == serial(pair)
        seen = {number.rjust(40, "0") for one in work for number in one.result()}
    assert len(got) == len(work) * 3 + len(pairs) - 1
    assert serial(pairs[-1]) in seen
    assert seen <= {serial(pair) for pair in pairs}


def test_two_thousand_stalled_handshakes_delay_nobody_and_end_at_their_deadline(
    root: Pair, trusting: ssl.SSLContext
) -> None:
    deadline = 4.0
    server = SmtpServer(
        port=0,
        certificate=leaf(root),
        use_tls="implicit",
        timeouts=Timeouts(handshake=deadline),
        guard=GuardSettings(max_per_source=0),
    )
    server.on_message_received = lambda *_: None
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # a ClientHello that ends in its eleventh byte
    with server:
        began = time.monotonic()
        stalled = [socket.create_connection(server.address) for _ in range(STALLED)]
        for one in stalled:
            one.sendall(hello)
        opened = time.monotonic() - began
        took = []
        for _ in range(15):
            at = time.monotonic()
            with smtplib.SMTP_SSL("localhost", server.address[1], timeout=30, context=trusting) as client:
                client.sendmail("ann@a.test", ["bob@b.test"], b"Subject: x\r\n\r\nhello\r\n")
            took.append(time.monotonic() - at)
        # Generous, for a machine that does other things too; it takes some 20 ms where it does not.
        assert statistics.median(took) < deadline / 4, took
        for one in stalled:
            one.settimeout(60)
            while one.recv(1_000):
                pass
            one.close()
        lasted = time.monotonic() - began
        assert deadline * 0.9 < lasted < deadline + opened + 20
        assert server.connection_count == 0 or wait_for_none(server)


def wait_for_none(server: SmtpServer) -> bool:
    until = time.monotonic() + 10
    while server.connection_count and time.monotonic() < until:
        time.sleep(0.01)  # the count goes down behind the last hook, and tells nobody
    return server.connection_count == 0


def test_the_daemon_takes_up_a_new_certificate_at_hangup_and_refuses_a_bad_one(
    root: Pair, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "mx.pem", tmp_path / "mx.key"
    first, second = leaf(root), leaf(root)
    past = datetime.now(UTC) - timedelta(days=1)
    expired = leaf(root, valid_from=past - timedelta(days=9), valid_to=past)
    write_pair(first, certificate, key)
    config = tmp_path / "smtpd.toml"
    config.write_text(
        f"""
hostname = "localhost"
[[listener]]
bind = "127.0.0.1:0"
[tls]
certificate = "{certificate}"
key = "{key}"
[domains."b.test"]
deliver = "maildir:{tmp_path}/mail"
users = "any"
"""
    )

    def shown(daemon: DaemonProcess) -> str:
        return mail(daemon.address, trusting, 0)[0].rjust(40, "0")

    def until(daemon: DaemonProcess, words: str) -> None:
        limit = time.monotonic() + 30
        while words not in daemon.log.read_text():
            assert time.monotonic() < limit, daemon.log.read_text()
            time.sleep(0.01)  # another process's log

    with DaemonProcess(tmp_path / "state", "--config", str(config), listen="") as daemon:
        assert shown(daemon) == serial(first)
        write_pair(expired, certificate, key)
        daemon.signal(signal.SIGHUP)
        until(daemon, "reload refused")
        assert "expired on" in daemon.log.read_text()
        assert shown(daemon) == serial(first)
        write_pair(second, certificate, key)
        daemon.signal(signal.SIGHUP)
        until(daemon, "reloaded")
        assert shown(daemon) == serial(second)


MODES = ("none", "explicit-allow", "explicit-require", "implicit")


@pytest.fixture
def four_doors(root: Pair) -> Iterator[tuple[SmtpServer, dict[str, int]]]:
    """One server with a listener of each mode, all offering AUTH; its ports by mode."""
    server = SmtpServer(
        listeners=[ListenerSettings("127.0.0.1:0", "submission", mode, "offered") for mode in MODES],
        certificate=leaf(root),
        user_accounts=[UserAccount("ann", "correct horse")],
        server_name="localhost",
        clear_text_without_tls=True,
    )
    server.on_message_received = lambda *_: None
    with server:
        yield server, {mode: address[1] for mode, address in zip(MODES, server.addresses, strict=True)}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_serves_at_once_and_logs_in(
    four_doors: tuple[SmtpServer, dict[str, int]], trusting: ssl.SSLContext, mode: str
) -> None:
    port = four_doors[1][mode]
    if mode == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, timeout=30, context=trusting)
    else:
        client = smtplib.SMTP("localhost", port, timeout=30)
    with client:
        client.ehlo()
        assert client.has_extn("starttls") is (mode.startswith("explicit"))
        if mode == "explicit-require":
            assert client.mail("ann@a.test")[0] == 530
        if mode.startswith("explicit"):
            client.starttls(context=trusting)
            client.ehlo()
            assert not client.has_extn("starttls")
        client.login("ann", "correct horse")
        assert client.mail("ann@a.test")[0] == 250


def test_plaintext_behind_starttls_closes_the_connection(four_doors: tuple[SmtpServer, dict[str, int]]) -> None:
    with socket.create_connection(("127.0.0.1", four_doors[1]["explicit-allow"]), 30) as client:
        client.sendall(b"EHLO probe\r\nSTARTTLS\r\nMAIL FROM:<eve@evil.test>\r\n")
        told = b""
        while data := client.recv(4_096):
            told += data
    lines = told.decode().splitlines()
    assert not any(line.startswith("250 2.1.0") for line in lines)
    assert lines[-1][:3] != "220", "TLS does not begin"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
@pytest.mark.debian("openssl")
def test_s_client_with_an_old_version_is_refused_behind_starttls(
    four_doors: tuple[SmtpServer, dict[str, int]], version: str
) -> None:
    port = four_doors[1]["explicit-allow"]
    words = ["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{port}", "-ign_eof"]
    old = [*words, version, "-cipher", "ALL:@SECLEVEL=0"]
    made = subprocess.run(old, input="QUIT\r\n", capture_output=True, text=True, timeout=60)
    assert "alert protocol version" in made.stderr and "221" not in made.stdout
    now = subprocess.run([*words, "-tls1_2"], input="QUIT\r\n", capture_output=True, text=True, timeout=60)
    assert "221 2.0.0" in now.stdout, now.stderr


def test_the_program_chooses_a_certificate_by_name(root: Pair, trusting: ssl.SSLContext) -> None:
    chosen = issue(Wish(("chosen.test",)), root)
    asked: list[str] = []
    server = SmtpServer(port=0, certificate=leaf(root), use_tls="implicit")

    @server.on_get_certificate
    def choose(session: object, name: str) -> Pair | None:
        asked.append(name)
        if name == "away.test":
            raise LookupError("no certificate for that")
        return chosen if name == "chosen.test" else None

    def names(host: str) -> list[str]:
        with (
            socket.create_connection(server.address, 30) as plain,
            trusting.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return [name for _, name in tls.getpeercert()["subjectAltName"]]  # type: ignore[index, union-attr, misc]

    with server:
        assert names("chosen.test") == ["chosen.test"]
        assert "localhost" in names("localhost")
        with pytest.raises((ssl.SSLError, OSError)):
            names("away.test")
        assert "localhost" in names("localhost")
    assert asked == ["chosen.test", "localhost", "away.test", "localhost"]
