"""A newcomer's path: a copy of the sources, a fresh environment, and the README from top to bottom, by paste."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.daemon import ROOT
from tests.app.test_documents import free_port

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.M | re.S)

# What a shell of a newcomer has. Where packages come from is the machine's business.
KEPT = re.compile("PATH$|HOME$|PIP_|SSL_|REQUESTS_|(http|https|no)_proxy$", re.I)

IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "smtpd-state")


def surroundings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if KEPT.match(name)} | {"LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, and after `make run` has been there once, the environment that it made."""
    place = tmp_path_factory.mktemp("newcomer") / "smtpd_core"
    shutil.copytree(ROOT, place, ignore=IGNORED)
    return place


class Running:
    """A command that goes on in the background; its lines as they come."""

    def __init__(self, command: list[str], place: Path) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=place,
            env=surroundings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        return iter(self.process.stdout)

    def interrupt(self) -> str:
        """As control-C does, to all of it; what it says on its way."""
        os.killpg(self.process.pid, signal.SIGINT)
        rest = "".join(self.lines())
        self.process.wait(60)
        return rest


@pytest.mark.timeout(400)
def test_make_run_serves_and_says_what_to_paste(checkout: Path) -> None:
    running = Running(["make", f"PYTHON={sys.executable}", "run", "ARGS=--listen 127.0.0.1:0"], checkout)
    said = []
    for line in running.lines():
        said.append(line.rstrip("\n"))
        if line.startswith("it will lie in"):
            break
    assert any(line.startswith("listening mx 127.0.0.1:") for line in said), "\n".join(said)
    start = next(n for n, line in enumerate(said) if line.startswith("send a first mail"))
    pasted = said[start + 1].strip()
    done = subprocess.run(
        ["bash", "-c", f"printf 'Subject: hello\\n\\nhello\\n' | {pasted}"],
        cwd=checkout, env=surroundings(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    new = Path(said[-1].removeprefix("it will lie in "))
    while not new.is_dir() or not list(new.iterdir()):
        assert running.process.poll() is None
    assert b"Subject: hello" in next(new.iterdir()).read_bytes()
    assert " stopped\n" in running.interrupt()


@pytest.mark.timeout(400)
def test_the_readme_works_from_top_to_bottom(checkout: Path) -> None:
    """One shell, in the order of the page; settings are saved under the name that it gives them."""
    text = (checkout / "README.md").read_text()
    assert "a shell that has said `. .venv/bin/activate`" in text
    port = str(free_port())
    script = ["set -eu -o pipefail -m", ". .venv/bin/activate"]
    for kind, block in BLOCK.findall(text):
        block = block.replace("2525", port)
        if kind == "toml":
            script.append(f"cat > smtpd.toml <<'END'\n{block}END")
        elif kind == "python":
            script.append(f"python -W error - <<'END'\n{block}END")
        elif kind == "sh":
            script.append(block)
    assert len(script) >= 6, "the README shows commands"
    if not (checkout / ".venv").exists():
        make = ["make", "--silent", f"PYTHON={sys.executable}", ".venv/.core"]
        subprocess.run(make, cwd=checkout, env=surroundings(), check=True, capture_output=True)
    shell = Running(["bash", "-c", "\n".join(script)], checkout)
    said = "".join(shell.lines())
    assert shell.process.wait(60) == 0, said
    assert "Hello Ann." in said and "Subject: hello" in said, said


def test_make_test_would_run_the_whole_suite(checkout: Path) -> None:
    done = subprocess.run(
        ["make", "-n", "test"], cwd=checkout, env=surroundings(), capture_output=True, text=True, timeout=60
    )
    commands = [shlex.split(line) for line in done.stdout.splitlines() if "pytest" in line]
    assert done.returncode == 0 and [command[-4:] for command in commands] == [["-m", "pytest", "-n", "4"]]
