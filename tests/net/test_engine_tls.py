"""TLS on connections: implicit, after an upgrade, slow, silent, broken; with the real certificates room."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time

import pytest

from certs.contexts import ServerContexts
from certs.issue import Wish, issue
from smtpd_core.net import Door, ListenerSettings, Timeouts
from smtpd_core.threads import HookMeter
from tests.net.echo import Client, Club, serving


@pytest.fixture(scope="module")
def contexts() -> ServerContexts:
    return ServerContexts(issue(Wish(("mx.test",)), None))


def door(contexts, tls="implicit", **more):
    return Door(ListenerSettings(bind="127.0.0.1:0", tls=tls), contexts.stream, **more)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsClient(Client):
    def __init__(self, address, plain: str = "") -> None:
        super().__init__(address, greets=bool(plain))
        if plain:
            assert self.ask(plain) == "220 tls"
            self.file.close()
        self.socket = trusting().wrap_socket(self.socket)
        self.file = self.socket.makefile("rb")
        if not plain:
            self.greeting = self.read()


def test_implicit_tls_greets_after_the_handshake(contexts):
    with serving(Club(), door(contexts)) as engine, TlsClient(engine.addresses[0]) as client:
        assert client.greeting == "220 hello"
        for number in range(20):
            assert client.ask(f"line {number}") == f"250 line {number}"
        client.send("BIG 3000000")
        assert len(client.read()) == 3_000_000
        assert client.ask("BYE") == "221 bye"
        assert client.read() == ""  # an orderly end: close_notify came


def test_an_upgrade_in_the_middle(contexts):
    upgrading = door(contexts, "explicit-allow")
    with serving(Club(), upgrading) as engine, TlsClient(engine.addresses[0], "TLS") as client:
        assert client.ask("x") == "250 x"
        client.send("\n".join(f"n{number}" for number in range(500)))
        assert [client.read() for _ in range(500)] == [f"250 n{number}" for number in range(500)]


def test_slow_hooks_and_tickets_under_tls(contexts):
    club = Club()
    with serving(club, door(contexts)) as engine, TlsClient(engine.addresses[0]) as client:
        assert client.ask("BLOCK 0.05") == "250 done"
        client.send("TICKET\nafter")
        club.wait_until(lambda: bool(club.tickets))
        club.tickets[0].resolve()
        assert client.read() == "250 kept"
        assert client.read() == "250 after"


def test_a_client_that_is_silent_in_the_handshake_is_closed(contexts):
    club = Club()
    with serving(club, door(contexts), timeouts=Timeouts(handshake=0.3)) as engine:
        raw = socket.create_connection(engine.addresses[0])
        raw.settimeout(10)
        assert raw.recv(100) == b""
        raw.close()
        club.wait_until(lambda: bool(club.closed))
        assert "handshake timed out" in club.closed[0][1]


def test_a_reset_in_mid_handshake_harms_nobody(contexts):
    club = Club()
    with serving(club, door(contexts)) as engine:
        hello = client_hello()
        for cut in (1, 5, 60, len(hello)):
            raw = socket.create_connection(engine.addresses[0])
            raw.sendall(hello[:cut])
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        club.wait_until(lambda: len(club.closed) == len(club.talks))
        with TlsClient(engine.addresses[0]) as client:
            assert client.ask("x") == "250 x"


def test_a_client_that_dribbles_a_command_under_tls_meets_the_same_deadline(contexts):
    times = Timeouts(greeting=0.6)
    with serving(Club(), door(contexts), timeouts=times) as engine, TlsClient(engine.addresses[0]) as client:
        client.socket.settimeout(0.1)
        data = b""
        began = time.monotonic()
        while not data and time.monotonic() - began < 10:
            client.socket.sendall(b"x")
            try:
                data = client.socket.recv(100)
            except TimeoutError:
                pass
        assert data == b"421 greeting\n"


def test_nonsense_instead_of_a_handshake_is_answered_with_an_alert(contexts):
    club = Club()
    with serving(club, door(contexts)) as engine:
        raw = socket.create_connection(engine.addresses[0])
        raw.settimeout(10)
        raw.sendall(b"EHLO there\r\n" * 10)
        data = b""
        while piece := raw.recv(1000):
            data += piece
        assert data[:1] == b"\x15" or data == b""
        raw.close()
        club.wait_until(lambda: bool(club.closed))
        assert "TLS handshake failed" in club.closed[0][1]


def test_a_handshake_that_dribbles_works_and_holds_no_thread(contexts):
    with serving(Club(), door(contexts), max_threads=1, min_threads=0) as engine:
        listener = socket.create_server(("127.0.0.1", 0))

        def dribble() -> None:
            inside, _ = listener.accept()
            outside = socket.create_connection(engine.addresses[0])
            outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def back() -> None:
                try:
                    while data := outside.recv(4096):
                        inside.sendall(data)
                except OSError:
                    pass

            threading.Thread(target=back, daemon=True).start()
            try:
                while data := inside.recv(4096):
                    for at in range(0, len(data), 7):
                        outside.sendall(data[at : at + 7])
            except OSError:
                pass
            outside.close()

        threading.Thread(target=dribble, daemon=True).start()
        with TlsClient(listener.getsockname()) as client:
            assert client.ask("x") == "250 x"
        listener.close()


def test_a_certificate_hook_is_entered_like_a_slow_one(contexts):
    meter = HookMeter("on_get_certificate", always_slow=True)
    seen = []

    def open_for(conversation):
        seen.append(conversation.session_id)
        return contexts.stream()

    settings = ListenerSettings(bind="127.0.0.1:0", tls="implicit")
    choosing = Door(settings, open_tls_for=open_for, certificate_hook=meter)
    with serving(Club(), choosing) as engine, TlsClient(engine.addresses[0]) as client:
        assert client.ask("x") == "250 x"
    assert len(seen) == 1 and meter.calls >= 1


def test_a_listener_with_tls_but_without_certificate_does_not_start():
    from smtpd_core.net import Engine

    engine = Engine([Door(ListenerSettings(bind="127.0.0.1:0", tls="implicit"))], Club().open)
    with pytest.raises(ValueError, match="needs a certificate"):
        engine.start()


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = trusting().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()
