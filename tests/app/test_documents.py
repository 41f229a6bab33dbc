"""Every command and program in README and docs works as it stands there.

Blocks marked `python` are run as programs; blocks marked `sh` line by line in one shell, in a directory that has what
they speak of; blocks marked `toml` are settings that can be started with. Ports 2525 and 9125 become free ones.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from smtpd_core.app.cmd_reference import as_markdown
from smtpd_core.app.load import load
from smtpd_core.app.sanity import faults

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.M | re.S)


def blocks(kind: str) -> list[object]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for n, (word, block) in enumerate(_BLOCK.findall(text), 1):
            if word == kind:
                found.append(pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{n}"))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the files that the pages name, and this interpreter as `python`."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "password.txt").write_text("correct horse\n")
    (tmp_path / "letter.eml").write_text("Subject: a letter\n\nhello\n")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def surroundings(place: Path) -> dict[str, str]:
    paths = [str(place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": ":".join(paths), "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_programs_run(page: Path, block: str, place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=place,
        env=surroundings(place),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(("page", "block"), blocks("toml"))
def test_settings_can_be_started_with(page: Path, block: str, place: Path) -> None:
    file = place / "page.toml"
    file.write_text(block)
    assert [fault for fault in faults(load(file)) if "no such file" not in fault] == []


@pytest.mark.parametrize(("page", "block"), blocks("sh"))
def test_commands_work(page: Path, block: str, place: Path) -> None:
    port, watch = str(free_port()), str(free_port())
    text = page.read_text(encoding="utf-8")
    for word, settings in _BLOCK.findall(text):
        if word == "toml":
            (place / "smtpd.toml").write_text(settings.replace("2525", port).replace("9125", watch))
    script = "set -eu -o pipefail -m\n" + block.replace("2525", port).replace("9125", watch)
    done = subprocess.Popen(
        ["bash", "-c", script],
        cwd=place,
        env=surroundings(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = done.communicate(timeout=60)
    finally:
        # What the page left running in the background is over with it.
        try:
            os.killpg(done.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert done.returncode == 0, said.decode()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`|    )make ([a-z-]+)", text, re.M)) <= set(targets)
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_the_reference_is_current() -> None:
    """`python -m smtpd_core reference > docs/reference.md` makes it."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == as_markdown()
