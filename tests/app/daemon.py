"""A daemon in a process of its own, as an administrator starts it, for tests that need one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


class DaemonProcess:
    """`with DaemonProcess(state) as daemon:` serves; its ports are known. What it wrote to the log is in `log`."""

    def __init__(self, state: Path, *arguments: str, listen: str = "127.0.0.1:0", wrapper: Sequence[str] = ()) -> None:
        self.state = state
        self.log = state.with_suffix(".log")
        self.output = state.with_suffix(".out")
        given = ["--state", str(state), *arguments]
        if listen:
            given = ["--listen", listen, *given]
        self.command = [*wrapper, sys.executable, "-m", "smtpd_core", "serve", *given]
        self.process: subprocess.Popen[bytes] | None = None
        self.listening: list[tuple[str, str]] = []

    def __enter__(self) -> DaemonProcess:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self, environment: dict[str, str] | None = None, descriptors: tuple[int, ...] = ()) -> None:
        """Returns when it serves; AssertionError with its log where it ends instead."""
        with open(self.log, "ab") as log, open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                pass_fds=descriptors,
            )
        deadline = time.monotonic() + 60
        while "listening " not in (said := self.output.read_text()) or not said.endswith("\n"):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, "it does not come up"
            time.sleep(0.01)  # another process's words
        lines = [line.split() for line in said.splitlines() if line.startswith("listening ")]
        self.listening = [(words[1], words[2]) for words in lines]

    @property
    def address(self) -> tuple[str, int]:
        """Of the first listener."""
        host, _, port = self.listening[0][1].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def text(self) -> str:
        return self.listening[0][1]

    def kill(self) -> None:
        """As the power cord would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout: float = 60.0) -> int:
        """TERM, and its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.process.wait()

    def mails(self, folder: str = "mail") -> list[Path]:
        """The messages in a Maildir under the state directory."""
        new = self.state / folder / "new"
        return sorted(new.iterdir()) if new.is_dir() else []

    def wait_for(self, count: int, timeout: float = 60.0, folder: str = "mail") -> list[Path]:
        """Until so many messages lie there."""
        deadline = time.monotonic() + timeout
        while len(found := self.mails(folder)) < count:
            assert time.monotonic() < deadline, (
                f"{len(found)} of {count} messages came:\n{self.log.read_text()[-3000:]}"
            )
            time.sleep(0.02)  # another process's folder
        return found

    def wait_for_log(self, text: str, timeout: float = 60.0) -> str:
        """Until the log says `text`; the line."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.log.read_text().splitlines():
                if text in line:
                    return line
            assert time.monotonic() < deadline, f"the log does not say {text!r}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)  # another process's log


def content_of(message: bytes) -> bytes:
    """What the client sent: all behind the trace headers that were put before it (Return-Path ... Received)."""
    rest = message
    for name in (b"Return-Path:", b"Delivered-To:", b"Received:"):
        while rest.startswith(name):
            end = rest.index(b"\r\n") + 2
            while rest[end : end + 1] in (b" ", b"\t"):
                end = rest.index(b"\r\n", end) + 2
            rest = rest[end:]
    return rest
