"""A recorded session can be played again, against any server, with TLS and log-ins; what differs is shown."""

from __future__ import annotations

import io
import re
import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpd_core.app.cli import main
from smtpd_core.testing import TestServer
from tests.support.letters import send
from tests.support.peer import ScriptedPeer

ACCOUNTS = {"ann": "secret"}


def record(tmp_path: Path, act: Callable[[smtplib.SMTP], object], login: bool = True, **options: object) -> Path:
    """What a client did with a server of these options, as a file."""
    path = tmp_path / "session.txt"
    with TestServer(**options) as server:  # type: ignore[arg-type]
        with server.client(login=login) as client:
            act(client)
        server.settle()
        path.write_text(server.transcript)
    return path


def play(path: Path, server: TestServer, *options: str) -> int:
    return main(["replay", "--server", f"{server.host}:{server.port}", *options, str(path)])


def test_the_same_session_has_the_same_replies(
    smtpd: TestServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(record(tmp_path, send), smtpd) == 0
    said = capsys.readouterr().out
    assert said.startswith("same     (connect): 220") and "differs" not in said
    assert len(smtpd.inbox) == 1


def test_a_reply_that_differs_is_shown_with_its_words(
    smtpd: TestServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, send)
    smtpd.faults.on("RCPT").reply(451, "Not now")
    assert play(path, smtpd) == 1
    said = capsys.readouterr().out
    assert "recorded 250 2.1.5 Recipient ok; here 451 Not now" in said


@pytest.mark.parametrize("tls", ["none", "starttls", "starttls-required", "implicit"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_tls_and_logins_are_played_as_they_were_recorded(
    tls: str, mechanism: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(client: smtplib.SMTP) -> None:
        client.user, client.password = "ann", "secret"
        client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))
        send(client)

    path = record(tmp_path, act, login=False, tls=tls, accounts=ACCOUNTS)
    monkeypatch.setenv("SMTPD_PASSWORD", "other")
    with TestServer(tls=tls, accounts={"bob": "other"}, auth="required") as server:
        assert play(path, server, "--user", "bob") == 0, capsys.readouterr().out
        letter = server.inbox.wait_for(user="bob")
        assert bool(letter.envelope.origin.tls) == (tls != "none")


def test_a_scram_login_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.txt"
    path.write_text("S: 220 x\nC: EHLO a\nS: 250 x\nC: AUTH SCRAM-SHA-256 ****\nS: 334 ****\nC: ****\nS: 235 ok\n")
    monkeypatch.setenv("SMTPD_PASSWORD", "secret")
    with TestServer(accounts=ACCOUNTS) as server:
        assert play(path, server, "--user", "ann") == 0


def test_a_wrong_password_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, smtplib.SMTP.noop, accounts=ACCOUNTS)
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    with TestServer(accounts=ACCOUNTS) as server:
        assert play(path, server, "--user", "ann") == 1
    said = capsys.readouterr()
    assert "here 535" in said.out and "wrong" not in said.out + said.err


def test_a_masked_login_wants_a_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, smtplib.SMTP.noop, accounts=ACCOUNTS)
    assert main(["replay", str(path)]) == 2
    assert "give --user" in capsys.readouterr().err


def test_an_authority_can_be_demanded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, smtplib.SMTP.noop, tls="starttls")
    with TestServer(tls="starttls") as server, TestServer(tls="starttls") as other:
        known = tmp_path / "ca.pem"
        known.write_text(server.authority_pem)
        assert play(path, server, "--ca", str(known)) == 0
        assert play(path, other, "--ca", str(known)) == 1
    assert "certificate verify failed" in capsys.readouterr().err


def test_what_was_said_under_tls_is_not_said_without_it(
    smtpd: TestServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, send, tls="starttls")
    assert play(path, smtpd) == 1
    assert "what follows was said under TLS" in capsys.readouterr().out
    smtpd.inbox.assert_none()


def test_content_is_not_sent_where_the_server_does_not_wait_for_it(
    smtpd: TestServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, send)
    smtpd.faults.on("DATA").reply(451)
    assert play(path, smtpd) == 1
    assert "not sent: the server does not wait" in capsys.readouterr().out


def test_chunks_are_played_with_their_octets(smtpd: TestServer, tmp_path: Path) -> None:
    def act(client: smtplib.SMTP) -> None:
        client.mail("a@a.test")
        client.rcpt("b@b.test")
        client.send(b"BDAT 14\r\nSubject: x\r\n\r\nBDAT 7 LAST\r\nHello\r\n")
        assert (client.getreply()[0], client.getreply()[0]) == (250, 250)

    assert play(record(tmp_path, act), smtpd) == 0
    assert len(smtpd.inbox.wait_for().content) == 21


def test_every_session_of_a_transcript_is_played(
    smtpd: TestServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.txt"
    with TestServer() as server:
        for _ in range(2):
            with server.client() as client:
                send(client)
        server.settle()
        path.write_text(server.transcript)
    assert play(path, smtpd) == 0
    assert capsys.readouterr().out.count("(connect)") == 2
    assert len(smtpd.inbox) == 2


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("S: 220 x\n-- close", "the server closed the connection"),
        ("S: 220 x\nC: EHLO\n-- hang", "no reply within 0.2 s"),
        ("-- say 22", "ended within a reply|no reply"),
    ],
)
def test_a_server_that_goes_or_is_silent_is_a_difference(
    script: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, send)
    with ScriptedPeer(script) as peer:
        assert main(["replay", "--timeout", "0.2", "--server", f"127.0.0.1:{peer.port}", str(path)]) == 1
    assert re.search(why, capsys.readouterr().out)


def test_a_port_where_nobody_answers_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, send)
    with TestServer() as server:
        port = server.port
    assert main(["replay", "--server", f"127.0.0.1:{port}", str(path)]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_a_file_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "/nowhere/session.txt"]) == 2
    assert "/nowhere/session.txt" in capsys.readouterr().err


def test_challenges_without_an_end_end_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMTPD_PASSWORD", "secret")
    path = tmp_path / "session.txt"
    path.write_text("S: 220 x\nC: AUTH CRAM-MD5\nS: 334 ****\nC: ****\nS: 235 ok\n")
    script = "S: 220 x\nC: AUTH\n" + "S: 334 PGFAYj4=\nC: \n" * 20
    with ScriptedPeer(script) as peer:
        assert main(["replay", "--user", "ann", "--server", f"127.0.0.1:{peer.port}", str(path)]) == 1
    assert "8 challenges, and the log-in goes on" in capsys.readouterr().out


def test_authorities_that_are_missing_are_not_taken_for_the_transcript(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--ca", "/nowhere/ca.pem", str(record(tmp_path, send))]) == 2
    said = capsys.readouterr().err
    assert "--ca /nowhere/ca.pem: No such file" in said and "session.txt" not in said
