"""Who is measured: this server and the peers that the machine has, each started as a process of its own.

A target is a name and a function that gives the command for a port and a scratch folder, or None where the peer is not
installed; such a target is reported as not measured. Sinks take mail and forget it; stores sync it to disk first.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.stores import opensmtpd, postfix

TICK = os.sysconf("SC_CLK_TCK")
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Target:
    """`stores` says that a 250 of it means synced."""

    name: str
    command: Callable[[int, Path], list[str] | None]
    stores: bool = False
    tls: bool = False


def python_peer(script: str, module: str, *options: str) -> Callable[[int, Path], list[str] | None]:
    def command(port: int, folder: Path) -> list[str] | None:
        if module and importlib.util.find_spec(module) is None:
            return None
        return [sys.executable, str(HERE / script), str(port), str(folder), *options]

    return command


def smtp_sink(port: int, folder: Path) -> list[str] | None:
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
    user = ["-u", "root"] if os.geteuid() == 0 else []
    return [program, *user, f"127.0.0.1:{port}", "1000"] if program else None


def go_smtp(port: int, folder: Path) -> list[str] | None:
    """Built from peer_gosmtp.go where Go and Debian's go-smtp library are installed."""
    go, library = shutil.which("go"), Path("/usr/share/gocode")
    if go is None or not (library / "src/github.com/emersion/go-smtp").exists():
        return None
    program = Path(tempfile.gettempdir()) / f"peer_gosmtp-{os.getuid()}"
    if not program.exists():
        settings = {**os.environ, "GO111MODULE": "off", "GOPATH": str(library)}
        subprocess.run([go, "build", "-o", program, str(HERE / "peer_gosmtp.go")], check=True, env=settings)
    return [str(program), str(port)]


def daemon(port: int, folder: Path) -> list[str] | None:
    return [sys.executable, "-m", "smtpd_core", "serve", "--listen", f"127.0.0.1:{port}", "--state", str(folder)]


TARGETS = (
    Target("smtpd_core", python_peer("ours.py", ""), tls=True),
    Target("aiosmtpd", python_peer("peer_aiosmtpd.py", "aiosmtpd"), tls=True),
    Target("smtp-sink", smtp_sink),
    Target("go-smtp", go_smtp),
    Target("smtpd_core durable", python_peer("ours.py", "", "--durable"), stores=True),
    Target("smtpd_core daemon", daemon, stores=True),
    Target("aiosmtpd fsync", python_peer("peer_aiosmtpd.py", "aiosmtpd", "--durable"), stores=True),
    Target("OpenSMTPD", opensmtpd, stores=True),
    Target("Postfix", postfix, stores=True),
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """A target under measurement, pinned to one processor. Use as a context manager."""

    def __init__(self, target: Target, folder: Path, processor: int | None) -> None:
        self.port = free_port()
        command = target.command(self.port, folder)
        if command is None:
            raise FileNotFoundError(target.name)
        pin = ["taskset", "-c", str(processor)] if processor is not None and shutil.which("taskset") else []
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen([*pin, *command], stdout=self.log, stderr=self.log)
        self._await_banner()

    def _await_banner(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                    if sock.recv(100).startswith(b"220"):
                        sock.sendall(b"QUIT\r\n")
                        sock.recv(100)
                        return
            except OSError:
                time.sleep(0.02)
        self.__exit__()
        raise RuntimeError(f"{self.process.args!r} does not serve; see {self.log.name}")

    def cpu(self) -> float:
        """User and system seconds of the whole process tree."""
        return sum(_ticks(pid) for pid in _tree(self.process.pid)) / TICK

    def resident(self) -> int:
        """Resident bytes of the whole process tree."""
        return sum(_resident(pid) for pid in _tree(self.process.pid))

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        family = _tree(self.process.pid)  # Postfix's master outlives the command that started it
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in family[1:]:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        self.log.close()


def _tree(root: int) -> list[int]:
    found, at = [root], 0
    while at < len(found):
        try:
            found.extend(int(pid) for pid in Path(f"/proc/{found[at]}/task/{found[at]}/children").read_text().split())
        except OSError:
            pass
        at += 1
    return found


def _ticks(pid: int) -> int:
    try:
        # After the name in parentheses; fields 14 to 17 are user, system and those of the reaped children.
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, after[11:15]))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
