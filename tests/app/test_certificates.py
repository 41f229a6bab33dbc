"""`check` looks at the certificates too."""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.samples import write_samples
from smtpd_core.__main__ import main


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.mark.parametrize(
    "name, code, told",
    [
        ("good", 0, ""),
        ("expired", 0, "the certificate expired on"),
        ("mismatch", 2, "is not the key of the certificate"),
        ("weak", 2, "key is too small"),
    ],
)
def test_check_tells_what_is_wrong_with_a_certificate(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, told: str
) -> None:
    config = tmp_path / "smtpd.toml"
    config.write_text(
        f"""
hostname = "mx.example.test"
[[listener]]
bind = "127.0.0.1:0"
[tls]
certificate = "{samples / name}.pem"
key = "{samples / name}.key"
[domains."example.test"]
deliver = "maildir:{tmp_path}/mail"
users = "any"
"""
    )
    assert main(["check", "--config", str(config)]) == code
    said = capsys.readouterr().err
    assert told in said if told else not said
