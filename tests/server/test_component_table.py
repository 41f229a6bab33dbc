"""The component's table, row by row: each property, method and event, shown to work by a test that bears its name.

The rows are those of docs/embedding.md; test_every_row_of_the_table_has_its_test keeps the two together.
"""

# ruff: noqa: SIM117 (a server around a client reads better than both in one line)

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.files import Pair, pem_of, write_pair
from certs.issue import ensure_self_signed, self_signed
from certs.samples import make_samples
from smtpd_core import (
    Accept,
    Account,
    Guard,
    GuardSettings,
    Handler,
    ListenerSettings,
    MemoryStore,
    Redirect,
    Refuse,
    Reply,
    SmtpServer,
    Timeouts,
    UserAccount,
    WithheldError,
)
from tests.server.people import HARMLESS, Diary, Line, Memory, talking

ANN = UserAccount("ann", "secret", "Ann", "ann@mx.test")
PLAIN = "AUTH PLAIN AGFubgBzZWNyZXQ="
WRONG = "AUTH PLAIN AGFubgB3cm9uZw=="
EMBEDDING = Path(__file__).parents[2] / "docs" / "embedding.md"


def serve(**properties):
    properties.setdefault("port", 0)
    properties.setdefault("server_name", "mx.test")
    properties.setdefault("store", Memory())
    properties.setdefault("guard", HARMLESS)
    return SmtpServer(**properties)


def insecure():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_every_row_of_the_table_has_its_test():
    table = EMBEDDING.read_text().partition("## The component, row by row")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)[1:]
    assert len(rows) > 25
    for row in rows:
        words = re.sub(r"[^A-Za-z0-9]+", "_", row).strip("_")
        assert f"test_{words}" in globals(), f"the row {row!r} has no test"


# -- properties


def test_Port_LocalBinding_UseIpV6(tmp_path):
    with serve() as server:
        host, port = server.address
        assert host == "127.0.0.1" and port > 0
    with serve(local_binding="*", use_ipv6=True) as server:
        port = server.address[1]
        assert Line(("127.0.0.1", port)).greeting.startswith("220")
        if socket.has_dualstack_ipv6():
            assert Line(("::1", port)).greeting.startswith("220")
    path = str(tmp_path / "smtp.sock")
    with serve(local_binding=f"unix:{path}") as server:
        assert server.address == path
        assert Line(path).greeting.startswith("220")
    two = [ListenerSettings("127.0.0.1:0", tls="none"), ListenerSettings("127.0.0.1:0", "submission", tls="none")]
    with serve(listeners=two) as server:
        assert len(server.addresses) == 2
        assert all(Line(one).greeting.startswith("220") for one in server.addresses)
    with serve() as first, pytest.raises(OSError, match=str(first.address[1])):
        serve(port=first.address[1]).start()


def test_BatchSize():
    store = Memory()
    with serve(batch_size=512, store=store) as server, talking(server) as line:
        assert line.send(content="x" * 5000).startswith("250")
    assert store.kept[0][1].endswith(b"x" * 5000 + b"\r\n")


def test_CaseInsensitive():
    for case_insensitive, code in ((False, "535"), (True, "235")):
        properties = {"user_accounts": [UserAccount("ANN", "secret")], "clear_text_without_tls": True}
        with serve(case_insensitive=case_insensitive, **properties) as server, talking(server) as line:
            assert line.ask(PLAIN)[:3] == code


def test_MaxRecipients():
    with serve(max_recipients=2) as server, talking(server) as line:
        assert "LIMITS RCPTMAX=2" in line.ask("EHLO again.test")
        line.ask("MAIL FROM:<>")
        codes = [line.ask(f"RCPT TO:<{n}@b.test>")[:9] for n in range(3)]
        assert codes == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]


def test_MaxThreadCount():
    diary = Diary()
    gate = Diary()
    with serve(max_thread_count=2, min_thread_count=0) as server:

        @server.on_hello
        def hello(session, domain):
            diary.note(domain)
            gate.wait(lambda entries: entries)

        lines = [Line(server.address) for _ in range(3)]
        for number, line in enumerate(lines):
            line.say(f"EHLO n{number}.test")
        diary.wait(lambda entries: len(entries) == 2)
        assert server.engine.pool.slots_held == 2
        with Line(server.address) as other:  # idle and hookless clients need no thread
            assert other.ask("NOOP").startswith("250")
        gate.note("open")
        assert all(line.hear().startswith("250") for line in lines)


def test_MinThreadCount():
    with serve(min_thread_count=3, max_thread_count=5) as server:
        assert server.engine.pool.thread_count == 4  # three that wait, and the one that leads
        server.min_thread_count = 1
        assert server.engine.pool.minimum == 1
    with pytest.raises(ValueError, match="min_thread_count 9 is above max_thread_count 4"):
        serve(min_thread_count=9, max_thread_count=4)


def test_UserAccounts():
    with serve(user_accounts=[ANN], clear_text_without_tls=True) as server, talking(server) as line:
        assert line.ask(WRONG)[:9] == "535 5.7.8"
        assert line.ask(PLAIN)[:9] == "235 2.7.0"
    with serve(user_accounts=MemoryStore([ANN]), clear_text_without_tls=True) as server, talking(server) as line:
        assert line.ask(PLAIN)[:3] == "235"
    with serve(user_accounts=lambda user, password: user == "ann", clear_text_without_tls=True) as server:
        with talking(server) as line:
            assert line.ask(PLAIN)[:3] == "235"


def test_UseAuth_UseLogin_UseSPA():
    with serve(use_auth="off", user_accounts=[ANN]) as server, talking(server) as line:
        assert "AUTH" not in line.ask("EHLO again.test")
    with serve(use_auth="required", user_accounts=[ANN], clear_text_without_tls=True) as server:
        with talking(server) as line:
            assert line.ask("MAIL FROM:<>")[:9] == "530 5.7.0"
            line.ask(PLAIN)
            assert line.ask("MAIL FROM:<>")[:3] == "250"
    with serve(user_accounts=[ANN], auth_mechanisms=["CRAM-MD5"]) as server, talking(server) as line:
        assert "AUTH CRAM-MD5\n" in line.ask("EHLO again.test")
    with pytest.raises(ValueError, match="PLAIN could never work: it shows the password and there is no TLS"):
        serve(use_auth="required", user_accounts=[ANN], auth_mechanisms=["PLAIN"]).start()


def test_UseTLS(tmp_path):
    certificate, key = ensure_self_signed(tmp_path, "mx.test")
    files = {"certificate": str(certificate), "key": str(key)}
    with serve(use_tls="implicit", **files) as server:
        with smtplib.SMTP_SSL(*server.address, context=insecure(), timeout=20) as client:
            assert client.noop()[0] == 250
    with serve(use_tls="explicit_require", **files) as server:
        with smtplib.SMTP(*server.address, timeout=20) as client:
            client.ehlo()
            assert client.docmd("MAIL FROM:<>")[0] == 530
            client.starttls(context=insecure())
            assert client.docmd("EHLO again.test")[0] == 250
            assert client.docmd("MAIL FROM:<>")[0] == 250
    with serve(use_tls="explicit-allow", **files) as server, talking(server) as line:
        assert "STARTTLS" in line.ask("EHLO again.test")
        assert line.send().startswith("250")
    with pytest.raises(ValueError, match="use_tls without a certificate"):
        serve(use_tls="implicit").start()


def test_TLSFlags_RequireClientCertificate(tmp_path):
    certificate, key = ensure_self_signed(tmp_path, "mx.test")
    with serve(use_tls="implicit", certificate=str(certificate), key=str(key), tls_minimum="1.3") as server:
        old = insecure()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, OSError)):
            smtplib.SMTP_SSL(*server.address, context=old, timeout=20)
        with smtplib.SMTP_SSL(*server.address, context=insecure(), timeout=20) as client:
            assert client.sock.version() == "TLSv1.3"
    client_pair = Pair(*self_signed(["ann@mx.test"], usages=["client"]))
    write_pair(client_pair, tmp_path / "client.pem", tmp_path / "client.key")
    properties = {"require_client_certificate": True, "client_ca_file": str(tmp_path / "client.pem")}
    server = serve(use_tls="implicit", certificate=str(certificate), key=str(key), **properties)
    with server:
        with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPServerDisconnected)):
            smtplib.SMTP_SSL(*server.address, context=insecure(), timeout=20).noop()
        known = insecure()
        known.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        with smtplib.SMTP_SSL(*server.address, context=known, timeout=20) as client:
            assert client.noop()[0] == 250


@pytest.mark.parametrize("mode, is_refused", [("ask", False), ("require", True)])
def test_RequireClientCertificate_asks_or_requires_and_looks_for_revoked_ones(tmp_path, mode, is_refused):
    samples = make_samples()
    (tmp_path / "ca.pem").write_bytes(pem_of(samples.root.certificate, samples.between.certificate))
    (tmp_path / "crl.pem").write_bytes(samples.crl.public_bytes(Encoding.PEM))
    for name in ("client", "revoked"):
        write_pair(samples.leaves[name], tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
    told = []
    server = serve(
        use_tls="implicit",
        certificate="self-signed",
        require_client_certificate=mode,
        client_ca_file=str(tmp_path / "ca.pem"),
        client_crl_file=str(tmp_path / "crl.pem"),
    )
    server.on_hello = lambda session, name: told.append((session.tls.peer_verified, session.tls.peer_error))

    def hello(name):
        context = insecure()
        if name:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        with smtplib.SMTP_SSL(*server.address, context=context, timeout=20) as client:
            return client.ehlo()[0]

    with server:
        assert hello("client") == 250 and told == [(True, "")]
        for name in ("revoked", ""):
            if is_refused:
                with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPServerDisconnected)):
                    hello(name)
            else:
                assert hello(name) == 250 and told[-1][0] is False
        assert is_refused or "revoked" in told[1][1]


def test_RequireClientCertificate_takes_three_words_or_a_truth():
    assert [SmtpServer(require_client_certificate=one).require_client_certificate for one in (True, False, "ask")] == [
        "require",
        "no",
        "ask",
    ]
    with pytest.raises(ValueError, match="'no', 'ask', 'require'"):
        SmtpServer(require_client_certificate="perhaps")
    with pytest.raises(ValueError, match="needs client_ca_file"):
        serve(use_tls="implicit", certificate="self-signed", require_client_certificate="ask").start()
    with pytest.raises(ValueError, match="only where clients are asked"):
        serve(use_tls="implicit", certificate="self-signed", client_crl_file="crl.pem").start()


def test_TimeOut_SessionTimeOut():
    with serve(timeout=0.2) as server, Line(server.address) as line:
        assert line.hear() == "421 4.4.2 Time-out; closing"
    with serve(session_timeout=0.3) as server, talking(server) as line:
        assert line.hear()[:9] == "421 4.4.2"
    with serve(timeouts=Timeouts(data=0.2)) as server, talking(server) as line:
        line.ask("MAIL FROM:<>")
        line.ask("RCPT TO:<b@b.test>")
        line.ask("DATA")
        line.say("half a")
        assert line.hear()[:9] == "421 4.4.2"


def test_MaxDataSize():
    store = Memory()
    with serve(max_data_size=1000, store=store) as server, talking(server) as line:
        assert "SIZE 1000\n" in line.ask("EHLO again.test")
        assert line.ask("MAIL FROM:<> SIZE=1001")[:9] == "552 5.3.4"
        assert line.send(content="x" * 2000)[:9] == "552 5.3.4"
        server.max_data_size = 3000
        assert line.send(content="x" * 2000)[:9] == "552 5.3.4"  # this connection keeps what it was told
        with talking(server) as newcomer:
            assert newcomer.send(content="x" * 2000).startswith("250")
    assert len(store.kept) == 1


def test_ServerName_HelpText():
    with serve(server_name="mail.example", banner="at your service", help_text="See example.test") as server:
        with talking(server, hello="") as line:
            assert line.greeting == "220 mail.example at your service"
            help_reply = line.ask("HELP")
            assert "MAIL" in help_reply and help_reply.endswith("See example.test")


def test_Guard_ServerGuard():
    blocked = GuardSettings(block=("127.0.0.0/8",), exempt=())
    with serve(guard=blocked) as server:
        assert Line(server.address).greeting[:9] == "554 5.7.1"
    with serve(guard=GuardSettings(max_connections=1)) as server:
        with Line(server.address):
            assert Line(server.address).greeting[:9] == "421 4.3.2"
    with serve(guard=GuardSettings(messages_per_period=1, exempt=())) as server, talking(server) as line:
        assert line.send().startswith("250")
        assert line.ask("MAIL FROM:<>")[:9] == "451 4.7.1"
    delays = GuardSettings(login_delay=0.2, max_login_delay=0.2, lock_out_after=2)
    with serve(guard=delays, user_accounts=[ANN], clear_text_without_tls=True) as server, talking(server) as line:
        began = time.monotonic()
        assert line.ask(WRONG)[:3] == "535"
        assert time.monotonic() - began >= 0.2
        line.ask(WRONG)
        assert line.ask(PLAIN)[:3] == "535"  # locked out: even the right password does not help
    with serve() as server:
        assert Line(server.address).greeting.startswith("220")
        server.guard = blocked  # while it runs
        assert Line(server.address).greeting[:9] == "554 5.7.1"
    guard = Guard()
    with serve(guard=guard) as server, Line(server.address):
        assert guard.connections == 1


def test_Commands():
    with serve() as server:
        server.commands.add("XPING", lambda session, argument: Reply(250, "2.0.0", f"pong {argument}"))
        server.commands.add("XLATE", lambda session, argument: None, legal=["sender"])
        server.commands.wrap("VRFY", lambda session, argument: Refuse(550, "5.7.1", "no") if "x" in argument else None)
        server.commands.replace("NOOP", lambda session, argument: Reply(250, "2.0.0", "mine"))
        server.commands.remove("HELP")
        assert "XPING" in server.commands and "HELP" not in server.commands
        assert server.commands.look_up("xping") is not None and server.commands.look_up("MAIL") is None
        with talking(server) as line:
            line.say("XPING a", "NOOP", "XPING b")  # replies keep their order in a pipelined group
            assert [line.hear() for _ in range(3)] == ["250 2.0.0 pong a", "250 2.0.0 mine", "250 2.0.0 pong b"]
            assert line.ask("XLATE")[:3] == "503"
            assert line.ask("VRFY x")[:9] == "550 5.7.1"
            assert line.ask("VRFY ann")[:3] == "252"
            assert line.ask("HELP")[:9] == "502 5.5.1"
        server.commands.remove("NOOP")
        with talking(server) as line:
            assert line.ask("NOOP") == "250 2.0.0 Ok"
        for verb, place in (
            ("MAIL", server.commands.add),
            ("DATA", server.commands.replace),
            ("BDAT", server.commands.wrap),
        ):
            with pytest.raises(ValueError, match=verb):
                place(verb, lambda session, argument: None)
        with pytest.raises(KeyError):
            server.commands.look_up("XNONE")


def test_Active_Connections():
    server = serve(user_accounts=[ANN], clear_text_without_tls=True)
    assert not server.active and server.connections == [] and server.connection_count == 0
    server.active = True
    assert server.active
    with talking(server) as line:
        line.ask(PLAIN)
        line.ask("MAIL FROM:<a@a.test>")
        line.ask("RCPT TO:<b@b.test>")
        [session] = server.connections
        assert server.connection_count == 1
        assert session.address == "127.0.0.1" and session.state == "recipients" and session.hello == "probe.test"
        assert session.user_name == "ann" and session.tls is None
        assert session.transaction.sender == "a@a.test"
        assert [one.address for one in session.transaction.recipients] == ["b@b.test"]
    server.active = False
    assert not server.active


# -- methods


def test_Start_Stop():
    server = serve()
    server.stop()  # before any start
    with pytest.raises(RuntimeError):
        _ = server.address
    server.start()
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()
    with talking(server) as line:
        assert server.stop(5)
        assert line.hear()[:9] == "421 4.3.2"
    assert server.stop(5)
    server.start()  # again
    server.pause()
    server.resume()
    assert Line(server.address).greeting.startswith("220")
    assert server.stop(5)
    taken = socket.create_server(("127.0.0.1", 0))
    failing = serve(port=taken.getsockname()[1])
    with pytest.raises(OSError):
        failing.start()
    assert failing.stop()
    taken.close()
    failing.start()
    failing.stop()


# -- events


def test_OnStart_OnStop_OnAcceptConnection_OnCloseConnection_OnReadConnection():
    diary = Diary()
    server = serve()
    server.on_start = lambda server: diary.note(("start", server.address[0]))
    server.on_stop = lambda server: diary.note(("stop", server.active))
    server.on_accept_connection = lambda session: diary.note(("accept", session.address))
    server.on_close_connection = lambda session: diary.note(("close", session.ended_because))
    server.on_read_connection = lambda session, data: diary.note(("read", data))
    with server:
        with talking(server) as line:
            assert line.ask("QUIT")[:3] == "221"
        diary.wait(lambda entries: any(kind == "close" for kind, _ in entries))
    kinds = [kind for kind, _ in diary.entries]
    assert kinds == ["start", "accept", "read", "read", "close", "stop"]
    assert ("read", b"QUIT\r\n") in diary.entries

    with serve() as server:
        server.on_accept_connection = lambda session: Refuse(554, "5.7.1", "Not you")
        with Line(server.address) as line:
            assert line.greeting == "554 5.7.1 Not you"
            assert line.hear() == ""


def test_OnAuthenticate():
    seen = []

    def decide(session, login):
        seen.append((login.mechanism, login.user, login.password))
        return {
            "a": Account("alice"),
            "b": Refuse(535, "5.7.8", "Not today"),
            "c": UserAccount("c", "secret"),
            "d": None,
        }.get(login.user)

    def plain(user, password):
        import base64

        return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()

    with serve(user_accounts=[UserAccount("d", "secret")], clear_text_without_tls=True) as server:
        server.on_authenticate = decide
        for user, password, answer, name in (
            ("a", "anything", "235", "alice"),
            ("b", "secret", "535", ""),
            ("c", "secret", "235", "c"),
            ("c", "wrong", "535", ""),
            ("d", "secret", "235", "d"),
            ("d", "wrong", "535", ""),
        ):
            with talking(server) as line:
                assert line.ask(plain(user, password))[:3] == answer, user
                assert server.connections[0].user_name == name
    assert seen[0] == ("PLAIN", "a", "anything")
    with serve(clear_text_without_tls=True) as server:  # no store at all

        @server.on_authenticate
        def broken(session, login):
            raise RuntimeError("the back end is down")

        with talking(server) as line:
            assert line.ask(plain("a", "b"))[:9] == "454 4.7.0"


def test_OnMailFrom_OnRecipientTo_OnMessageReceived():
    store = Memory()
    with serve(store=store) as server:
        server.on_mail_from = lambda session, sender, parameters: Refuse("no") if sender.startswith("bad") else None
        server.on_recipient_to = lambda session, recipient: {
            "list@b.test": Redirect("ann@b.test", "bob@b.test"),
            "gone@b.test": Reply(551, "5.1.6", "Moved"),
            "fine@b.test": Accept("You know her"),
        }.get(recipient.address)

        @server.on_message_received
        def read(session, message):
            if message.headers["subject"] == "spam":
                return Refuse(550, "5.7.1", "Spam")
            if message.headers["subject"] == "away":
                return Redirect("quarantine@b.test")
            assert message.file.read(7) == b"Subject" and message.file.seek(0) == 0
            return None

        with talking(server) as line:
            assert line.ask("MAIL FROM:<bad@a.test>") == "550 5.7.1 no"
            line.ask("MAIL FROM:<a@a.test>")
            assert line.ask("RCPT TO:<gone@b.test>") == "551 5.1.6 Moved"
            assert line.ask("RCPT TO:<fine@b.test>") == "250 2.1.5 You know her"
            line.ask("RSET")
            assert line.send(to="list@b.test").startswith("250 2.0.0 Ok: queued as ")
            assert line.send(content="Subject: spam\r\n\r\n") == "550 5.7.1 Spam"
            assert line.send(content="Subject: away\r\n\r\n").startswith("250")
    addresses = [[one.address for one in envelope.recipients] for envelope, _ in store.kept]
    assert addresses == [["ann@b.test", "bob@b.test"], ["quarantine@b.test"]]


def test_OnReceiveCommand_OnSendResponse(tmp_path):
    dialogue = Diary()
    log = tmp_path / "dialogue.log"
    with serve(debug_log=str(log), user_accounts=[ANN], clear_text_without_tls=True) as server:
        server.on_receive_command = lambda session, command: dialogue.note("C: " + command)
        server.on_send_response = lambda session, reply: dialogue.note(f"S: {reply.code}")
        with talking(server, hello="HELO probe.test") as line:
            line.ask(PLAIN)
            line.send()
            line.ask("QUIT")
        dialogue.wait(lambda entries: "S: 221" in entries)
    said = dialogue.entries
    assert said[:5] == ["S: 220", "C: HELO probe.test", "S: 250", "C: AUTH PLAIN ****", "S: 235"]
    text = log.read_text()
    assert "C: AUTH PLAIN ****" in text and "AGFubg" not in text and "221" in text


def test_OnServerError():
    errors = Diary()
    with serve() as server:
        server.on_server_error = lambda session, error: errors.note((session.id, str(error)))
        server.on_recipient_to = lambda session, recipient: 1 / 0
        server.on_hello = lambda session, domain: "250 fine"  # a verdict of the wrong kind
        with talking(server, hello="") as line:
            assert line.ask("EHLO probe.test") == "451 4.3.0 Internal error; try again later"
            server.on_hello = None
            line.ask("EHLO probe.test")
            line.ask("MAIL FROM:<>")
            assert line.ask("RCPT TO:<b@b.test>") == "451 4.3.0 Internal error; try again later"
            assert line.ask("NOOP")[:3] == "250"
        server.on_accept_connection = lambda session: 1 / 0
        assert Line(server.address).greeting == "421 4.3.0 Internal error; try again later"
    texts = [text for _, text in errors.entries]
    assert "on_hello returned '250 fine'" in texts[0] and texts[1] == "division by zero" and len(texts) == 3


def test_OnGetCertificate(tmp_path):
    names = []
    other, key = ensure_self_signed(tmp_path, "other.test")
    server = serve(use_tls="implicit", certificate="self-signed")

    @server.on_get_certificate
    def choose(session, name):
        names.append((session.address, name))
        return (str(other), str(key)) if name == "other.test" else None

    with server:
        for name, expected in (("other.test", True), ("mx.test", False)):
            with socket.create_connection(server.address) as plain:
                with insecure().wrap_socket(plain, server_hostname=name) as wrapped:
                    der = wrapped.getpeercert(binary_form=True)
                    assert (b"other.test" in der) is expected
    assert names == [("127.0.0.1", "other.test"), ("127.0.0.1", "mx.test")]


# -- companions


def test_SmtpFileHandler(tmp_path):
    from relay import MailboxStore, Outbox

    store = MailboxStore(tmp_path / "mail", domains=("mx.test",))
    with serve(store=store, outbox=Outbox(tmp_path / "outbox")) as server, talking(server) as line:
        assert line.send(to="ann@mx.test,bob@elsewhere.invalid", content="Subject: both\r\n\r\nx").startswith("250")
    [kept] = (tmp_path / "mail" / "new").iterdir()
    assert kept.read_bytes().endswith(b"Subject: both\r\n\r\nx\r\n")
    assert (tmp_path / "outbox" / "queue.db").exists()
    with serve(store=Memory("mx.test"), outbox=Memory(), relay_from=()) as server, talking(server) as line:
        line.ask("MAIL FROM:<>")
        assert line.ask("RCPT TO:<ann@mx.test>")[:3] == "250"
        assert line.ask("RCPT TO:<bob@elsewhere.invalid>")[:9] == "550 5.7.1"


def test_SmtpRelay():
    from relay import SmtpRelay

    store = Memory()
    with serve(store=store) as server:
        host, port = server.address
        relay = SmtpRelay(smarthost=f"{host}:{port}")
        [status] = relay.send(b"Subject: x\r\n\r\nbody\r\n", "a@a.test", ["b@b.test"])
        assert status.is_sent
    assert store.kept[0][1].endswith(b"Subject: x\r\n\r\nbody\r\n")


def test_Certificate_store(tmp_path):
    from certs import CertificateStore

    store = CertificateStore.open(tmp_path / "store")
    item = store.create_self_signed(["mx.test", "ann@mx.test"])
    assert store.find_by_thumbprint(item.thumbprint) is not None and store.find_by_email("ann@mx.test")
    assert item.valid_from < item.valid_to and item.key_length >= 256
    with serve(use_tls="implicit", certificate=store.pair(item)) as server:
        with smtplib.SMTP_SSL(*server.address, context=insecure(), timeout=20) as client:
            assert client.noop()[0] == 250


def test_Demos():
    examples = Path(__file__).parents[2] / "docs" / "examples"
    assert len(list(examples.glob("*.py"))) >= 7  # tests/server/test_examples.py runs them


def test_a_handler_object_has_any_of_the_events():
    class Mine(Handler):
        def on_mail_from(self, session, sender, parameters):
            return Refuse("nothing from you")

    with serve(handler=Mine()) as server, talking(server) as line:
        assert line.ask("MAIL FROM:<a@a.test>") == "550 5.7.1 nothing from you"
        assert not server.on_recipient_to  # what nobody overrode costs nothing


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RecursionError])
@pytest.mark.parametrize(
    "event, code",
    [
        ("on_accept_connection", "421 4.3.0"),
        ("on_hello", "451 4.3.0"),
        ("on_authenticate", "454 4.7.0"),
        ("on_mail_from", "451 4.3.0"),
        ("on_recipient_to", "451 4.3.0"),
        ("on_message_received", "451 4.3.0"),
        ("on_receive_command", ""),
        ("on_read_connection", ""),
        ("on_close_connection", ""),
    ],
)
def test_a_hook_that_exits_is_a_hook_that_failed(event, code, error):
    """sys.exit() in a hook closed the connection without an answer and was told to nobody."""
    errors, heard = Diary(), []

    def fail(*arguments):
        raise error("from a hook")

    with serve(on_server_error=lambda session, one: errors.note(one), clear_text_without_tls=True) as server:
        setattr(server, event, fail)
        with Line(server.address) as line:
            heard.append(line.greeting)
            for command in ("EHLO probe.test", PLAIN) if line.greeting.startswith("220") else ():
                heard.append(line.ask(command))
            if heard[-1][:3] not in ("421", "451"):
                heard.append(line.send())
        told = errors.wait(lambda entries: entries)[0]
        assert isinstance(told.original if isinstance(told, WithheldError) else told, error)
        if code:
            assert any(reply.startswith(code) for reply in heard)
        else:
            assert heard[-1].startswith("250")
        setattr(server, event, None)
        with talking(server) as line:
            assert line.send().startswith("250")
