"""Whatever stands in the file or the environment is explained, or refused with file and key; never a traceback."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from smtpd_core.app.cli import main
from smtpd_core.app.load import ENVIRONMENT, BadSettings, load, variables
from smtpd_core.app.plan import explain
from smtpd_core.app.sanity import faults, warnings
from tests.app.daemon import ROOT
from tests.app.mutants import mutate

STARTERS = [
    ROOT / "docs" / "examples" / "catcher.toml",
    ROOT / "docs" / "examples" / "company.toml",
    ROOT / "docs" / "deploy" / "etc" / "smtpd_core" / "smtpd_core.toml",
]
STRANGE = [
    "",
    " ",
    "-1",
    "0",
    "1e9",
    "99999999999999999999",
    "nan",
    "true",
    "[",
    "\x00",
    "\x1b[2J",
    "é",
    "../..",
    ",",
    "5m",
]
STRANGE += [
    "::",
    "[::1]:25",
    "0.0.0.0/0",
    "unix:",
    "fd:",
    "maildir:",
    "{user}",
    "a" * 5000,
    "\ud800",
    "10.0.0.0/33",
    "|",
]


def dice() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("starter", STARTERS, ids=lambda path: path.name)
def test_check_explains_or_refuses_a_mutated_starter_file(
    starter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, whole, file = dice(), starter.read_bytes(), tmp_path / "mutant.toml"
    monkeypatch.chdir(tmp_path)
    codes = set()
    for _ in range(200):
        file.write_bytes(mutate(whole, chance))
        code = main(["check", "--config", str(file)])
        said = capsys.readouterr()
        assert code in (0, 2) and "Traceback" not in said.err
        assert said.out if code == 0 else said.err.startswith(str(file)), said
        codes.add(code)
    assert 2 in codes


def test_every_variable_with_anything_in_it(tmp_path: Path) -> None:
    file = tmp_path / "smtpd.toml"
    file.write_bytes(STARTERS[0].read_bytes())
    chance = dice()
    for name in variables():
        for text in chance.sample(STRANGE, 8):
            try:
                settings = load(file, {name: text})
                explain(settings)
                warnings(settings)
                found = faults(settings)
            except BadSettings as bad:
                found = bad.faults
            assert all(": " in fault for fault in found), (name, text)


def test_an_unknown_variable_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "smtpd.toml"
    file.write_bytes(STARTERS[0].read_bytes())
    with pytest.raises(
        BadSettings, match=f"{ENVIRONMENT}LIMITS_MAX_ERROR: unknown.*did you mean {ENVIRONMENT}LIMITS_MAX_ERRORS"
    ):
        load(file, {f"{ENVIRONMENT}LIMITS_MAX_ERROR": "1"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'listener = [{ auth = "required", tls = "none", service = "submission" }]\naccounts = { store = "file:u" }',
            'listener[1].auth: required with tls = "none"',
        ),
        (
            'listener = [{}]\nrelay = { enabled = true, allow_networks = ["0.0.0.0/0"] }',
            "relay.allow_networks: 0.0.0.0/0 would make this an open relay",
        ),
        ('listener = [{}]\ntls = { certificate = "/no/such.pem" }', "tls.certificate: /no/such.pem: no such file"),
        ('listener = [{}]\nstate = "/dev/null/state"', "state: /dev/null is no directory"),
        ("listener = [{}]\n[limit]\nmax_errors = 3", "limit: unknown setting; did you mean limits?"),
        ('listener = [{}]\nlimits = { max_errors = "three" }', "limits.max_errors: "),
        (
            'listener = [{}]\ndomains = { "a.test" = { aliases = { x = "|/bin/sh" } } }',
            "aliases.x: '|/bin/sh' is no address",
        ),
    ],
)
def test_serve_and_check_refuse_with_file_key_and_reason(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text + "\n")
    for command in ("serve", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "smtpd_core", command, "--config", str(file)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"{file}: ") and said in done.stderr and "Traceback" not in done.stderr
