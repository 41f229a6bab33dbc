"""The bench itself: it finds what it should, and does not say met where it did not look.

Small runs: what they measure is not looked at, only that it is measured, compared and written down.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from certs.facts import TlsFacts
from certs.issue import ensure_self_signed
from smtpd_core import SmtpServer
from tests.bench import install, stored
from tests.bench.letters import content
from tests.bench.lines import Plot, curves
from tests.bench.rates import generator, scratch, serving
from tests.bench.running import ROOT, free_port
from tests.bench.targets import TARGETS
from tests.bench.terms import Goal, Terms
from tests.bench.workloads import WORKLOADS
from tests.support.unpacked import Unavailable

DURABLE = next(one for one in TARGETS if one.name == "smtpd_core durable")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_a_short_run_measures_compares_and_writes_down(tmp_path: Path) -> None:
    options = ["--runs", "1", "--seconds", "0.2", "--scale", "0.01", "--peers", "aiosmtpd", "--out", str(tmp_path)]
    done = run("tests.bench.run", "--workloads", "W1,W3R,start-stop", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "results.json").read_text())
    assert list(written["workloads"]) == ["W1", "W3R", "start-stop"]
    first = written["workloads"]["W1"]
    assert first["medians"]["smtpd_core"]["rate"] > 0 < first["medians"]["aiosmtpd"]["rate"]
    assert written["versions"]["aiosmtpd"].startswith("1.")
    verdicts = {one["against"]: one["verdict"] for one in first["goals"]}
    assert verdicts["go-smtp"] == "not measured" != verdicts["aiosmtpd"]
    assert "smtpd_core durable" in written["workloads"]["W3R"]["medians"]
    ElementTree.parse(tmp_path / "rates.svg")
    assert "## W3R" in (tmp_path / "README.md").read_text()


def test_a_run_of_some_workloads_can_be_added_to_the_figures_of_others(tmp_path: Path) -> None:
    options = ["--scale", "0.01", "--peers", "none", "--out", str(tmp_path)]
    assert run("tests.bench.run", "--workloads", "start-stop", *options).returncode == 0
    assert run("tests.bench.run", "--workloads", "still", "--add", *options).returncode == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["workloads"]) == ["still", "start-stop"]
    options[1] = "0.02"
    done = run("tests.bench.run", "--workloads", "still", "--add", *options)
    assert done.returncode == 1
    assert "other terms" in done.stderr


def test_an_unknown_workload_is_named() -> None:
    done = run("tests.bench.run", "--workloads", "W1,W99")
    assert done.returncode == 2
    assert "no workload W99" in done.stderr


def test_every_target_of_a_workload_exists_and_every_goal_names_one_of_its_peers() -> None:
    names = {one.name for one in TARGETS}
    for workload in WORKLOADS:
        assert set(workload.targets) <= names, workload.name
        assert {goal.peer for goal in workload.goals if goal.peer} <= set(workload.targets[1:]), workload.name


def build_generator(starttls: bool) -> None:
    if shutil.which("cc") is None or (starttls and not install.OPENSSL_HEADER.exists()):
        pytest.skip("there is no C compiler" if not starttls else "there is no C compiler with OpenSSL's headers")
    (install.load_generator_with_tls if starttls else install.load_generator)()


def choose_generator(in_c: bool, starttls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if in_c:
        build_generator(starttls)
    else:
        monkeypatch.setattr("tests.bench.rates.install.load_program", lambda starttls: None)


@pytest.mark.parametrize("starttls", [False, True])
@pytest.mark.parametrize("in_c", [False, True])
def test_the_load_is_stored_octet_for_octet(in_c: bool, starttls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both generators send the same messages: numbered, dots stuffed, none left out."""
    choose_generator(in_c, starttls, monkeypatch)
    job = {"messages": 30, "sessions": 4, "size": 100_000, "dots": True, "per_connection": 3, "starttls": starttls}
    with scratch() as folder:
        with serving(DURABLE, folder, Terms()) as running:
            words = generator(running.port, DURABLE, job, Terms())
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["messages"] == 30
        stored.compare(stored.queue(folder), 30, 100_000, True)


@pytest.mark.parametrize("in_c", [False, True])
@pytest.mark.parametrize(("per_connection", "sessions", "connections"), [(0, 3, 3), (10, 1, 3), (1, 1, 30)])
def test_a_connection_carries_as_many_messages_as_the_job_says(
    per_connection: int, sessions: int, connections: int, in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 means all of them: it was left out of the command once, and every message had a connection of its own."""
    choose_generator(in_c, False, monkeypatch)
    greeted: list[object] = []
    server = SmtpServer(port=0)
    server.on_message_received = lambda session, message: None
    server.on_accept_connection = greeted.append
    with server:
        job = {"messages": 30, "sessions": sessions, "per_connection": per_connection}
        words = generator(server.address[1], DURABLE, job, Terms())
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert len(greeted) == connections


@pytest.mark.parametrize("in_c", [False, True])
def test_every_connection_of_the_load_makes_a_full_handshake(
    in_c: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same one by both generators, so that what a server pays for is the same."""
    choose_generator(in_c, True, monkeypatch)
    seen: list[TlsFacts | None] = []
    certificate, key = ensure_self_signed(tmp_path, "bench.test")
    server = SmtpServer(port=0, use_tls="explicit_require", certificate=str(certificate), key=str(key))
    server.on_message_received = lambda session, message: seen.append(session.tls)
    with server:
        job = {"messages": 12, "sessions": 4, "per_connection": 1, "starttls": True}
        words = generator(server.address[1], DURABLE, job, Terms())
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
    found = [(one.version, one.cipher, one.server_name, one.resumed) for one in seen if one]
    assert found == 12 * [("TLSv1.3", "TLS_AES_256_GCM_SHA384", "", False)]
    # An OpenSSL of 3.5 or later offers the post-quantum group; "": this one does not tell.
    assert {one.group.lower() for one in seen if one} <= {"x25519", "x25519mlkem768", ""}


@pytest.mark.parametrize("in_c", [False, True])
def test_a_server_without_tls_1_3_gets_the_load_under_1_2(in_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_generator(in_c, True, monkeypatch)
    seen: list[tuple[str, bool]] = []
    offers: list[list[str]] = []

    class Peer:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            secured = session.ssl["ssl_object"]
            seen.append((secured.version(), secured.session_reused))
            offers.append([name for name, _, _ in secured.shared_ciphers()])
            return "250 OK"

    with scratch() as folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(folder / "tls" / "self-signed.pem", folder / "tls" / "self-signed.key")
        controller = Controller(Peer(), hostname="127.0.0.1", port=free_port(), tls_context=context)
        controller.start()
        try:
            job = {"messages": 12, "sessions": 4, "per_connection": 1, "starttls": True}
            words = generator(controller.port, DURABLE, job, Terms())
            subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
        finally:
            controller.stop()
    assert seen == 12 * [("TLSv1.2", False)]
    if ssl.OPENSSL_VERSION_INFO < (3, 1):  # later ones name what is shared in other terms
        pythons = [one["name"] for one in ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()]
        assert offers == 12 * [pythons]


def test_a_failed_handshake_ends_the_load_with_what_openssl_says() -> None:
    build_generator(True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        words = generator(listening.getsockname()[1], DURABLE, {"messages": 1, "starttls": True}, Terms())
        with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as load:
            client, _ = listening.accept()
            with client, client.makefile("rb") as said:
                client.sendall(b"220 mx.test\r\n")
                assert said.readline() == b"EHLO bench.test\r\n"
                client.sendall(b"250-mx.test\r\n250 STARTTLS\r\n")
                assert said.readline() == b"STARTTLS\r\n"
                client.sendall(b"220 Go ahead\r\n")
                assert said.read(1) == b"\x16"  # the record of its hello
                client.sendall(b"\x15\x03\x01\x00\x02\x02\x28")  # a fatal alert: handshake_failure
                complaint = load.communicate(timeout=20)[1]
    assert load.returncode == 1
    assert "handshake failure" in complaint


def test_without_the_headers_of_openssl_the_load_under_tls_is_left_to_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PLACE", tmp_path)
    monkeypatch.setattr(install, "OPENSSL_HEADER", tmp_path / "ssl.h")
    build_generator(False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="libssl-dev: needs root and apt-get"):
        install.load_generator_with_tls()
    job: dict[str, int | float | bool] = {"messages": 1, "starttls": True}
    assert "tests.bench.load" in generator(25, DURABLE, job, Terms())
    words = generator(25, DURABLE, {**job, "starttls": False}, Terms())
    assert str(tmp_path / "load") in words
    done = subprocess.run([str(tmp_path / "load"), "--starttls"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "--starttls: built without tls.c; load.py has TLS\n")


def letters(*numbers: int) -> Iterator[bytes]:
    yield from (b"Received: by a store\r\n" + content(500, False, number) for number in numbers)


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ((0, 2), "1 of 3 messages that were answered 250 are not stored"),
        ((0, 1, 1), "message 1 is stored twice"),
        ((0, 1, 2, 3), "message 3 is stored but was not accepted"),
    ],
)
def test_a_store_that_does_not_hold_what_it_promised_is_found_out(found: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(stored.Miscounted, match=complaint):
        stored.compare(letters(*found), 3, 500, False)


def test_a_changed_octet_is_found_out() -> None:
    with pytest.raises(stored.Miscounted, match="not octet for octet"):
        stored.compare((one.replace(b"xyz", b"xyZ", 1) for one in letters(0)), 1, 500, False)


def test_line_ends_on_disk_may_be_those_of_the_system() -> None:
    stored.compare((one.replace(b"\r\n", b"\n") for one in letters(0, 1)), 2, 500, False)


@pytest.mark.parametrize(
    ("goal", "own", "peer", "verdict"),
    [
        (Goal("rate", at_least=2, peer="x"), {"rate": 300.0}, {"rate": 100.0}, "met (3.00)"),
        (Goal("rate", at_least=4, peer="x"), {"rate": 300.0}, {"rate": 100.0}, "missed (3.00)"),
        (Goal("rate", at_least=2, peer="x"), {"rate": 300.0}, None, "not measured"),
        (Goal("p99_ms", at_most=10), {"p99_ms": 9.0}, None, "met (9.00)"),
        (Goal("p99_ms", at_most=10), {"p99_ms": 11.0}, None, "missed (11.00)"),
        (Goal("p99_ms", at_most=10), None, None, "not measured"),
    ],
)
def test_a_verdict_needs_both_sides(
    goal: Goal, own: dict[str, float] | None, peer: dict[str, float] | None, verdict: str
) -> None:
    assert goal.verdict(own, peer) == verdict


@pytest.mark.parametrize("grows", [False, True])
def test_curves_carry_every_figure(grows: bool) -> None:
    plot = Plot("Cost", "What bends it: nothing.", "things", "ms", {1: "1", 10: "10", 100: "100"}, grows)
    drawn = curves(plot, {"one": [(1, 0.5), (10, 5.0), (100, 123.0)], "two": [(1, 2.0), (10, 2.5)]}, "a machine")
    said = {part.text for part in ElementTree.fromstring(drawn).iter() if part.text}
    assert {"0.5", "5", "123", "2", "2.5", "one", "two", "Cost", "a machine"} <= said


def test_the_curves_of_the_queue_are_drawn(tmp_path: Path) -> None:
    done = run("tests.bench.flat", "queue", "--scale", "0.001", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "flat.json").read_text())["queue"]["lines"]
    assert [length for length, _ in lines["claim"]] == [100, 1000]
    ElementTree.parse(tmp_path / "flat-queue.svg")
