"""Life inside a program: bad use is told at once, starts and stops leak nothing, servers live side by side."""

# ruff: noqa: SIM117 (servers around clients read better than all in one line)

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time

import pytest

from certs.files import Pair, write_pair
from certs.issue import self_signed
from certs.trouble import CertificateError
from smtpd_core import Guard, ListenerSettings, Reply, SmtpServer, Ticket, Timeouts, UserAccount
from tests.server.people import Diary, Line, Memory, talking

ANN = UserAccount("ann", "secret")


def serve(**properties):
    return SmtpServer(**{"port": 0, "store": Memory(), **properties})


# -- bad use


@pytest.mark.parametrize(
    "properties, error, words",
    [
        ({"max_recipient": 5}, TypeError, "did you mean 'max_recipients'"),
        ({"on_mail_form": print}, TypeError, "did you mean 'on_mail_from'"),
        ({"port": "25"}, TypeError, "port = '25': a whole number is due"),
        ({"port": 70_000}, ValueError, "0 or more is due, at most 65535"),
        ({"use_tls": "ssl"}, ValueError, "one of 'none', 'implicit'"),
        ({"timeout": -1}, ValueError, "0 .never. or more"),
        ({"max_data_size": True}, TypeError, "a whole number"),
        ({"min_thread_count": 5, "max_thread_count": 4}, ValueError, "min_thread_count 5 is above max_thread_count 4"),
        ({"user_accounts": "users.db"}, TypeError, "a list of UserAccount, a store or a function"),
        ({"user_accounts": [("ann", "secret")]}, TypeError, "is no UserAccount"),
        ({"relay_from": ["10.0.0.0/33"]}, ValueError, "relay_from"),
        ({"relay_from": "10.0.0.0/8"}, TypeError, "a list of texts"),
        ({"relay_from": None}, TypeError, "relay_from = None: a list of texts"),
        ({"store": "mail"}, TypeError, "store = 'mail': no method has_room, holds, keep; relay.MailboxStore.path."),
        ({"store": Memory}, TypeError, "a class, not yet an object"),
        ({"outbox": object()}, TypeError, "no method has_room"),
        ({"timeouts": 5}, TypeError, "timeouts = 5: Timeouts..... is due"),
        ({"timeout": float("nan")}, ValueError, "timeout = nan"),
        ({"listeners": ["127.0.0.1:0"]}, TypeError, "a list of ListenerSettings is due"),
        ({"listeners": ListenerSettings("127.0.0.1:0")}, TypeError, "a list of ListenerSettings is due"),
        ({"certificate": 5}, TypeError, "certificate = 5: a path"),
        ({"contexts": "mx.pem"}, TypeError, "ServerContexts"),
        ({"drafts": 5}, TypeError, "the path of a directory"),
        ({"debug_log": 1}, TypeError, "True, a path or a logging.Logger"),
        ({"debug_log": sys.stderr}, TypeError, "True, a path or a logging.Logger"),
        ({"debug_log": True, "debug_log_format": "xml"}, ValueError, "'text', 'json'"),
        ({"on_mail_from": 5}, TypeError, "a function is due, called as on_mail_from.session, sender, parameters."),
        ({"on_mail_from": lambda session: None}, TypeError, "called as on_mail_from.session, sender, parameters."),
    ],
)
def test_a_wrong_property_is_an_error_at_once(properties, error, words):
    with pytest.raises(error, match=words):
        SmtpServer(**properties)


def test_a_coroutine_function_is_no_hook():
    async def keep(session, message): ...

    with pytest.raises(TypeError, match=r"compat\.aiosmtpd"):
        SmtpServer(on_message_received=keep)


def test_an_unknown_attribute_is_an_error_at_once():
    server = serve()
    with pytest.raises(AttributeError, match="did you mean 'max_data_size'"):
        server.max_datasize = 5
    with pytest.raises(AttributeError, match="did you mean 'on_recipient_to'"):
        server.on_recipient = print


def test_a_handler_of_the_wrong_shape_is_an_error_at_once():
    class Misspelt:
        def on_message_recieved(self, session, message): ...

    class TooFew:
        def on_recipient_to(self, session): ...

    with pytest.raises(AttributeError, match="did you mean 'on_message_received'"):
        SmtpServer(Misspelt())
    with pytest.raises(TypeError, match="on_recipient_to"):
        SmtpServer(TooFew())
    with pytest.raises(TypeError, match="has none of the events"):
        SmtpServer(object())


@pytest.mark.parametrize(
    "properties, words",
    [
        ({"use_auth": "required"}, "use_auth without accounts"),
        ({"use_auth": "required", "user_accounts": lambda user, password: True}, "no mechanism could ever be used"),
        ({"use_auth": "offered", "user_accounts": [ANN], "auth_mechanisms": ["LOGIN"]}, "LOGIN could never work"),
        ({"auth_mechanisms": ["ROT13"], "user_accounts": [ANN]}, "'ROT13' is none of"),
        ({"use_tls": "implicit"}, "use_tls without a certificate"),
        ({"certificate": "self-signed"}, "no listener with TLS"),
        ({"without_extensions": ["PIPELINES"]}, "no such extension"),
        ({"server_name": "mx test"}, "hostname"),
        ({"drafts": "/no/such/place"}, "there is no such directory"),
        ({"require_client_certificate": True}, "require_client_certificate, and no listener with TLS"),
    ],
)
def test_what_can_not_work_together_is_refused_by_start(properties, words):
    server = serve(**properties)
    with pytest.raises(ValueError, match=words):
        server.start()
    assert not server.active and server.stop()


def test_a_listener_drops_extensions_of_its_own():
    where = [ListenerSettings("127.0.0.1:0", tls="none", without=one) for one in ((), ("chunking", "DSN"))]
    with serve(listeners=where, without_extensions=["SMTPUTF8"]) as server:
        said = []
        for address in server.addresses:
            with Line(address) as line:
                said.append(line.ask("EHLO probe.test"))
    assert all("SMTPUTF8" not in one and "PIPELINING" in one for one in said)
    assert ["CHUNKING" in one for one in said] == ["DSN" in one for one in said] == [True, False]


def test_a_certificate_that_does_not_fit_its_key_is_refused_by_start(tmp_path):
    write_pair(Pair(*self_signed(["a.test"])), tmp_path / "a.pem", tmp_path / "a.key")
    write_pair(Pair(*self_signed(["b.test"])), tmp_path / "b.pem", tmp_path / "b.key")
    server = serve(use_tls="implicit", certificate=str(tmp_path / "a.pem"), key=str(tmp_path / "b.key"))
    with pytest.raises(CertificateError, match="is not the key of the certificate"):
        server.start()
    with pytest.raises(OSError):
        serve(use_tls="implicit", certificate=str(tmp_path / "none.pem")).start()


def test_what_concerns_the_listener_is_refused_while_it_runs():
    with serve() as server:
        for name, value in (("port", 26), ("use_tls", "implicit"), ("batch_size", 4096)):
            with pytest.raises(RuntimeError, match=f"{name} can't change while the server runs"):
                setattr(server, name, value)
        with pytest.raises(RuntimeError, match="keeps its Guard"):
            server.guard = Guard()
        with pytest.raises(ValueError, match="could never work"):
            server.auth_mechanisms = ["EXTERNAL"]
            server.user_accounts = [ANN]
        with talking(server) as line:
            assert line.send().startswith("250")


def test_a_function_of_a_verb_has_the_shape_of_a_hook():
    async def ping(session, argument): ...

    server = serve()
    with pytest.raises(TypeError, match="coroutine function is never awaited"):
        server.commands.add("XPING", ping)
    with pytest.raises(TypeError, match="a function is due"):
        server.commands.add("XPING", 5)
    with pytest.raises(TypeError, match="a Reply is due"):
        server.commands.add("XPING", lambda session, argument: None, reply="250 ok")
    server.commands.add("XPING", lambda session, argument: None, legal="ready")
    with server, talking(server, "") as line:
        assert line.ask("XPING")[:3] == "503"


def test_stop_takes_what_is_left_of_a_deadline():
    for left in (-1.0, 0, float("nan"), float("inf"), None):
        assert serve().start().stop(left)
    with serve() as server:
        with pytest.raises(TypeError):
            server.stop("soon")
        with talking(server) as line:
            assert line.send().startswith("250")


# -- changes while running


def test_timeouts_change_while_it_runs():
    with serve(timeout=60.0) as server:
        with talking(server) as early:
            server.timeout = 0.2
            with talking(server) as line:
                assert line.hear()[:9] == "421 4.4.2"
            early.ask("NOOP")
            assert early.hear()[:9] == "421 4.4.2"  # its next wait is a short one too
        server.timeout = 60.0
        server.timeouts = Timeouts(data=0.2)
        with talking(server) as line:
            for command in ("MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA"):
                line.ask(command)
            assert line.hear()[:9] == "421 4.4.2"
        server.session_timeout = 0.3
        with talking(server) as line:
            assert line.hear()[:9] == "421 4.4.2"


def test_the_hook_budget_counts_for_all_hooks_whenever_it_is_set():
    """Set as an attribute it counted for none."""
    server = serve(on_hello=lambda session, domain: None)
    server.commands.add("XPING", lambda session, argument: None)
    server.hook_budget = 2.0
    server.on_mail_from = lambda session, sender, parameters: None
    assert {meter.budget for meter in server.meters} == {2.0}
    assert server.commands.functions["XPING"].meter.budget == 2.0


def test_accounts_from_a_generator_are_there_after_the_start_too():
    """The second reading of it, at start(), found nobody."""
    accounts = (UserAccount(name, "secret") for name in ("ann", "bob"))
    with serve(user_accounts=accounts, clear_text_without_tls=True) as server, talking(server) as line:
        server.banner = "changed"
        assert line.ask("AUTH PLAIN AGFubgBzZWNyZXQ=")[:3] == "235"


def test_a_change_of_something_else_leaves_the_accounts_derived_secrets():
    """A SCRAM challenge with another salt would fail who remembers the first."""
    with serve(user_accounts=[ANN]) as server:
        before = server._house.accounts.secret("ann", "scram-sha-256")
        server.banner = "changed"
        assert server._house.accounts.secret("ann", "scram-sha-256") == before


def test_a_keeping_of_ones_own_needs_three_methods_only():
    class Counting:
        def __init__(self):
            self.kept = 0

        def has_room(self):
            return None

        def holds(self, address):
            return True

        def keep(self, envelope, draft):
            self.kept += 1
            draft.close()
            ticket = Ticket()
            ticket.resolve()
            return ticket

    mine = Counting()
    with serve(store=mine) as server, talking(server) as line:
        assert line.send().startswith("250")
    assert mine.kept == 1


def test_hooks_limits_and_stores_change_while_it_runs():
    first, second = Memory(), Memory()
    with serve(store=first) as server, talking(server) as line:
        assert line.send().startswith("250")
        server.store = second
        assert line.send().startswith("250")
        server.on_mail_from = lambda session, sender, parameters: Reply(550, "5.7.1", "no")
        assert line.send() == "550 5.7.1 no"
        server.on_mail_from = None
        server.store = None
        assert line.send()[:9] == "554 5.3.2"
        server.max_thread_count = 4
        assert server.engine.pool.maximum == 4
    assert (len(first.kept), len(second.kept)) == (1, 1)


class Living(Memory):
    def __init__(self):
        super().__init__()
        self.life = []

    def start(self):
        self.life.append("started")
        return len(self.life) == 1

    def stop(self, timeout):
        self.life.append("stopped")
        return True


def test_the_server_starts_and_stops_what_keeps_its_mail():
    first, second, mine = Living(), Living(), Living()
    mine.start()
    with serve(store=first, outbox=mine) as server:
        server.store = second
        assert second.life == ["started"]
    assert first.life == second.life == ["started", "stopped"]
    assert mine.life == ["started", "started"]  # it ran already: somebody else stops it


# -- leaks and times


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_two_hundred_starts_and_stops_leak_nothing():
    server = serve()
    for _ in range(5):
        with server, talking(server) as line:
            line.send()
    gc.collect()
    before = descriptors(), threading.active_count(), len(gc.get_objects())
    for number in range(200):
        with server:
            if number % 20 == 0:
                with talking(server) as line:
                    line.send()
    gc.collect()
    assert (descriptors(), threading.active_count()) == before[:2]
    assert len(gc.get_objects()) < before[2] + 1000


def test_servers_thrown_away_leak_nothing():
    for _ in range(3):
        with serve():
            pass
    gc.collect()
    before = descriptors(), len(gc.get_objects())
    for _ in range(50):
        with serve():
            pass
    gc.collect()
    assert descriptors() <= before[0]  # fewer where what an earlier test left is closed meanwhile
    assert len(gc.get_objects()) < before[1] + 1000


def test_start_and_stop_take_milliseconds():
    server = serve()
    times = []
    for _ in range(20):
        began = time.perf_counter()
        server.start()
        server.stop()
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02


def test_several_servers_live_in_one_process():
    with serve(server_name="a.test") as one, serve(server_name="b.test") as two:
        with talking(one, "") as first, talking(two, "") as second:
            assert first.greeting.startswith("220 a.test") and second.greeting.startswith("220 b.test")
            one.stop()
            assert second.ask("NOOP").startswith("250")


def test_stop_works_from_a_hook():
    server = serve()

    @server.on_message_received
    def stop(session, message):
        server.stop(2.0)

    server.start()
    with talking(server) as line:
        assert line.send().startswith("250")
        assert line.hear()[:3] == "421"
    assert server.wait(20)
    assert not server.active


class Slow(Memory):
    """A keeping whose end takes a moment, and that refuses what comes after it."""

    def __init__(self):
        super().__init__()
        self.running = False
        self.stopping = threading.Event()
        self.go_on = threading.Event()

    def start(self):
        had, self.running = self.running, True
        return not had

    def stop(self, timeout):
        self.stopping.set()
        self.go_on.wait(20)
        self.running = False
        return True


def test_who_waits_for_the_stop_of_a_hook_may_start_again_at_once():
    """wait() once returned while the store was still stopping: start() found it running, and then it was stopped."""
    store = Slow()
    server = serve(store=store)
    server.on_message_received = lambda session, message: (server.stop(5.0), None)[1]
    server.start()
    with talking(server) as line:
        assert line.send().startswith("250")
    assert store.stopping.wait(20)
    assert not server.wait(0.05)
    with pytest.raises(RuntimeError, match="still stopping"):
        server.start()
    store.go_on.set()
    assert server.wait(20)
    server.on_message_received = None
    with server, talking(server) as line:
        assert store.running and line.send().startswith("250")
    assert not store.running


def test_stop_while_it_starts_stops_it():
    """It once found no engine yet, said that all had ended, and the server ran on."""

    class Starting(Slow):
        def start(self):
            self.stopping.set()
            self.go_on.wait(20)
            return super().start()

    store = Starting()
    server = serve(store=store)
    starting = threading.Thread(target=server.start)
    starting.start()
    assert store.stopping.wait(20)
    assert not server.stop(0.05), "it is not known yet what there will be to stop"
    stopping = threading.Thread(target=server.stop, args=(20,))
    stopping.start()
    time.sleep(0.05)  # better too late than never: either order of the two must end stopped
    store.go_on.set()
    starting.join(20)
    stopping.join(20)
    assert not server.active and not store.running


def test_stop_may_be_called_from_on_stop_and_by_several_at_once():
    store = Slow()
    server = serve(store=store)
    said = []
    server.on_stop = lambda stopped: said.append(stopped.stop())
    server.start()
    answers = []
    stoppers = [threading.Thread(target=lambda: answers.append(server.stop(20))) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    assert store.stopping.wait(20)
    store.go_on.set()
    for stopper in stoppers:
        stopper.join(20)
    assert answers == [True] * 4 and said == [True]


def test_pause_keeps_newcomers_waiting():
    with serve() as server, talking(server) as early:
        server.pause()
        assert early.ask("NOOP").startswith("250")
        late = Line(server.address, greets=False)
        server.resume()
        assert late.hear().startswith("220")
        late.close()


# -- what a program can see afterwards


def test_the_transcript_of_a_failed_session_is_remembered_without_secrets():
    closed = Diary()
    server = serve(transcript_memory=2, user_accounts=[ANN], clear_text_without_tls=True)
    server.on_close_connection = lambda session: closed.note(session.id)
    with server:
        for line_to_say in ("NOOP", "AUTH PLAIN AGFubgB3cm9uZw==", "NOOP", "NOOP"):
            with talking(server) as line:
                line.ask(line_to_say)
                line.ask("QUIT")
        closed.wait(lambda entries: len(entries) == 4)
    [failed] = server.failed_sessions
    text = server.transcript(failed)
    assert "C: AUTH PLAIN ****" in text and "AGFubg" not in text and "S: 535 5.7.8" in text and "-- close" in text
    assert server.transcript(closed.entries[0]) is None  # two are remembered, the failed one longest
    assert server.transcript(closed.entries[3]) is not None


def test_the_debug_log_speaks_json_and_logging(tmp_path, caplog):
    path = tmp_path / "dialogue.jsonl"
    with serve(debug_log=str(path), debug_log_format="json") as server, talking(server) as line:
        line.send()
        line.ask("QUIT")
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert {"connect", "command", "reply", "content"} <= {row["kind"] for row in rows}
    assert all(row["session"] == rows[0]["session"] for row in rows)
    assert not any("Subject" in row["text"] for row in rows)
    logger = logging.getLogger("mine")
    with caplog.at_level(logging.DEBUG, "mine"), serve(debug_log=logger) as server, talking(server) as line:
        line.ask("NOOP")
    assert any("C: NOOP" in record.getMessage() for record in caplog.records)


def test_the_listener_of_a_session_is_named_with_its_real_port():
    store = Memory()
    listeners = [ListenerSettings("127.0.0.1:0", "lmtp", tls="none")]
    with serve(store=store, listeners=listeners) as server, talking(server, "LHLO probe.test") as line:
        line.send()
        assert store.kept[0][0].origin.listener == f"lmtp 127.0.0.1:{server.address[1]}"


def test_a_start_between_the_end_of_the_engine_and_that_of_the_store_leaves_nothing():
    """The store was nobody's to stop then, and who still waited for the first end waited for ever."""
    store = Living()
    server = serve(store=store)
    server.start()
    engine, ended = server.engine, server._ended
    assert engine.stop(5.0)
    server.start()
    assert server._stop(engine, ended, None), "a stop that is late ends its own run only"
    assert server.active
    assert server.stop(5.0)
    assert store.life == ["started", "started", "stopped"]
