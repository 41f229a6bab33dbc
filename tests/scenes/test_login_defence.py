"""What guessing, slow stores and curious readers of logs get: nothing."""

from __future__ import annotations

import base64
import logging
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smtpd_core import SmtpServer, UserAccount
from smtpd_core.accounts import Account, MemoryStore, StoreUnavailable
from smtpd_core.accounts.callable import CallableStore
from smtpd_core.accounts.password_file import PasswordFileStore
from smtpd_core.net import GuardSettings
from smtpd_core.wire.sasl.client import Credentials
from smtpd_core.wire.sasl.client import mechanism as client_side
from smtpd_core.wire.sasl.verifier import make_verifier

NO_DELAY = GuardSettings(login_delay=0.0, lock_out_after=10, exempt=())


@pytest.fixture
def serve() -> Iterator[Callable[..., SmtpServer]]:
    running = []

    def start(**more: object) -> SmtpServer:
        server = SmtpServer(port=0, server_name="mx.test", clear_text_without_tls=True, **more)
        server.on_message_received = lambda session, message: None
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop(5)


def plain(user: str, password: str) -> str:
    return "PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


class Dialogue:
    """A client that waits for each reply."""

    def __init__(self, server: SmtpServer) -> None:
        self.socket = socket.create_connection(server.address, timeout=20)
        self.replies = self.socket.makefile("rb")
        self.reply()
        self.say("EHLO probe")

    def say(self, line: str) -> bytes:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def reply(self) -> bytes:
        while True:
            line = self.replies.readline()
            if line[3:4] != b"-":
                return line

    def close(self) -> None:
        self.replies.close()
        self.socket.close()


class Counting:
    """Counts what reaches the store; only "right" is right."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, user: str, password: str) -> bool:
        self.asked += 1
        return password == "right"


def test_wrong_logins_from_one_source_never_exceed_the_limit(serve: Callable[..., SmtpServer]) -> None:
    """Eight connections guess as fast as they can, each time another name, so that only the source's limit holds."""
    store = Counting()
    server = serve(user_accounts=CallableStore(store), guard=NO_DELAY, max_errors=0)

    def guess(first: int) -> None:
        client = Dialogue(server)
        for number in range(first, first + 250):
            assert client.say(f"AUTH {plain(f'user{number}', 'wrong')}").startswith(b"535 ")
        assert client.say(f"AUTH {plain('ann', 'right')}").startswith(b"535 "), "locked out, the right one is no use"
        client.close()

    threads = [threading.Thread(target=guess, args=(number * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.asked == 10


def test_a_user_is_locked_out_and_the_others_are_not(serve: Callable[..., SmtpServer]) -> None:
    store = Counting()
    guard = GuardSettings(login_delay=0.0, lock_out_after=5, lock_out_period=900)
    server = serve(user_accounts=CallableStore(store), guard=guard, max_errors=0)
    client = Dialogue(server)
    for spelling in ("ann", "Ann", "ANN", "\uff41nn", "ann", "ann", "ann"):
        assert client.say(f"AUTH {plain(spelling, 'wrong')}").startswith(b"535 ")
    assert store.asked == 5
    assert client.say(f"AUTH {plain('ann', 'right')}").startswith(b"535 ")
    assert client.say(f"AUTH {plain('bob', 'right')}").startswith(b"235 ")
    client.close()


def test_too_many_wrong_logins_end_the_session(serve: Callable[..., SmtpServer]) -> None:
    server = serve(user_accounts=[UserAccount("ann", "x")], guard=GuardSettings(login_delay=0.0), max_errors=3)
    client = Dialogue(server)
    replies = [client.say(f"AUTH {plain('ann', 'wrong')}")[:3] for _ in range(3)]
    replies.append(client.say(f"AUTH {plain('ann', 'wrong')}")[:3])
    assert replies == [b"535", b"535", b"535", b"421"], "more than three are too many"
    client.close()


def test_each_failure_waits_longer_and_no_thread_waits_with_it(serve: Callable[..., SmtpServer]) -> None:
    server = serve(
        user_accounts=[UserAccount("ann", "right")],
        guard=GuardSettings(login_delay=0.2, max_login_delay=1.0, lock_out_after=0),
        max_thread_count=2,
        max_errors=0,
    )
    waits = []
    client = Dialogue(server)
    for _ in range(3):
        begin = time.monotonic()
        client.say(f"AUTH {plain('ann', 'wrong')}")
        waits.append(time.monotonic() - begin)
    assert waits[0] >= 0.2 and waits[1] >= 0.4 and waits[2] >= 0.8
    guessers = [Dialogue(server) for _ in range(10)]
    for one in guessers:
        one.socket.sendall(f"AUTH {plain('ann', 'wrong')}\r\n".encode())
    begin = time.monotonic()
    assert Dialogue(server).say("NOOP").startswith(b"250 ")
    assert time.monotonic() - begin < 0.5, "ten delays at once hold neither of the two threads"
    for one in guessers:
        one.close()


def test_a_stop_does_not_wait_for_delayed_answers(serve: Callable[..., SmtpServer]) -> None:
    guard = GuardSettings(login_delay=16.0)
    server = serve(user_accounts=[UserAccount("ann", "right")], guard=guard)
    client = Dialogue(server)
    client.socket.sendall(f"AUTH {plain('ann', 'wrong')}\r\n".encode())
    while server.connections[0].state != "login":
        Dialogue(server).close()  # a turn of somebody else's, until the wrong log-in was read
    begin = time.monotonic()
    assert server.stop(10)
    assert time.monotonic() - begin < 2
    assert [client.reply()[:3], client.reply()[:3]] == [b"535", b"421"]
    client.close()


def test_a_slow_store_delays_nobody_who_does_not_log_in(serve: Callable[..., SmtpServer]) -> None:
    """One second per look-up, 20 threads, 25 clients logging in."""
    in_store, most = 0, 0
    lock = threading.Lock()

    def slow(user: str, password: str) -> bool:
        nonlocal in_store, most
        with lock:
            in_store += 1
            most = max(most, in_store)
        time.sleep(1)  # a store that takes its time
        with lock:
            in_store -= 1
        return True

    server = serve(user_accounts=CallableStore(slow), max_thread_count=20)
    logging_in = [Dialogue(server) for _ in range(25)]
    for number, client in enumerate(logging_in):
        client.socket.sendall(f"AUTH {plain(f'user{number}', 'x')}\r\n".encode())
    worst = 0.0
    bystander = Dialogue(server)
    for _ in range(200):
        begin = time.monotonic()
        assert bystander.say("NOOP").startswith(b"250 ")
        worst = max(worst, time.monotonic() - begin)
    with smtplib.SMTP(*server.address, timeout=20) as client:
        begin = time.monotonic()
        client.sendmail("x@mx.test", ["y@mx.test"], "Subject: x\r\n\r\nx\r\n")
        worst = max(worst, time.monotonic() - begin)
    assert worst < 0.5, f"somebody waited {worst:.3f} s"
    for client in logging_in:
        assert client.reply().startswith(b"235 ")
        client.close()
    assert most <= 10, "log-ins hold at most half of the threads"


class Counted(MemoryStore):
    """Knows how many are in it, and lets nobody out before as many as there may be have come."""

    at_once = 3

    def __init__(self) -> None:
        super().__init__([UserAccount("ann", "x")])
        self.lock = threading.Lock()
        self.full = threading.Event()
        self.inside = self.most = 0

    def verify(self, user: str, password: str) -> Account | None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == self.at_once:
                self.full.set()
        assert self.full.wait(20)
        time.sleep(0.02)  # a moment in which a fourth could come
        with self.lock:
            self.inside -= 1
        return super().verify(user, password)


def test_a_store_bounds_how_many_are_in_it_and_no_thread_waits_for_that(serve: Callable[..., SmtpServer]) -> None:
    """As hashing does, whose memory must not grow with the number of threads."""
    store = Counted()
    server = serve(user_accounts=store, guard=NO_DELAY, max_thread_count=40)
    clients = [Dialogue(server) for _ in range(12)]
    for client in clients:
        client.socket.sendall(f"AUTH {plain('ann', 'x')}\r\n".encode())
    assert Dialogue(server).say("NOOP").startswith(b"250 ")
    assert store.full.wait(20) and server.engine is not None
    for client in clients:
        assert client.reply().startswith(b"235 ")
        client.close()
    assert store.most == 3


def test_a_store_that_fails_is_454_and_nobody_is_blamed(serve: Callable[..., SmtpServer]) -> None:
    def broken(user: str, password: str) -> bool:
        if user == "down":
            raise StoreUnavailable("no route to host")
        raise RuntimeError(f"cannot check {password}")

    server = serve(user_accounts=CallableStore(broken), guard=NO_DELAY, max_errors=0)
    client = Dialogue(server)
    for number in range(30):
        reply = client.say(f"AUTH {plain('down' if number % 2 else 'ann', 'hunter2')}")
        assert reply.startswith(b"454 4.7.0 ") and b"hunter2" not in reply and b"route" not in reply
    client.close()


SECRET = "correct horse battery"


class Leaky(MemoryStore):
    """A store that fails while it handles the password."""

    def verify(self, user: str, password: str) -> Account | None:
        if user == "eve":
            raise StoreUnavailable("the back end went away")
        return super().verify(user, password)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_no_secret_in_logs_transcripts_or_views(
    serve: Callable[..., SmtpServer], mechanism: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    debug_log, heard = tmp_path / "debug.log", []
    store = Leaky([UserAccount("ann", SECRET), UserAccount("eve", SECRET)])
    with caplog.at_level(logging.DEBUG):
        server = serve(user_accounts=store, guard=GuardSettings(login_delay=0.0), debug_log=str(debug_log))
        server.on_receive_command = lambda session, text: heard.append(repr(text))
        server.on_send_response = lambda session, reply: heard.append(repr(reply))
        server.on_authenticate = lambda session, login: heard.append(repr(login))
        said = []
        for user, password in (("ann", SECRET), ("ann", SECRET + "!"), ("eve", SECRET)):
            one = client_side(mechanism, Credentials(user, password))
            client, first = Dialogue(server), one.first()
            command = f"AUTH {mechanism}" + (f" {base64.b64encode(first).decode()}" if first is not None else "")
            said.append(base64.b64encode(first or b"-" * 9).decode())
            reply = client.say(command)
            while reply.startswith(b"334"):
                answer = base64.b64encode(one.respond(base64.b64decode(reply[4:]))).decode()
                said.append(answer if len(answer) > 8 else SECRET)
                reply = client.say(answer)
            heard.extend(repr(session) for session in server.connections)
            client.close()
        server.stop(5)
    seen = caplog.text + debug_log.read_text() + "\n".join(map(str, heard))
    assert f"AUTH {mechanism}" in seen, "the dialogue is there"
    for secret in (SECRET, base64.b64encode(SECRET.encode()).decode(), *said):
        assert secret not in seen


def server_first(server: SmtpServer, user: str, mechanism: str = "SCRAM-SHA-256") -> tuple[str, str]:
    """Salt and count as a stranger is told them for a name; the whole reply twice where there is no challenge."""
    client = Dialogue(server)
    first = base64.b64encode(f"n,,n={user},r=abcdefgh".encode()).decode()
    reply = client.say(f"AUTH {mechanism} {first}").decode().strip()
    client.close()
    if not reply.startswith("334 "):
        return reply, reply
    _, salt, count = base64.b64decode(reply[4:]).decode().split(",")
    return salt, count


OFTEN = GuardSettings(login_delay=0.0, lock_out_after=0)


def test_two_listeners_and_two_spellings_tell_the_same_of_a_known_and_an_unknown_user(
    serve: Callable[..., SmtpServer],
) -> None:
    store = MemoryStore([UserAccount("ann", SECRET)], case_insensitive=True)
    one, two = serve(user_accounts=store, guard=OFTEN), serve(user_accounts=store, guard=OFTEN)
    for user in ("ann", "nobody"):
        told = {server_first(server, name) for server in (one, two) for name in (user, user.upper())}
        assert len(told) == 1, user
        assert server_first(one, user) != server_first(one, user, "SCRAM-SHA-1"), "each kind has a salt of its own"


def test_imported_verifiers_do_not_stand_out_among_unknown_users(
    serve: Callable[..., SmtpServer], tmp_path: Path
) -> None:
    verifier = make_verifier(SECRET, "scram-sha-256", salt=b"0123456789ab", iterations=4096)
    (tmp_path / "users").write_text(f"ann:{{SCRAM-SHA-256}}{verifier}\n")
    server = serve(user_accounts=PasswordFileStore(tmp_path / "users"), guard=OFTEN)
    known, unknown = server_first(server, "ann"), server_first(server, "nobody")
    assert known[1] == unknown[1] == "i=4096" and len(known[0]) == len(unknown[0]) and known != unknown


def test_a_locked_out_source_is_told_nothing_of_any_user(serve: Callable[..., SmtpServer]) -> None:
    server = serve(user_accounts=[UserAccount("ann", SECRET)], guard=NO_DELAY, max_errors=0)
    client = Dialogue(server)
    for number in range(10):
        client.say(f"AUTH {plain(f'user{number}', 'wrong')}")
    client.close()
    assert server_first(server, "ann") == server_first(server, "nobody")
    assert server_first(server, "ann")[0].startswith("535 5.7.8 ")


class Nonsense(MemoryStore):
    """Written in a hurry: answers with something else than the contract says."""

    answer: object = None

    def verify(self, user: str, password: str) -> Account | None:
        return self.answer  # type: ignore[return-value]

    def account(self, user: str) -> Account | None:
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize("answer", [True, "ann", b"ann", 1, object(), {"user_name": "ann"}, [Account("ann")]])
def test_nonsense_from_a_store_is_454_and_makes_nobody_a_user(serve: Callable[..., SmtpServer], answer: object) -> None:
    store = Nonsense([UserAccount("ann", SECRET)])
    store.answer = answer
    server, failed = serve(user_accounts=store, guard=OFTEN), []
    server.on_server_error = lambda session, error: failed.append(type(error))
    client = Dialogue(server)
    assert client.say(f"AUTH {plain('ann', SECRET)}").startswith(b"454 4.7.0 ")
    one = client_side("CRAM-MD5", Credentials("ann", SECRET))
    challenge = client.say("AUTH CRAM-MD5")
    answered = client.say(base64.b64encode(one.respond(base64.b64decode(challenge[4:]))).decode())
    assert answered.startswith(b"454 4.7.0 ") and server.connections[0].user is None
    assert len(failed) == 2 and all(issubclass(one, TypeError) for one in failed)
    client.close()


class Quoting(MemoryStore):
    """Fails, and quotes what it was asked in what it raises."""

    def verify(self, user: str, password: str) -> Account | None:
        raise RuntimeError(f"connection lost at: bind {user} {password}")

    def verify_token(self, user: str, token: str) -> Account | None:
        raise KeyError(token)

    def secret(self, user: str, kind: str) -> object | None:
        raise ValueError(f"{SECRET} has no {kind}")


def test_what_a_failing_store_or_program_quotes_is_not_logged(
    serve: Callable[..., SmtpServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(user_accounts=Quoting([UserAccount("ann", SECRET)]), guard=OFTEN)
    client = Dialogue(server)
    assert client.say(f"AUTH {plain('ann', SECRET)}").startswith(b"454 ")
    assert client.say("AUTH CRAM-MD5").startswith(b"334 ")
    assert client.say(base64.b64encode(b"ann " + b"0" * 32).decode()).startswith(b"454 ")

    @server.on_authenticate
    def fail(session: object, login: object) -> None:
        raise ValueError(getattr(login, "password", ""))

    assert client.say(f"AUTH {plain('ann', SECRET)}").startswith(b"454 ")
    client.close()
    server.stop(5)
    assert SECRET not in caplog.text
    for kind in ("RuntimeError", "ValueError", "in verify", "in fail"):
        assert kind in caplog.text, "what failed, and where, is there"
