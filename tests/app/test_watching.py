"""Figures, health, transcripts and logs: what an operator sees of a running server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from certs.store import CertificateStore
from smtpd_core.app.cli import main
from smtpd_core.app.cmd_top import picture
from smtpd_core.app.figures import METRICS, Figure
from smtpd_core.app.watch_port import WatchPort
from tests.app.daemon import ROOT, DaemonProcess
from tests.app.missing import without
from tests.app.terminals import OnTerminal, Tmux


def fetch(daemon: DaemonProcess, path: str, accept: str = "*/*") -> tuple[int, str]:
    base = next(line for line in daemon.output.read_text().splitlines() if line.startswith("watching ")).split()[1]
    try:
        request = urllib.request.Request(base.replace("/metrics", path), headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def configured(tmp_path: Path, text: str) -> DaemonProcess:
    config = tmp_path / "smtpd.toml"
    config.write_text(text)
    return DaemonProcess(tmp_path / "state", "--config", str(config))


def send_one(daemon: DaemonProcess) -> None:
    with smtplib.SMTP(*daemon.address, timeout=20) as client:
        client.sendmail("eve@far.test", ["ann@our.test"], "Subject: x\r\n\r\nx\r\n")


def test_a_250_that_means_less_than_synced_says_so_and_is_counted_apart(tmp_path: Path) -> None:
    settings = '[metrics]\nbind = "127.0.0.1:0"\n[[listener]]\nbind = "127.0.0.1:0"\ndurability = "written"\n'
    with configured(tmp_path, settings) as daemon:
        with smtplib.SMTP(*daemon.address, timeout=20) as client:
            client.ehlo("probe.test")
            client.mail("eve@far.test")
            client.rcpt("ann@our.test")
            code, text = client.data(b"Subject: x\r\n\r\nx\r\n")
        assert code == 250 and text.endswith(b"(written)")
        assert 'smtpd_promises_total{durability="written"} 1.0\n' in fetch(daemon, "/metrics")[1]


def main_with_password(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO("secret\n"))
        assert main(words) == 0


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    exposition = pytest.importorskip("smtpd_core.app.exposition")
    users = tmp_path / "users.toml"
    main_with_password(["user", "add", "--store", f"file:{users}", "ann"])
    listener = 'listener = [{ bind = "127.0.0.1:0", auth = "offered" }]\n'
    accounts = f'accounts = {{ store = "file:{users}", cleartext_without_tls = true }}\n'
    with configured(tmp_path, f'{listener}{accounts}[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        send_one(daemon)
        with smtplib.SMTP(*daemon.address, timeout=20) as client:
            client.docmd("XYZZY")
            client.login("ann", "secret")
            client.quit()
        with smtplib.SMTP(*daemon.address, timeout=20) as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann", "wrong")
        daemon.wait_for(1)
        daemon.wait_for_log("delivered to")
        code, text = fetch(daemon, "/metrics")
        assert code == 200
        values = {(one.metric + one.part, *one.labels): one.value for one in exposition.from_text(text)}
        assert values["smtpd_messages_total",] == 1
        assert values["smtpd_deliveries_total", "maildir", "delivered"] == 1
        assert values["smtpd_commands_total", "MAIL"] == 1
        assert values["smtpd_commands_total", "other"] == 1
        assert values["smtpd_replies_total", "354"] == 1
        assert values["smtpd_logins_total", "accepted"] == 1 and values["smtpd_logins_total", "refused"] >= 1
        assert values["smtpd_sessions_ended_total", "none", "yes"] == 1
        assert values["smtpd_queue_messages",] == 0
        assert values["smtpd_spool_sync_seconds_sum",] > 0
        assert values["smtpd_spool_sync_seconds_bucket", "+Inf"] == values["smtpd_spool_sync_seconds_count",] == 1
        assert values["smtpd_spool_group_messages_bucket", "1.0"] == 1
        assert values["smtpd_hook_seconds_count", "on_recipient_to"] == 1
        assert values["smtpd_threads", "active"] + values["smtpd_threads", "idle"] >= 1
        assert values["smtpd_sessions_waiting",] == 0 and values["smtpd_wait_seconds_longest",] == 0
        assert any(name.startswith("smtpd_certificate_expiry_seconds") for name, *_ in values)
        seen = {one.metric for one in exposition.from_text(text)}
        # Nothing is queued, and nobody is connected any more.
        assert {metric.name for metric in METRICS} - seen <= {
            "smtpd_sessions",
            "smtpd_queue_destination",
            "smtpd_queue_recipients",
        }


def test_certificates_side_by_side_for_one_host_are_told_apart(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)
    hosts = ""
    for kind in ("rsa-2048", "ec-p256"):
        store.create_self_signed(["mx.test"], name=kind, kind=kind)
        hosts += f'certificate = "{tmp_path}/{kind}.pem"\nkey = "{tmp_path}/{kind}.key"\n'
        hosts += '[[tls.host]]\nname = "mx.test"\n' if not kind.startswith("ec") else ""
    with configured(tmp_path, f'[metrics]\nbind = "127.0.0.1:0"\n[tls]\n{hosts}') as daemon:
        lines = [line for line in fetch(daemon, "/metrics")[1].splitlines() if line.startswith("smtpd_certificate")]
    named = [line.rpartition(" ")[0] for line in lines]
    assert len(named) == 2 and len(set(named)) == 2, lines


def test_metrics_come_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    with configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        send_one(daemon)
        text = fetch(daemon, "/metrics", "application/openmetrics-text; version=1.0.0")[1]
        assert fetch(daemon, "/metrics")[1].startswith("# HELP smtpd_connections_open connections that are open now")
    kinds = {family.type for family in parser.text_string_to_metric_families(text)}
    assert kinds == {"counter", "gauge", "histogram", "summary"}


def test_without_the_library_health_is_served_and_metrics_say_what_to_install(tmp_path: Path) -> None:
    daemon = configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n')
    daemon.start(without(tmp_path / "gone", "prometheus_client"))
    try:
        needs = "/metrics needs prometheus_client: pip install 'smtpd_core[daemon]'"
        assert fetch(daemon, "/metrics") == (501, f"{needs}\n")
        assert fetch(daemon, "/healthz") == (200, "ok\n")
        assert fetch(daemon, "/readyz") == (200, "ready\n")
        assert needs in daemon.wait_for_log("metrics.bind")
    finally:
        assert daemon.stop() == 0


def test_health_and_readiness(tmp_path: Path) -> None:
    with configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        assert fetch(daemon, "/healthz") == (200, "ok\n")
        assert fetch(daemon, "/readyz") == (200, "ready\n")
        assert fetch(daemon, "/other")[0] == 404


def test_json_lines_join_session_message_and_delivery(tmp_path: Path) -> None:
    with configured(tmp_path, '[log]\nformat = "json"\n') as daemon:
        send_one(daemon)
        daemon.wait_for_log("delivered to")
        entries = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    accepted = next(entry for entry in entries if entry.get("flow", [""])[0].startswith("m-"))
    delivered = next(entry for entry in entries if "delivered to" in entry["message"])
    assert accepted["flow"][1].startswith("s-")
    assert delivered["flow"][0].removeprefix("d-") == accepted["flow"][0].removeprefix("m-")
    assert {"time", "level", "room", "message"} <= set(accepted)


def test_a_transcript_on_demand_masks_secrets(tmp_path: Path) -> None:
    with configured(tmp_path, "[log]\ntranscript = true\nlevel = 'debug'\n") as daemon:
        with smtplib.SMTP(*daemon.address, timeout=20) as client:
            client.ehlo("probe.test")
            client.docmd("AUTH", "PLAIN AGFubgBzZWNyZXQ=")
        line = daemon.wait_for_log("C: AUTH PLAIN")
        assert "\\x0a" not in daemon.log.read_text(), "replies of several lines are several lines"
        assert "AGFubgBzZWNyZXQ" not in daemon.log.read_text(), line


@pytest.mark.parametrize(("wanted", "is_shown"), [("192.0.2.0/24", False), ("127.0.0.0/8", True), ("127.0.0.1", True)])
def test_a_transcript_of_one_network_only(tmp_path: Path, wanted: str, is_shown: bool) -> None:
    with configured(tmp_path, f"[log]\ntranscript_for = ['{wanted}']\n") as daemon:
        send_one(daemon)
        daemon.wait_for_log("delivered to")
        # How smtplib writes FROM and TO differs between versions of Python.
        assert ("c: mail from" in daemon.log.read_text().lower()) == is_shown


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("'ann'", ["ann"]),
        ("'ANN', 'nobody'", ["ann"]),
        ("'192.0.2.1', 'bob'", ["bob"]),
        ("'127.0.0.0/8'", ["ann", "bob", ""]),
        ("'nobody'", []),
    ],
)
def test_transcripts_on_demand_while_it_runs(tmp_path: Path, wanted: str, shown: list[str]) -> None:
    """An address, a network or a user; the server goes on, and so do its sessions."""
    users = tmp_path / "users.toml"
    for name in ("ann", "bob"):
        command = [sys.executable, "-m", "smtpd_core", "user", "add", name, "--store", f"file:{users}"]
        subprocess.run(command, input=b"secret\n", cwd=ROOT, check=True, capture_output=True)
    listening = 'listener = [{ bind = "127.0.0.1:0", auth = "offered" }]\n'
    config = tmp_path / "smtpd.toml"
    config.write_text(f"{listening}[accounts]\nstore = 'file:{users}'\n")
    with DaemonProcess(tmp_path / "state", "--config", str(config), listen="") as daemon:
        config.write_text(config.read_text() + f"[log]\ntranscript_for = [{wanted}]\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        for user in ("ann", "bob", ""):
            with smtplib.SMTP(*daemon.address, timeout=20) as client:
                client.starttls(context=ssl._create_unverified_context())
                if user:
                    client.login(user, "secret")
                client.docmd("NOOP", f"by-{user}-")
        daemon.stop()
        log = daemon.log.read_text()
    assert [user for user in ("ann", "bob", "") if f"C: NOOP by-{user}-" in log] == shown
    assert "secret" not in log and "c2VjcmV0" not in log


def test_no_client_ends_its_transcript_by_its_words(tmp_path: Path) -> None:
    """What looked like the end of a session in a command was taken for it."""
    with configured(tmp_path, "[log]\ntranscript_for = ['127.0.0.1']\n") as daemon:
        with smtplib.SMTP(*daemon.address, timeout=20) as client:
            client.docmd("NOOP", "x -- close")
            client.docmd("NOOP", "and more")
        daemon.wait_for_log("C: NOOP and more")


def test_a_log_that_nobody_reads_holds_up_no_session(tmp_path: Path) -> None:
    """The log is a pipe that is full: lines wait and are lost in the end, mail is taken all the same."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    daemon = configured(tmp_path, "[log]\ntranscript = true\nlevel = 'debug'\n")
    with open(daemon.output, "wb") as output:
        daemon.process = subprocess.Popen(
            daemon.command, stdout=output, stderr=writer, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    os.close(writer)
    while "listening" not in daemon.output.read_text() or not daemon.output.read_text().endswith("\n"):
        assert daemon.process.poll() is None
    daemon.listening = [("mx", daemon.output.read_text().split()[2])]
    for _ in range(20):
        send_one(daemon)
    assert len(daemon.wait_for(20)) == 20
    os.close(reader)
    assert daemon.stop() == 0


def test_the_watch_port_is_for_this_machine(tmp_path: Path) -> None:
    daemon = configured(tmp_path, '[metrics]\nbind = "0.0.0.0:9125"\n')
    with pytest.raises(AssertionError, match=r"ended with 2[\s\S]*figures are for this machine"):
        daemon.start()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[DaemonProcess, str]]:
    """A daemon that delivered one message, and the address of its metrics."""
    pytest.importorskip("prometheus_client")
    with configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        send_one(daemon)
        daemon.wait_for_log("delivered to")
        line = next(one for one in daemon.output.read_text().splitlines() if one.startswith("watching "))
        yield daemon, line.split("/")[2]


TOP = [sys.executable, "-m", "smtpd_core", "top", "--interval", "0.1s"]


@pytest.mark.debian("tmux")
def test_top_is_redrawn_in_a_terminal_and_leaves_it_as_it_was(
    watched: tuple[DaemonProcess, str], tmp_path: Path
) -> None:
    pytest.importorskip("rich")
    daemon, address = watched
    command = " ".join([f"PYTHONPATH={ROOT}", *TOP, address])
    with Tmux(tmp_path) as screen:
        screen.type("echo before top")
        screen.wait_for("before top")
        screen.type(f"{command}; echo ended with $?")
        shown = screen.wait_for("(0.0/s)")
        assert shown.splitlines()[0].split()[:2] == ["server", address + ","]
        assert "maildir delivered 1" in shown and "before top" not in shown
        send_one(daemon)
        screen.wait_for("maildir delivered 2")
        screen.resize(60, 20)
        assert len(screen.wait_for("maildir delivered 2").splitlines()) <= 20
        screen.interrupt()
        shown = screen.wait_for("ended with 130")
        assert "before top" in shown and "maildir delivered" not in shown and "Traceback" not in shown


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_top_in_a_pipe_is_plain_and_one_picture(watched: tuple[DaemonProcess, str], more: dict[str, str]) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    plain = subprocess.run([*TOP, watched[1]], capture_output=True, env=surroundings, text=True)
    assert plain.returncode == 0 and "\x1b" not in plain.stdout
    assert re.match(r"server      127\.0\.0\.1:\d+, up \d+ s, takes mail\nconnections \d+ open", plain.stdout)


def test_top_without_rich_is_one_plain_picture_below_the_other(
    watched: tuple[DaemonProcess, str], tmp_path: Path
) -> None:
    with OnTerminal([*TOP, watched[1]], without(tmp_path / "gone", "rich")) as top:
        shown = top.read_until(lambda text: text.count("server ") == 3)
        top.process.send_signal(signal.SIGINT)
        assert top.process.wait(60) == 130
    assert "\x1b" not in shown and "maildir delivered 1 (0.0/s)" in shown


def test_top_for_a_program(watched: tuple[DaemonProcess, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--json", watched[1]]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"metric": "smtpd_messages_total", "part": "", "labels": [], "value": 1.0} in figures


def test_top_without_its_library_names_the_extra(tmp_path: Path) -> None:
    surroundings = {**os.environ, **without(tmp_path / "gone", "prometheus_client")}
    done = subprocess.run([*TOP, "127.0.0.1:1"], capture_output=True, env=surroundings, text=True)
    assert done.returncode == 1
    assert done.stderr == "smtpd_core: top needs prometheus_client: pip install 'smtpd_core[daemon]'\n"


def test_top_of_nobody_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


SAID = {
    "rubbish": b"\x00\xff\x1b[2Jrubbish\r\n",
    "another protocol": b"220 mx.test ESMTP\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nfoo",
    "an error that would clear the screen": b"HTTP/1.1 500 no\r\nContent-Length: 8\r\n\r\n\x1b[2Jgone",
    "no number": b"HTTP/1.1 200 OK\r\n\r\nsmtpd_up_seconds NaN\n",
    "another's metrics": b"HTTP/1.1 200 OK\r\n\r\nup 1\n",
    "nothing": b"",
}


@pytest.mark.parametrize("said", SAID)
def test_top_says_in_a_line_what_is_wrong_with_who_answers(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(SAID[said])

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert main(["top", "--json", address]) == 1
        thread.join(20)
    told = capsys.readouterr()
    assert told.out == "" and re.fullmatch(rf"top: {address}: [ -~]+\n", told.err)


def test_top_waits_for_an_answer_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One octet now and then kept it waiting for ever."""
    pytest.importorskip("prometheus_client")
    monkeypatch.setattr("smtpd_core.app.cmd_top.PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble() -> None:
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    peer.sendall(b"#")
                    time.sleep(0.05)  # its pace

        thread = threading.Thread(target=dribble)
        thread.start()
        assert main(["top", "--once", f"127.0.0.1:{listener.getsockname()[1]}"]) == 1
        thread.join(20)
    assert "timed out" in capsys.readouterr().err


def test_no_proxy_stands_between_top_and_its_server(
    watched: tuple[DaemonProcess, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["top", "--json", watched[1]]) == 0


def test_top_goes_on_when_its_server_comes_back(tmp_path: Path) -> None:
    """It ended with the server; and what was counted anew had grown by less than nothing."""
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with configured(tmp_path, f'[metrics]\nbind = "127.0.0.1:{port}"\n') as daemon:
        send_one(daemon)
        daemon.wait_for_log("delivered to")
        with OnTerminal([*TOP, f"127.0.0.1:{port}"], without(tmp_path / "gone", "rich")) as top:
            top.read_until(lambda text: "maildir delivered 1 (" in text)
            daemon.stop()
            top.read_until(lambda text: f"server      127.0.0.1:{port} does not answer: " in text)
            daemon.start()
            shown = top.read_until(lambda text: text.count("takes mail") == 2)
    assert "messages    0" in shown


def test_a_total_that_began_anew_has_not_shrunk() -> None:
    name = "smtpd_messages_total"
    shown = dict(picture("here", {(name, ()): 3.0}, {(name, ()): 900.0}, 1.0))
    assert shown["messages"] == "3 (3.0/s)"


class Watched:
    """A watch port whose figures are at hand."""

    def __init__(self, figures: Callable[[], Iterable[Figure]]) -> None:
        self.port = WatchPort("127.0.0.1:0", figures, lambda: "")

    def __enter__(self) -> Watched:
        self.port.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.port.stop()

    def ask(self, request: bytes) -> bytes:
        with socket.create_connection(self.port.address, timeout=30) as client:
            client.sendall(request)
            answer = b""
            while piece := client.recv(65_536):
                answer += piece
            return answer


def test_a_watcher_that_dribbles_holds_up_the_others_for_its_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each octet had seconds of its own, and so one watcher kept all others out."""
    monkeypatch.setattr("smtpd_core.app.watch_port.PATIENCE", 1.0)
    with Watched(lambda: ()) as watched, socket.create_connection(watched.port.address) as slow:
        is_over = threading.Event()

        def dribble() -> None:
            with suppress(OSError):
                while not is_over.wait(0.05):
                    slow.sendall(b"G")

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            assert watched.ask(b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nok\n")
            assert not is_over.is_set()
        finally:
            is_over.set()
            thread.join(20)


def test_health_is_told_to_who_wants_no_more_than_the_code() -> None:
    with Watched(lambda: ()) as watched:
        head = watched.ask(b"HEAD /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\n") and head.endswith(b"Content-Length: 3\r\n\r\n")


def test_figures_that_can_not_be_gathered_are_told_to_the_watcher_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The connection was closed without a word."""
    pytest.importorskip("prometheus_client")

    def broken() -> Iterable[Figure]:
        raise OSError("the queue is on fire")

    with Watched(broken) as watched:
        answer = watched.ask(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 500 ") and b"the queue is on fire" in answer
        assert watched.ask(b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"ok\n")
    assert "the figures can't be gathered" in caplog.text
