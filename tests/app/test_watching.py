"""Figures, health, transcripts and logs: what an operator sees of a running server."""

from __future__ import annotations

import json
import os
import pty
import signal
import smtplib
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from certs.store import CertificateStore
from smtpd_core.app.cli import main
from smtpd_core.app.figures import METRICS
from tests.app.daemon import ROOT, DaemonProcess


def fetch(daemon: DaemonProcess, path: str) -> tuple[int, str]:
    base = next(line for line in daemon.output.read_text().splitlines() if line.startswith("watching ")).split()[1]
    try:
        with urllib.request.urlopen(base.replace("/metrics", path), timeout=10) as answer:
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
        assert 'smtpd_promises_total{durability="written"} 1\n' in fetch(daemon, "/metrics")[1]


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    with configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        send_one(daemon)
        daemon.wait_for(1)
        daemon.wait_for_log("delivered to")
        code, text = fetch(daemon, "/metrics")
        assert code == 200
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert values["smtpd_messages_total"] == "1"
        assert values['smtpd_deliveries_total{way="maildir",result="delivered"}'] == "1"
        assert values['smtpd_commands_total{verb="MAIL"}'] == "1"
        assert values['smtpd_replies_total{code="354"}'] == "1"
        assert values['smtpd_sessions_ended_total{tls="none",login="no"}'] == "1"
        assert values["smtpd_queue_messages"] == "0"
        assert float(values["smtpd_spool_sync_seconds_total"]) > 0
        assert any(name.startswith("smtpd_certificate_expiry_seconds") for name in values)
        assert {name.partition("{")[0] for name in values} <= {metric.name for metric in METRICS}


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


def test_metrics_can_be_read_by_prometheus(tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        send_one(daemon)
        families = list(parser.text_string_to_metric_families(fetch(daemon, "/metrics")[1]))
    assert {family.type for family in families} == {"counter", "gauge"}


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
        assert ("C: mail FROM" in daemon.log.read_text()) == is_shown


def test_the_watch_port_is_for_this_machine(tmp_path: Path) -> None:
    daemon = configured(tmp_path, '[metrics]\nbind = "0.0.0.0:9125"\n')
    with pytest.raises(AssertionError, match=r"ended with 2[\s\S]*figures are for this machine"):
        daemon.start()


def test_top_shows_the_server_in_a_terminal_and_ends_with_an_interrupt(tmp_path: Path) -> None:
    with configured(tmp_path, '[metrics]\nbind = "127.0.0.1:0"\n') as daemon:
        send_one(daemon)
        daemon.wait_for_log("delivered to")
        line = next(one for one in daemon.output.read_text().splitlines() if one.startswith("watching "))
        address = line.split("/")[2]
        command = [sys.executable, "-m", "smtpd_core", "top", "--interval", "0.1s", address]
        terminal, ours = pty.openpty()
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
        # A suite that runs in the background has interrupts ignored, and hands that down.
        default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        top = subprocess.Popen(command, stdout=ours, stderr=ours, stdin=ours, env=surroundings, preexec_fn=default)
        os.close(ours)
        shown = b""
        while shown.count(b"\x1b[H") < 3:
            shown += os.read(terminal, 4096)
        top.send_signal(signal.SIGINT)
        assert top.wait(60) == 130
        os.close(terminal)
        assert b"maildir delivered 1" in shown and b"(0.0/s)" in shown

        plain = subprocess.run([*command, "--once"], capture_output=True, env=surroundings)
        assert plain.returncode == 0 and b"\x1b" not in plain.stdout and b"takes mail" in plain.stdout


def test_top_of_nobody_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
