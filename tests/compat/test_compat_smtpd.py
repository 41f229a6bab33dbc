"""The shape of the old standard-library module: classes, keyword arguments, command line."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from smtpd_core.compat import smtpd

ROOT = Path(__file__).parents[2]


class Capture(smtpd.SMTPServer):
    def __init__(self, *arguments, **keywords):
        self.seen = []
        self.answer = None
        super().__init__(*arguments, **keywords)

    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        self.seen.append((peer, mailfrom, rcpttos, data, kwargs))
        return self.answer


@pytest.fixture
def capture():
    servers = []

    def make(**keywords):
        servers.append(Capture(("127.0.0.1", 0), None, **keywords))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def send(server, content="Subject: x\r\n\r\none\r\n..two\r\n", options=()):
    with smtplib.SMTP(*server.addr, timeout=20) as client:
        client.sendmail("a@a.test", ["b@b.test", "c@c.test"], content, mail_options=list(options))


def test_process_message_gets_bytes_with_lf_and_the_options(capture):
    server = capture()
    send(server, options=["BODY=8BITMIME"])
    [(peer, sender, recipients, data, kwargs)] = server.seen
    assert peer[0] == "127.0.0.1" and isinstance(peer[1], int)
    assert (sender, recipients) == ("a@a.test", ["b@b.test", "c@c.test"])
    assert data == b"Subject: x\n\none\n..two"
    assert kwargs == {"mail_options": ["SIZE=26", "BODY=8BITMIME"], "rcpt_options": []}


def test_decode_data_gives_text_and_no_options(capture):
    server = capture(decode_data=True)
    send(server)
    assert server.seen[0][3:] == ("Subject: x\n\none\n..two", {})


def test_a_status_line_is_the_answer(capture):
    server = capture()
    server.answer = "554 5.7.1 Not this one"
    with pytest.raises(smtplib.SMTPDataError) as refusal:
        send(server)
    assert (refusal.value.smtp_code, refusal.value.smtp_error) == (554, b"5.7.1 Not this one")


def test_a_message_over_the_limit_is_refused(capture):
    server = capture(data_size_limit=100)
    with pytest.raises(smtplib.SMTPSenderRefused) as refusal:
        send(server, "x" * 200)
    assert refusal.value.smtp_code == 552
    assert server.seen == []


def test_utf8_and_decode_data_exclude_each_other():
    with pytest.raises(ValueError, match="decode_data and enable_SMTPUTF8"):
        smtpd.SMTPServer(("127.0.0.1", 0), None, enable_SMTPUTF8=True, decode_data=True)
    with pytest.raises(ValueError, match="SMTPUTF8"):
        smtpd.PureProxy(("127.0.0.1", 0), None, enable_SMTPUTF8=True)


def test_a_proxy_passes_mail_on_with_the_peer(capture):
    behind = capture()
    proxy = smtpd.PureProxy(("127.0.0.1", 0), behind.addr)
    try:
        send(proxy)
        assert behind.seen[0][3] == b"Subject: x\nX-Peer: 127.0.0.1\n\none\n..two"
        behind.answer = "550 no"
        with pytest.raises(smtplib.SMTPDataError):
            send(proxy)
    finally:
        proxy.close()


def test_the_command_line_runs_a_class_and_prints_mail():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "smtpd_core.compat.smtpd", "-n", "-c", "DebuggingServer", f"127.0.0.1:{port}"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr.readline() == f"DebuggingServer listening on 127.0.0.1:{port}\n"
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                client.sendmail("a@a.test", ["b@b.test"], "Subject: shown\r\n\r\nbody\r\n")
            lines = [process.stdout.readline().rstrip("\n") for _ in range(7)]
        finally:
            process.terminate()
    assert lines[0] == "---------- MESSAGE FOLLOWS ----------"
    assert "b'Subject: shown'" in lines and "b'X-Peer: 127.0.0.1'" in lines


@pytest.mark.parametrize("words", [["-c", "Unknown"], ["-n", "nowhere"]])
def test_the_command_line_says_what_is_wrong(words):
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core.compat.smtpd", *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "is due" in done.stderr


def test_the_debugging_server_prints_each_line_once(capsys):
    """The end of the last line showed as an empty line more."""
    for decode_data, lines in ((False, ["b'Subject: x'", "b'X-Peer: 127.0.0.1'", "b''", "b'hi'"]), (True, None)):
        server = smtpd.DebuggingServer(("127.0.0.1", 0), None, decode_data=decode_data)
        try:
            with smtplib.SMTP(*server.addr, timeout=20) as client:
                client.ehlo("probe.test")
                assert client.has_extn("8BITMIME") is not decode_data
                client.sendmail("a@a.test", ["b@b.test"], "Subject: x\r\n\r\nhi\r\n\r\n")
        finally:
            server.close()
        printed = capsys.readouterr().out.splitlines()
        expected = lines or ["Subject: x", "X-Peer: 127.0.0.1", "", "hi"]
        assert printed[0].startswith("-----") and printed[-1].startswith("-----")
        assert [line for line in printed[1:-1] if "mail options" not in line] == expected
