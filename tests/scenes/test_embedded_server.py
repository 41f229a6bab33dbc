"""Dialogues over real sockets: many clients, slow hooks, vanishing clients, draining, big messages, forks."""

# ruff: noqa: SIM117 (a server around a client reads better than both in one line)

from __future__ import annotations

import os
import random
import smtplib
import socket
import ssl
import threading
import time

import pytest

from smtpd_core import Refuse, SmtpServer
from tests.server.people import Diary, Line, Memory, talking


def serve(**properties):
    return SmtpServer(**{"port": 0, "server_name": "mx.test", "store": Memory(), **properties})


def insecure():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_pipelined_transaction_in_one_write():
    store = Memory()
    with serve(store=store) as server, Line(server.address) as line:
        line.say("EHLO a.test", "MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA")
        assert [line.hear()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        line.say("one", ".", "MAIL FROM:<>", "RCPT TO:<b@b.test>", "NOOP", "RSET", "QUIT")
        assert [line.hear()[:3] for _ in range(6)] == ["250", "250", "250", "250", "250", "221"]
        assert line.hear() == ""
    assert len(store.kept) == 1


def test_chunks_with_pipelining():
    store = Memory()
    with serve(store=store) as server, talking(server) as line:
        line.socket.sendall(b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nBDAT 5\r\nabc\r\nBDAT 4 LAST\r\n..\r\nNOOP\r\n")
        assert [line.hear()[:3] for _ in range(5)] == ["250"] * 5
    assert store.kept[0][1].endswith(b"\r\nabc\r\n..\r\n")


def test_a_client_that_half_closes_after_quit_hears_all():
    with serve() as server, Line(server.address) as line:
        line.say("EHLO a.test", "NOOP", "QUIT")
        line.socket.shutdown(socket.SHUT_WR)
        assert [line.hear()[:3] for _ in range(3)] == ["250", "250", "221"]
        assert line.hear() == ""


def test_http_and_a_flood_of_mistakes_end_with_421():
    with serve(max_errors=3) as server:
        with Line(server.address) as line:
            line.say("POST / HTTP/1.1", "Host: mx.test", "", "{}")
            assert line.hear()[:9] == "421 4.7.0"
        with talking(server) as line:
            assert [line.ask("WHAT")[:3] for _ in range(4)] == ["500", "500", "500", "421"]


def test_commands_behind_starttls_close_the_connection():
    with serve(certificate="self-signed", use_tls="explicit_allow") as server, talking(server) as line:
        line.say("STARTTLS", "MAIL FROM:<evil@a.test>")
        assert line.hear()[:3] == "554"
        assert line.hear() == ""


def test_many_clients_and_a_hook_that_blocks():
    """Every message arrives byte-exact, and the hooks overlap."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    lock = threading.Lock()
    received, running = {}, [0, 0]

    def slow(session, message):
        with lock:
            running[0] += 1
            running[1] = max(running)
        time.sleep(0.01)  # a hook that takes its time
        with lock:
            running[0] -= 1
            received[message.sender] = message.as_bytes()

    sent = {
        f"{client}-{number}@a.test": b"".join(
            b"%s\r\n" % bytes(chance.choices(b".abc ", k=chance.randrange(80))) for _ in range(chance.randrange(1, 200))
        )
        for client in range(12)
        for number in range(10)
    }

    def send(client, address):
        with smtplib.SMTP(*address, timeout=60) as smtp:
            for number in range(10):
                sender = f"{client}-{number}@a.test"
                smtp.sendmail(sender, ["b@b.test"], sent[sender])

    with serve(store=None, on_message_received=slow, max_thread_count=8) as server:
        clients = [threading.Thread(target=send, args=(n, server.address)) for n in range(12)]
        for one in clients:
            one.start()
        for one in clients:
            one.join(60)
    assert received == sent
    assert 2 <= running[1] <= 8


def test_waiting_for_storage_holds_no_thread():
    store = Memory(slow=True)
    with serve(store=store, max_thread_count=1, min_thread_count=0) as server:
        lines = [Line(server.address) for _ in range(30)]
        for line in lines:
            line.say("EHLO a.test", "MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")
            [line.hear() for _ in range(4)]
            line.say("x", ".")
        store.wait_for(30)
        assert server.engine.pool.slots_held == 0
        with talking(server) as other:
            assert other.ask("NOOP") == "250 2.0.0 Ok"
        for ticket in store.tickets:
            ticket.resolve()
        assert all(line.hear().startswith("250 2.0.0 Ok: queued") for line in lines)


def test_a_client_that_vanishes_leaves_what_it_sent():
    diary = Diary()
    server = serve()
    server.on_partial_message = lambda session, message: diary.note(("partial", message.as_bytes(), message.addresses))
    server.on_close_connection = lambda session: diary.note(("close", session.ended_because))
    with server:
        line = Line(server.address)
        line.say("EHLO a.test", "MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")
        [line.hear() for _ in range(4)]
        line.say("Subject: half", "", "and no")
        line.close()
        diary.wait(lambda entries: len(entries) == 2)
    assert diary.entries[0] == ("partial", b"Subject: half\r\n\r\nand no", ["b@b.test"])
    assert server._house.store.kept == []


def test_stop_lets_a_message_under_way_finish():
    store = Memory(slow=True)
    server = serve(store=store).start()
    line = Line(server.address)
    line.say("EHLO a.test", "MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")
    [line.hear() for _ in range(4)]
    stopping = threading.Thread(target=server.stop, args=(20,))
    stopping.start()
    line.say("late", ".")
    store.wait_for(1)
    store.tickets[0].resolve()
    assert line.hear().startswith("250")
    assert line.hear()[:9] == "421 4.3.2"
    stopping.join(20)
    assert not server.active
    line.close()


def test_a_big_message_under_tls_is_a_file_that_can_be_linked(tmp_path):
    content = (b"y" * 70 + b"\r\n") * 60_000
    server = serve(store=None, drafts=str(tmp_path), certificate="self-signed", use_tls="implicit")

    @server.on_message_received
    def save(session, message):
        assert message.size == len(content)
        message.save(tmp_path / "saved")

    with server, smtplib.SMTP_SSL(*server.address, context=insecure(), timeout=60) as client:
        client.sendmail("a@a.test", ["b@b.test"], content)
    assert (tmp_path / "saved").read_bytes() == content


def test_a_hook_may_refuse_what_a_client_pipelines_behind():
    with serve(on_recipient_to=lambda session, recipient: Refuse("no")) as server, talking(server) as line:
        line.say("MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA", "QUIT")
        assert [line.hear()[:3] for _ in range(4)] == ["250", "550", "503", "221"]


def test_a_unix_socket_has_no_address_and_may_relay(tmp_path):
    outbox = Memory()
    path = str(tmp_path / "smtp.sock")
    with serve(store=Memory("mx.test"), outbox=outbox, local_binding=f"unix:{path}") as server:
        with talking(server) as line:
            assert line.send(to="b@else.test").startswith("250")
            assert server.connections[0].address == ""
    assert outbox.kept[0][0].origin.address == "unix"
    assert b"(local)" in outbox.kept[0][1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_the_child_is_inactive_and_can_start_again():
    with serve() as server:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            said = b"raised"
            try:
                was_active = server.active
                server.start()
                with smtplib.SMTP(*server.address, timeout=20) as client:
                    client.sendmail("a@a.test", ["b@b.test"], "x")
                server.stop(2.0)
                said = b"fine" if not was_active else b"active"
            finally:
                os.write(write_end, said)
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            assert pipe.read() == b"fine"
        os.waitpid(child, 0)
        with talking(server) as line:
            assert line.send().startswith("250")
