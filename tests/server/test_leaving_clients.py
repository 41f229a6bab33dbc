"""Clients that leave: at every step of a dialogue, in every way, and whatever they did, nothing of them is left."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

import pytest

from certs.issue import ensure_self_signed
from smtpd_core import GuardSettings, SmtpServer, UserAccount
from tests.server.people import Diary, Line, Memory

STEPS = (
    b"EHLO probe.test\r\n",
    b"AUTH PLAIN\r\n",
    b"*\r\n",
    b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n",
    b"MAIL FROM:<a@a.test>\r\n",
    b"RCPT TO:<b@b.test>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\nhello\r\n.\r\n",
    b"MAIL FROM:<a@a.test>\r\n",
    b"RCPT TO:<b@b.test>\r\n",
    b"BDAT 5\r\nhello",
    b"BDAT 5 LAST\r\nhello",
    b"STARTTLS\r\n",
    b"\x16\x03\x01\x00\x05\x01",
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return [str(path) for path in ensure_self_signed(tmp_path_factory.mktemp("tls"), "mx.test")]


def serve(certificate, closed: Diary, **properties) -> SmtpServer:
    server = SmtpServer(
        port=0,
        use_tls=properties.pop("use_tls", "explicit_allow"),
        certificate=certificate[0],
        key=certificate[1],
        use_auth="offered",
        user_accounts=[UserAccount("ann", "secret")],
        clear_text_without_tls=True,
        guard=GuardSettings(login_delay=0.0),
        **{"store": Memory(), **properties},
    )
    server.on_close_connection = lambda session: closed.note(session.id)
    return server


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock: socket.socket) -> None:
    """No more from us; what is owed is read to its end, which must come."""
    sock.shutdown(socket.SHUT_WR)
    try:
        while sock.recv(65_536):
            pass
    except ConnectionError:
        pass
    sock.close()


def nothing_is_left(server: SmtpServer, closed: Diary, sessions: int) -> None:
    closed.wait(lambda entries: len(entries) >= sessions)
    engine = server.engine
    assert engine is not None
    ends = time.monotonic() + 20
    while (engine.connection_count, engine.guard.connections, engine.pool.slots_held, engine.figures.waiting) != (
        0,
    ) * 4:
        assert time.monotonic() < ends, f"{engine.figures} and {engine.guard.connections} in the guard"
        time.sleep(0.01)  # what is counted goes down behind the last hook, and tells nobody
    assert len(set(closed.entries)) == len(closed.entries) == sessions, "each was closed once"


@pytest.mark.parametrize("leave", [reset, half_close, socket.socket.close])
@pytest.mark.parametrize("reads", [True, False])
def test_a_client_may_leave_at_any_step_in_any_way(certificate, leave: Callable[[socket.socket], None], reads: bool):
    closed = Diary()
    sessions = 0
    with serve(certificate, closed) as server:
        for last in range(len(STEPS) + 1):
            for is_cut in (False, True) if last else (False,):
                with socket.create_connection(server.address) as sock:
                    sock.settimeout(20)
                    if reads:
                        sock.recv(4096)
                    for step in STEPS[: last - 1 if is_cut else last]:
                        sock.sendall(step)
                        if reads and step[0] != 0x16:
                            sock.recv(4096)
                    if is_cut:
                        sock.sendall(STEPS[last - 1][: len(STEPS[last - 1]) // 2])
                    leave(sock)
                sessions += 1
        nothing_is_left(server, closed, sessions)
        with Line(server.address) as line:
            assert line.ask("EHLO probe.test").startswith("250") and line.send().startswith("250")


@pytest.mark.parametrize("leave", [reset, half_close, socket.socket.close])
def test_a_client_may_leave_at_any_byte_of_the_handshake(certificate, leave: Callable[[socket.socket], None]):
    closed = Diary()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(into, out).do_handshake()
    hello = out.read()
    sessions = 0
    with serve(certificate, closed, use_tls="implicit") as server:
        for size in (0, 1, 5, 6, len(hello) // 2, len(hello) - 1, len(hello)):
            for answers in (False, True) if size == len(hello) else (False,):
                with socket.create_connection(server.address) as sock:
                    sock.settimeout(20)
                    sock.sendall(hello[:size])
                    if answers:
                        sock.recv(100)
                    leave(sock)
                sessions += 1
        nothing_is_left(server, closed, sessions)


def test_a_handshake_that_dribbles_holds_nobody_up(certificate):
    """Byte by byte in both directions; a fresh client is served meanwhile."""
    closed = Diary()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(into, out)
    with serve(certificate, closed, use_tls="implicit") as server, socket.create_connection(server.address) as sock:
        sock.settimeout(20)
        others = 0

        def step(action: Callable[[], object]) -> None:
            nonlocal others
            while True:
                try:
                    action()
                except ssl.SSLWantReadError:
                    for at, byte in enumerate(out.read()):
                        sock.sendall(bytes([byte]))
                        if at % 100 == 0:
                            with socket.create_connection(server.address) as raw:
                                other = context.wrap_socket(raw)
                                assert other.recv(3) == b"220"
                                other.close()
                            others += 1
                    into.write(sock.recv(64))
                else:
                    return

        step(tls.do_handshake)
        greeting: list[bytes] = []
        step(lambda: greeting.append(tls.read(3)))
        assert greeting == [b"220"] and others > 1


def test_a_reset_after_the_dot_leaves_a_kept_message_and_no_session(certificate):
    closed, store = Diary(), Memory(slow=True)
    with serve(certificate, closed, store=store) as server:
        for number in range(10):
            line = Line(server.address)
            line.say("EHLO probe.test", "MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA", "x", ".")
            store.wait_for(number + 1)
            line.file.close()
            reset(line.socket)
            store.tickets[number].resolve()
        nothing_is_left(server, closed, 10)
    assert len(store.kept) == 10


def test_three_thousand_sessions_leave_nothing_behind(certificate):
    """Descriptors, threads and objects are back to where they were."""
    closed = Diary()
    store = Memory()
    with serve(certificate, closed, store=store) as server:

        def sessions(count: int) -> None:
            for number in range(count):
                with Line(server.address) as line:
                    line.ask("EHLO probe.test")
                    if number % 3 == 0:
                        assert line.send().startswith("250")
                    if number % 3 == 1:
                        line.ask("QUIT")
                    if number % 50 == 2:
                        line.file.close()
                        reset(line.socket)

        def held() -> tuple[int, int, int]:
            nothing_is_left(server, closed, len(closed.entries))
            store.kept.clear()
            store.tickets.clear()
            closed.entries.clear()
            gc.collect()
            return len(os.listdir("/proc/self/fd")), threading.active_count(), len(gc.get_objects())

        sessions(150)
        closed.wait(lambda entries: len(entries) == 150)
        before = held()
        sessions(3000)
        closed.wait(lambda entries: len(entries) == 3000)
        after = held()
    assert after[:2] == before[:2]
    assert after[2] < before[2] + 500, "objects stay behind"
