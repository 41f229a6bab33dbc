"""The openssl command reads what we write, writes what we read, and shakes hands over a real socket."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.contexts import ServerContexts
from certs.files import Pair, read_pair
from certs.issue import Wish, issue
from certs.keys import public_bytes
from certs.policy import ServerPolicy
from certs.samples import write_samples
from certs.store import CertificateStore
from certs.stream import TlsStream
from certs.trouble import TlsError

pytestmark = pytest.mark.debian("openssl")


def openssl(*words: str, say: str = "", code: int | None = 0) -> str:
    ran = subprocess.run(["openssl", *words], input=say.encode(), capture_output=True, timeout=30)
    told = (ran.stdout + ran.stderr).decode("utf-8", "replace")
    assert code is None or ran.returncode == code, told
    return told


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore.open(tmp_path)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ed25519", "rsa-2048"])
def test_openssl_reads_our_pfx_and_we_read_openssls(store: CertificateStore, between: Pair, kind: str) -> None:
    store.add(issue(Wish(("mx.test",)), between, kind=kind), "mx")
    pfx, pem = str(store.folder / "mx.pfx"), str(store.folder / "all.pem")
    store.export_to_pfx("mx", "secret", pfx)
    openssl("pkcs12", "-in", pfx, "-passin", "pass:secret", "-nodes", "-out", pem)
    again = read_pair(pem)
    mine = store.pair("mx")
    assert (again.certificate, again.chain) == (mine.certificate, mine.chain)
    assert public_bytes(again.key) == public_bytes(mine.key)
    theirs = str(store.folder / "theirs.pfx")
    openssl("pkcs12", "-export", "-in", pem, "-passout", "pass:other", "-out", theirs)
    item = store.import_from_pfx(theirs, "other", name="theirs")
    assert (item.certificate, item.chain) == (mine.certificate, mine.chain)


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
def test_openssl_reads_our_pem_and_we_read_openssls(store: CertificateStore, kind: str) -> None:
    store.create_self_signed(["mx.test"], name="mx", kind=kind)
    certificate, key = str(store.folder / "mx.pem"), str(store.folder / "mx.key")
    der, old = str(store.folder / "mx.cer"), str(store.folder / "old.key")
    openssl("x509", "-in", certificate, "-outform", "DER", "-out", der)
    assert store.import_from_cer(der, name="der").certificate == store.get("mx").certificate
    openssl("pkey", "-in", key, "-traditional", "-aes256", "-passout", "pass:secret", "-out", old)
    assert public_bytes(read_pair(certificate, old, "secret").key) == public_bytes(store.pair("mx").key)


def test_openssl_verifies_the_samples_as_we_do(tmp_path: Path) -> None:
    write_samples(tmp_path)

    def verdict(name: str, *words: str) -> str:
        paths = ["-CAfile", str(tmp_path / "ca.pem"), "-untrusted", str(tmp_path / "between.pem")]
        host = ["-verify_hostname", "mx.example.test", "-purpose", "sslserver"]
        return openssl("verify", *paths, *host, *words, str(tmp_path / f"{name}.pem"), code=None)

    assert "OK" in verdict("good") and "OK" in verdict("good-rsa")
    assert "expired" in verdict("expired")
    assert "not yet valid" in verdict("not-yet-valid")
    assert "hostname mismatch" in verdict("wrong-host").lower()
    assert "self" in verdict("self-signed")
    assert "revoked" in verdict("revoked", "-crl_check", "-CRLfile", str(tmp_path / "crl.pem"))


def test_openssl_signs_our_request_and_we_sign_openssls(store: CertificateStore, tmp_path: Path) -> None:
    store.create_authority("Example Root", name="root")
    name, _ = store.create_request(["mx.test"], name="ours")
    root, key = str(tmp_path / "root.pem"), str(tmp_path / "root.key")
    signed = str(tmp_path / "signed.cer")
    words = ["-req", "-in", str(tmp_path / f"{name}.csr"), "-CA", root, "-CAkey", key, "-CAcreateserial", "-days", "9"]
    openssl("x509", *words, "-copy_extensions", "copyall", "-out", signed)
    assert store.import_from_cer(signed).name == "ours"
    csr = str(tmp_path / "theirs.csr")
    words = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(tmp_path / "theirs.pem.key"),
    ]
    openssl("req", *words, "-subj", "/CN=mx.test", "-addext", "subjectAltName=DNS:mx.test", "-out", csr)
    item = store.sign_csr(Path(csr).read_bytes(), "root")
    assert item.description.names == (("dns", "mx.test"),)
    assert "OK" in openssl("verify", "-CAfile", root, str(tmp_path / f"{item.name}.pem"))


class Driver:
    """A socket with STARTTLS in front of a TlsStream, one client after another, until closed."""

    def __init__(self, contexts: ServerContexts) -> None:
        self._contexts = contexts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard: list[bytes] = []
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(10)
                try:
                    self._greet(client)
                    self._talk(client, self._contexts.stream())
                except (TlsError, OSError) as error:
                    self.errors.append(str(error))

    def _greet(self, client: socket.socket) -> None:
        client.sendall(b"220 mx.test\r\n")
        client.recv(1_000)
        client.sendall(b"250-mx.test\r\n250 STARTTLS\r\n")
        client.recv(1_000)
        client.sendall(b"220 2.0.0 go ahead\r\n")

    def _talk(self, client: socket.socket, tls: TlsStream) -> None:
        try:
            while not tls.handshake():
                client.sendall(tls.take_output())
                tls.feed(client.recv(65_536) or b"\x00")
        finally:
            client.sendall(tls.take_output())
        while not tls.ended:
            plaintext = tls.read()
            if plaintext:
                self.heard.append(plaintext)
                tls.write(b"221 2.0.0 bye\r\n")
                tls.shutdown()
            client.sendall(tls.take_output())
            if plaintext:
                return
            data = client.recv(65_536)
            if not data:
                return
            tls.feed(data)


@pytest.fixture
def driver(leaf: Pair) -> Iterator[Driver]:
    made = Driver(ServerContexts(leaf))
    yield made
    made.close()


def s_client(driver: Driver, *words: str, say: str = "QUIT\r\n") -> str:
    target = ["s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{driver.port}", "-servername", "mx.test"]
    return openssl(*target, *words, "-ign_eof", say=say, code=None)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_talks_over_starttls(driver: Driver, version: str) -> None:
    told = s_client(driver, version)
    assert "221 2.0.0 bye" in told
    assert "Compression: NONE" in told
    assert driver.heard == [b"QUIT\r\n"] and driver.errors == []


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_s_client_with_an_old_version_is_refused(driver: Driver, version: str) -> None:
    told = s_client(driver, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "protocol version" in told
    driver.close()
    assert "versions that are refused here" in driver.errors[0] and driver.heard == []


def test_renegotiation_is_refused(driver: Driver) -> None:
    """s_client renegotiates at a line that begins with R."""
    target = [
        "s_client",
        "-starttls",
        "smtp",
        "-connect",
        f"127.0.0.1:{driver.port}",
        "-tls1_2",
        "-legacy_renegotiation",
    ]
    told = openssl(*target, say="R\n", code=None)
    assert "RENEGOTIATING" in told and "no renegotiation" in told
    assert driver.heard == []


def test_the_chain_is_sent_without_the_root(driver: Driver) -> None:
    told = s_client(driver, "-showcerts")
    assert told.count("BEGIN CERTIFICATE") == 2
    assert re.search(r"Verification error|unable to get", told)


def test_a_server_for_old_devices_serves_them(leaf: Pair) -> None:
    made = Driver(ServerContexts(leaf, policy=ServerPolicy(minimum="1.0")))
    try:
        told = s_client(made, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    finally:
        made.close()
    assert "221 2.0.0 bye" in told


def test_a_client_that_has_to_guess_again_is_asked_for_its_name_once(leaf: Pair) -> None:
    """A group that we don't take makes a second ClientHello (RFC 8446 4.1.4), with the name in it again."""
    asked: list[str] = []
    made = Driver(ServerContexts(leaf, choose=asked.append))
    try:
        told = s_client(made, "-groups", "X448:P-256", "-tls1_3")
    finally:
        made.close()
    assert "221 2.0.0 bye" in told
    assert asked == ["mx.test"]
