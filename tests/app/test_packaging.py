"""What an installation has: the demo, the commands, and nothing of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from smtpd_core.app.cli import COMMANDS, available, main, parser_of

ROOT = Path(__file__).parents[2]


def can_build() -> bool:
    """bdist_wheel came into setuptools with 70.1."""
    try:
        major, minor = version("setuptools").split(".")[:2]
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (70, 1)


def test_the_demo_shows_two_dialogues_and_the_mail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    assert said.count("C: STARTTLS") == 2
    assert "by second.test with ESMTPS" in said and "Subject: From one server to the other" in said
    assert "\n.\nthe line above" in said


def test_every_command_helps_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in available():
        said = parser_of(command).format_help()
        assert "example:" in said and f"python -m smtpd_core {command.name}" in said
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(command.name in said for command in available())


def test_an_unknown_command_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serv"])
    assert ended.value.code == 2
    assert "serv" in capsys.readouterr().err


def test_commands_have_names_of_their_own() -> None:
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.skipif(not can_build(), reason="building a wheel needs setuptools 70.1 or newer")
def test_the_installed_package_works_without_the_sources(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("smtpd_core", "relay", "certs", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, timeout=100)
    assert not (target / "tests").exists()
    assert (target / "smtpd_core" / "py.typed").exists()
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "demo", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Subject: From one server to the other" in done.stdout
