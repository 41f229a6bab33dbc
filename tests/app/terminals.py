"""Programs on real terminals: a pseudo-terminal of the system, and tmux, whose screen can be read."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.app.daemon import ROOT


class OnTerminal:
    """A program whose standard streams are a terminal; what it writes there is read raw."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._terminal, ours = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=ours,
            stdout=ours,
            stderr=ours,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **(environment or {})},
            preexec_fn=partial(_settle, ours),
        )
        os.close(ours)

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait(60)
        os.close(self._terminal)

    def press(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def read_until(self, is_enough: Callable[[str], bool]) -> str:
        """What was written, in the end of the program at the latest."""
        shown = b""
        while not is_enough(shown.decode("utf-8", "replace")):
            try:
                piece = os.read(self._terminal, 65_536)
            except OSError:  # EIO: nobody has the other end any more
                break
            if not piece:
                break
            shown += piece
        return shown.decode("utf-8", "replace")

    def read_all(self) -> str:
        """What it wrote until it ended."""
        return self.read_until(lambda text: False)


def _settle(terminal: int) -> None:
    """In the program's process: the terminal is its own, and so its prompts and its interrupts are."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    # A suite that runs in the background has interrupts ignored, and hands that down.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Tmux:
    """A shell with the prompt "ready>" in a terminal of so many columns and lines, in a directory."""

    def __init__(self, folder: Path, width: int = 100, height: int = 30, shell: str = "sh -i") -> None:
        self._folder = folder
        self._shell = f"exec env HOME={folder} PS1='ready> ' {shell}"
        self._socket = str(folder / "tmux")
        self._size = ["-x", str(width), "-y", str(height)]

    def __enter__(self) -> Tmux:
        self._run("-f", "/dev/null", "new-session", "-d", "-c", str(self._folder), *self._size, self._shell)
        self.wait_for("ready>")
        return self

    def __exit__(self, *exception: object) -> None:
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        surroundings = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        command = ["tmux", "-u", "-S", self._socket, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings).stdout

    def type(self, line: str, *keys: str) -> None:
        """A line and Enter, or the keys that are given."""
        self._run("send-keys", "-l", line)
        self._run("send-keys", *(keys or ("Enter",)))

    def interrupt(self) -> None:
        self._run("send-keys", "C-c")

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p").rstrip("\n")

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        """The screen, once it shows that."""
        deadline = time.monotonic() + seconds
        while text not in (shown := self.screen):
            assert time.monotonic() < deadline, f"no {text!r} on the screen:\n{shown}"
            time.sleep(0.05)
        return shown
