"""Completion in the shells themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smtpd_core.app.cli import available, main
from tests.app.missing import without
from tests.app.terminals import Tmux

# How a shell is started without anybody's settings, and how it takes the script, which lies at _smtpd_core.
SHELLS = {
    "bash": ("bash --norc --noprofile -i", "source ./_smtpd_core"),
    "zsh": ("zsh -f -i", "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D"),
    "tcsh": ("tcsh", "source ./_smtpd_core"),
}

COMPLETED = (
    ("smtpd_core serve --smart", "smtpd_core serve --smarthost"),
    ("smtpd_core compl", "smtpd_core completion"),
    ("smtpd_core check --config catc", "smtpd_core check --config catcher.toml"),
    ("smtpd_core queue rel", "smtpd_core queue release"),
)


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=pytest.mark.debian("tmux", shell)) for shell in SHELLS])
def test_a_shell_completes_commands_options_and_files(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    (tmp_path / "_smtpd_core").write_text(capsys.readouterr().out)
    (tmp_path / "catcher.toml").write_text("")
    (tmp_path / ".tcshrc").write_text("set prompt='ready> '\n")
    start, take = SHELLS[shell]
    with Tmux(tmp_path, shell=start) as screen:
        screen.type(take)
        for typed, completed in COMPLETED:
            screen.type("clear")
            screen.type(typed, "Tab")
            screen.wait_for(completed)
            screen.type("", "C-u")


@pytest.mark.debian("tmux", "bash")
def test_bash_lists_all_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "_smtpd_core").write_text(capsys.readouterr().out)
    with Tmux(tmp_path, shell=SHELLS["bash"][0]) as screen:
        screen.type("source ./_smtpd_core")
        screen.type("smtpd_core ", "Tab", "Tab")
        shown = screen.wait_for("completion").split()
    assert {command.name for command in available()} <= set(shown)


def test_without_its_library_the_extra_is_named(tmp_path: Path) -> None:
    surroundings = {**os.environ, **without(tmp_path / "gone", "shtab")}
    command = [sys.executable, "-m", "smtpd_core", "completion", "bash"]
    done = subprocess.run(command, capture_output=True, env=surroundings, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "smtpd_core: completion needs shtab: pip install 'smtpd_core[daemon]'\n"
