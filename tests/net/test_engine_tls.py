"""TLS on connections: implicit, after an upgrade, slow, silent, broken; with the real certificates room."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import threading
import time

import pytest

from certs.contexts import ServerContexts
from certs.issue import Wish, issue
from smtpd_core.net import Door, ListenerSettings, Timeouts
from smtpd_core.threads import HookMeter
from tests.net.echo import Client, Club, Echo, serving


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


class Counting:
    """A TLS client that says its Finished along with its first line; `segments` is how many brought it data."""

    def __init__(self, address) -> None:
        self.socket = socket.create_connection(address, 10)
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = trusting().wrap_bio(self.into, self.out)
        plain = self.socket.makefile("rb", buffering=0)
        assert plain.readline() == b"220 hello\n"
        self.socket.sendall(b"TLS\n")
        assert plain.readline() == b"220 tls\n"
        while True:
            try:
                return self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self.out.read())
                self.into.write(self.socket.recv(65536))

    @property
    def segments(self) -> int:
        told = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        return int.from_bytes(told[152:156], sys.byteorder)  # tcpi_data_segs_in

    def say(self, line: bytes) -> None:
        self.tls.write(line)
        self.socket.sendall(self.out.read())

    def read(self) -> bytes:
        """The next plaintext; b"" after an orderly end."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = self.socket.recv(65536)
                assert data, "the end came without a good-bye"
                self.into.write(data)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tcpi_data_segs_in is Linux's")
def test_what_tls_itself_has_to_say_goes_out_in_one_send_with_the_reply(contexts):
    with serving(Club(), door(contexts, "explicit-allow")) as engine:
        client = Counting(engine.addresses[0])
        with client.socket:
            before = client.segments
            client.say(b"x\n")
            assert client.read() == b"250 x\n"
            assert client.segments - before == 1  # the session tickets and the reply
            before = client.segments
            client.say(b"BYE\n")
            assert client.read() == b"221 bye\n"
            assert client.read() == b""
            assert client.segments - before == 1  # the reply and close_notify


def test_the_end_of_the_handshake_does_not_wait_for_what_holds_the_greeting(contexts):
    """Under TLS 1.2 the last word of it is the server's, and the client waits for that."""
    go, held = threading.Event(), []

    class Held(Echo):
        def advance(self, turn):
            held.append(go.wait(5))
            return super().advance(turn)

    class Holding(Club):
        def open(self, peer, listener, session_id):
            return Held(self, peer, session_id)

    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(Holding(), door(contexts)) as engine, socket.create_connection(engine.addresses[0], 10) as raw:
        client = context.wrap_socket(raw)
        go.set()
        with client:
            assert client.recv(100) == b"220 hello\n"
    assert held[0]


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
