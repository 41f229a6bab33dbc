"""`python -m certs`: every subcommand, for people and in JSON."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.__main__ import main
from certs.samples import PFX_PASSWORD, write_samples
from certs.tlsa import association


class Console:
    """Runs commands in a folder; what they print comes back."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def run(self, *words: str, code: int = 0) -> str:
        found = main([*words, "--folder", str(self.folder)])
        said = self._capsys.readouterr()
        assert found == code, said.out + said.err
        return said.out + said.err

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code))


@pytest.fixture
def console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(tmp_path, capsys)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def test_self_signed_in_one_command(console: Console) -> None:
    told = console.run("self-signed", "mx.example.com", "192.0.2.1", "--key-type", "rsa-2048", "--days", "90")
    assert "names      mx.example.com, 192.0.2.1" in told
    assert "89 days left" in told and "rsa-2048" in told
    assert (console.folder / "mx.example.com.pem").exists() and (console.folder / "mx.example.com.key").exists()


def test_a_look_makes_no_folder(console: Console) -> None:
    console.folder = console.folder / "away"
    assert "is no folder" in console.run("list", code=2)
    assert not console.folder.exists()


def test_from_an_authority_to_a_checked_certificate(console: Console) -> None:
    console.run("ca", "Example Root", "--name", "root")
    console.run("ca", "Example Mail", "--name", "mail", "--parent", "root")
    told = console.json("issue", "mx.example.com", "--ca", "mail", "--usage", "server", "--usage", "client")
    assert told["certificate"]["usages"] == ["server", "client"]
    key, root = str(console.folder / "mx.example.com.key"), str(console.folder / "root.pem")
    checked = console.run("check", "mx.example.com", "--key", key, "--host", "mx.example.com", "--roots", root)
    assert checked == "good\n"
    names = [one["name"] for one in console.json("list")["items"]]
    assert names == ["mail", "mx.example.com", "root"]


def test_a_request_is_made_signed_and_taken_back(console: Console) -> None:
    console.run("ca", "Example Root", "--name", "root")
    told = console.json("csr", "mx.example.com", "--name", "mx")
    assert told["request"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    signed = console.json("sign", told["files"][0], "--ca", "root", "--name", "signed")
    assert signed["files"] == [str(console.folder / "signed.pem")]
    assert console.json("cer-import", signed["files"][0])["name"] == "mx"


def test_pfx_out_and_in(console: Console, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\nmore\n")
    console.run("self-signed", "mx.example.com", "--name", "mx")
    out = console.run("pfx-export", "mx", "--password", str(tmp_path / "password"))
    assert "mx.pfx" in out and "warning" not in out
    told = console.json("pfx-import", str(tmp_path / "mx.pfx"), "--password", str(tmp_path / "password"), "--name", "b")
    assert told["files"] == [str(tmp_path / "b.pem"), str(tmp_path / "b.key")]
    assert "password is needed" in console.run("pfx-import", str(tmp_path / "mx.pfx"), code=2)
    assert "not encrypted" in console.run("pfx-export", "mx")


@pytest.mark.parametrize(
    "name, told",
    [
        ("good", "good"),
        ("expired", "error: the certificate expired on"),
        ("not-yet-valid", "error: the certificate is not valid before"),
        ("expiring", "warning: the certificate expires in 1 day"),
        ("wrong-host", "error: mx.example.test is not covered: the certificate is for elsewhere.example.test"),
        ("weak", "error: the certificate has an RSA key of 1024 bits"),
        ("self-signed", "error: the certificate is self-signed"),
        ("revoked", "error: the certificate was revoked"),
    ],
)
def test_check_says_one_line_for_each_sample(console: Console, samples: Path, name: str, told: str) -> None:
    paths = [
        "--key",
        str(samples / f"{name}.key"),
        "--roots",
        str(samples / "ca.pem"),
        "--crl",
        str(samples / "crl.pem"),
    ]
    said = console.run(
        "check", str(samples / f"{name}.pem"), "--host", "mx.example.test", *paths, code=1 if "error" in told else 0
    )
    assert said.startswith(told) and said.count("\n") == 1


def test_check_in_json(console: Console, samples: Path) -> None:
    paths = ["--key", str(samples / "mismatch.key"), "--roots", str(samples / "ca.pem")]
    told = console.json("check", str(samples / "mismatch.pem"), *paths, code=1)
    assert told["good"] is False
    assert [one["what"] for one in told["problems"]] == ["mismatch", "chain"]


def test_show_reads_pem_der_and_pfx(console: Console, samples: Path, tmp_path: Path) -> None:
    told = console.json("show", str(samples / "good.pem"))
    assert [one["is_authority"] for one in told["certificates"]] == [False, True]
    (tmp_path / "password").write_text(PFX_PASSWORD)
    again = console.json("show", str(samples / "good.pfx"), "--password", str(tmp_path / "password"))
    assert again["certificates"] == told["certificates"] and again["has_key"]
    assert "neither a file nor" in console.run("show", "nothing", code=2)
    (tmp_path / "rubbish").write_bytes(b"\x00rubbish")
    assert "neither PEM, nor DER, nor PFX" in console.run("show", str(tmp_path / "rubbish"), code=2)


def test_tlsa_records_for_the_certificate_and_for_its_authority(console: Console, samples: Path) -> None:
    good = str(samples / "good.pem")
    told = console.run("tlsa", good, "--host", "mx.example.test", "--port", "465")
    assert told.startswith("_465._tcp.mx.example.test. IN TLSA 3 1 1 ") and len(told.split()[-1]) == 64
    told = console.run("tlsa", good, "--host", "mx.example.test", "--usage", "2", "--selector", "0", "--matching", "2")
    assert told.startswith("_25._tcp.mx.example.test. IN TLSA 2 0 2 ") and len(told.split()[-1]) == 128
    assert len(console.json("tlsa", good)["records"]) == 2, "one for each host name in it"


def test_a_tlsa_association_in_full_is_the_certificate_itself() -> None:
    from certs.issue import self_signed

    certificate, _ = self_signed(["mx.test"])
    whole = bytes.fromhex(association(certificate, 0, 0))
    assert b"mx.test" in whole


def test_a_revocation_list_is_written_and_read(console: Console) -> None:
    console.run("ca", "Example Root", "--name", "root")
    console.run("issue", "mx.example.com", "--ca", "root", "--name", "mx")
    console.run("revoke", "mx", "--ca", "root")
    crl, root = str(console.folder / "root.crl"), str(console.folder / "root.pem")
    assert "revoked" in console.run("check", "mx", "--crl", crl, "--roots", root, code=1)


def test_keys_are_encrypted_where_a_password_is_given(console: Console, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    console.run("ca", "Example Root", "--name", "root", "--key-password", str(tmp_path / "secret"))
    assert b"ENCRYPTED" in (tmp_path / "root.key").read_bytes()
    assert "password is needed" in console.run("issue", "mx.test", "--ca", "root", code=2)
    console.run("issue", "mx.test", "--ca", "root", "--key-password", str(tmp_path / "secret"))


@pytest.mark.parametrize(
    "words, told",
    [
        (["issue", "mx.test", "--ca", "none"], "no certificate 'none'"),
        (["self-signed", "two words"], "no host name"),
        (["self-signed", "mx.test", "--usage", "all"], "unknown usage"),
        (["self-signed", "mx.test", "--name", "../x"], "can't be a name"),
        (["sign", "/nonexistent", "--ca", "x"], "/nonexistent: No such file"),
    ],
)
def test_bad_input_is_one_clear_line(console: Console, words: list[str], told: str) -> None:
    said = console.run(*words, code=2)
    assert said.startswith("error: ") and told in said and said.count("\n") == 1
    assert told in console.json(*words, code=2)["error"]


def test_what_a_certificate_says_commands_no_terminal(console: Console) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil\x1b[2J\u202e")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    days = datetime.timedelta(1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now - days, now + days)
    path = console.folder / "evil.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    told = console.run("show", str(path)) + console.run("show", "no\x1b[2J", code=2)
    assert "CN=evil\\x1b[2J\\u202e\n" in told and "no\\x1b[2J is neither" in told and "\x1b" not in told
