"""Scanners against a default listener: testssl.sh and, where it is installed, sslyze find nothing but the unknown root.

sslyze brings a `cryptography` of its own, older than ours, so it is looked for as a program: `SSLYZE=/path/to/sslyze`
or in PATH. testssl.sh takes a quarter of a minute however little it is asked, so it runs where `TESTSSL` names it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.files import Pair
from smtpd_core import SmtpServer

TESTSSL = os.environ.get("TESTSSL")
SSLYZE = os.environ.get("SSLYZE") or shutil.which("sslyze")

# What a scanner holds against a certificate of an authority made a moment ago, and against nothing else.
OF_THE_TEST_ROOT = {
    "cert_chain_of_trust",
    "cert_caIssuers",
    "cert_revocation",
    "cert_crlDistributionPoints",
    "cert_ocspURL",
    "DNS_CAArecord",
    "cert_trust",
}


@pytest.fixture
def server(leaf: Pair) -> Iterator[SmtpServer]:
    made = SmtpServer(port=0, certificate=leaf, use_tls="explicit_allow")
    made.on_message_received = lambda *_: None
    with made:
        yield made


@pytest.mark.skipif(TESTSSL is None, reason="needs Debian's testssl.sh (TESTSSL=testssl)")
def test_testssl_finds_no_fault(server: SmtpServer, tmp_path: Path) -> None:
    assert TESTSSL is not None
    host, port = server.address[:2]
    report = tmp_path / "report.json"
    words = ["--quiet", "--color", "0", "--jsonfile", str(report), "--starttls", "smtp", "--nodns", "none"]
    checks = ["--protocols", "--pfs", "--server-defaults", "--vulnerable"]
    ran = subprocess.run([TESTSSL, *words, *checks, f"{host}:{port}"], capture_output=True, timeout=110)
    told = json.loads(report.read_text())
    assert len(told) > 20, ran.stdout.decode("utf-8", "replace")[-2_000:]
    bad = {one["id"]: one["finding"] for one in told if one["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL")}
    assert {key: text for key, text in bad.items() if key.split(" ")[0] not in OF_THE_TEST_ROOT} == {}


@pytest.mark.skipif(SSLYZE is None, reason="needs sslyze (own environment; SSLYZE=/path/to/sslyze)")
def test_sslyze_finds_the_intermediate_profile_kept(server: SmtpServer, tmp_path: Path) -> None:
    assert SSLYZE is not None
    host, port = server.address[:2]
    report = tmp_path / "report.json"
    words = [SSLYZE, "--starttls", "smtp", "--json_out", str(report), f"{host}:{port}"]
    subprocess.run(words, capture_output=True, timeout=110)
    found = json.loads(report.read_text())["server_scan_results"][0]["scan_result"]

    def result(name: str) -> dict[str, object]:
        return dict(found[name]["result"])

    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert result(f"{version}_cipher_suites")["accepted_cipher_suites"] == [], version
    for version in ("tls_1_2", "tls_1_3"):
        assert result(f"{version}_cipher_suites")["accepted_cipher_suites"], version
    assert result("tls_compression")["supports_compression"] is False
    assert result("heartbleed")["is_vulnerable_to_heartbleed"] is False
    assert result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"] is False
    assert result("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"] is False
    assert result("session_renegotiation")["supports_secure_renegotiation"] is True
    assert str(result("robot")["robot_result"]).startswith("NOT_VULNERABLE")
    curves = {one["name"] for one in result("elliptic_curves")["supported_curves"]}  # type: ignore[attr-defined]
    assert curves == {"X25519", "secp256r1", "secp384r1"}
