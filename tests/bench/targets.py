"""Who is measured: this server and the peers that the machine has, each started as a process of its own.

A target is a name and a function that gives the command for a port and a scratch folder, or None where the peer is not
installed; such a target is reported as not measured. Targets with a reader (stored.py) write to disk before their 250,
all but OpenSMTPD with a sync, and are held to what they stored; the others take mail and forget it. All listen on
loopback only, and all find the same certificate in FOLDER/tls. Features are comparable: those that offer STARTTLS have
it on in every workload; none asks for a login or looks a client up in DNS.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import install, stored, stores
from tests.support.unpacked import EXIM, OPENSMTPD

HERE = Path(__file__).parent

Command = Callable[[int, Path], list[str] | None]


class NotInstalled(Exception):
    """A peer that this machine does not have."""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    command: Command
    version: Callable[[], str]
    stored: stored.Reader | None = None
    counts: bool = False  # at its end it writes what it was given to FOLDER/counted: messages and octets
    warm_up: float = 0.0  # seconds of the same load before what is timed, for one that compiles itself while it runs
    is_spread: bool = False  # on all processors, the load too
    opening: int = 0  # connections that may wait for a greeting: what its listen queue holds, where that is few


def ours(*options: str, python: str = sys.executable) -> Command:
    return lambda port, folder: [python, "-m", "tests.bench.ours", str(port), str(folder), *options]


def daemon(port: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "smtpd_core", "serve", "--listen", f"127.0.0.1:{port}", "--state", str(folder)]


def aiosmtpd(*options: str) -> Command:
    def command(port: int, folder: Path) -> list[str] | None:
        if importlib.util.find_spec("aiosmtpd") is None:
            return None
        return [sys.executable, str(HERE / "peers" / "peer_aiosmtpd.py"), str(port), str(folder), *options]

    return command


def bare(port: int, folder: Path) -> list[str] | None:
    return [sys.executable, str(HERE / "peers" / "bare.py"), str(port)] if hasattr(select, "epoll") else None


def smtp_sink(port: int, folder: Path) -> list[str] | None:
    program = shutil.which("smtp-sink", path=stores.PATH)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [program, *user, "-m", "20000", f"127.0.0.1:{port}", "1000"] if program else None


def go_smtp(port: int, folder: Path) -> list[str] | None:
    program = install.gosmtp_program()
    return [str(program), str(port), str(folder)] if program else None


def smtp_server(port: int, folder: Path) -> list[str] | None:
    package, node = install.smtp_server_folder(), shutil.which("node")
    if package is None or node is None:
        return None
    modules = package.parents[1]
    return ["env", f"NODE_PATH={modules}", node, str(HERE / "peers" / "smtp_server.js"), str(port), str(folder)]


def _said(*words: str) -> str:
    """The first line that a program says, or ""."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "")


def _own_version(python: str = sys.executable) -> str:
    return f"{importlib.metadata.version('smtpd_core')}, {interpreter(python)}"


def _aiosmtpd_version() -> str:
    return f"{importlib.metadata.version('aiosmtpd')}, {interpreter(sys.executable)}"


def _postfix_version() -> str:
    return _said("/usr/sbin/postconf", "-dh", "mail_version")


def _go_version() -> str:
    package = _said("dpkg-query", "-W", "-f", "${Version}", install.GO_PACKAGES[0])
    return f"{package}, {' '.join(_said('go', 'version').split()[2:3])}"


def _node_version() -> str:
    package = install.smtp_server_folder()
    return f"{json.loads(package.read_text())['version']}, node {_said('node', '--version')}" if package else ""


TARGETS = (
    Target("smtpd_core", ours(), _own_version, counts=True),
    Target("smtpd_core in two", ours("--processes", "2"), _own_version, counts=True, is_spread=True),
    Target("smtpd_core slow hook", ours("--hook-ms", "100", "--threads", "20"), _own_version, counts=True),
    Target("aiosmtpd", aiosmtpd(), _aiosmtpd_version),
    Target("bare loop", bare, lambda: interpreter(sys.executable)),
    Target("smtp-sink", smtp_sink, _postfix_version),
    Target("go-smtp", go_smtp, _go_version),
    # In W2 its rate grows by 1.9 and its CPU halves within the first three seconds; no other's moves by a tenth.
    Target("smtp-server", smtp_server, _node_version, warm_up=3.0),
    Target("smtpd_core durable", ours("--durable"), _own_version, stored.queue),
    Target("smtpd_core daemon", daemon, _own_version, stored.daemon),
    Target("aiosmtpd fsync", aiosmtpd("--durable"), _aiosmtpd_version, stored.files("kept/*.eml")),
    # Its listen queue holds five (SMTPD_BACKLOG, compiled in); a connection beyond them waits a second to try again.
    Target("OpenSMTPD", stores.opensmtpd, OPENSMTPD.version, stored.files("spool/queue/*/*/message"), opening=5),
    Target("Postfix", stores.postfix, _postfix_version, stored.postfix),
    Target("Exim", stores.exim, EXIM.version, stored.exim),
)

# Writes down what arrived, to show that it is what was sent; never timed.
KEEPING = Target("smtpd_core keeping", ours("--keep"), _own_version, stored.files("kept/*.eml"))


def interpreter(python: str) -> str:
    """Such as CPython 3.14.0, or CPython 3.14.0t where it runs without the interpreter lock."""
    program = (
        "import platform, sys; print(platform.python_implementation(), platform.python_version()"
        " + ('' if getattr(sys, '_is_gil_enabled', lambda: True)() else 't'))"
    )
    return _said(python, "-c", program)


def on_interpreter(target: Target, python: str) -> Target:
    """This server on another interpreter: one that has dnspython and pyOpenSSL, such as a venv's."""
    name, options = interpreter(python), ["--durable"] if target.stored else []
    return replace(
        target,
        name=f"{target.name}, {name.partition(' ')[2]}",
        command=ours(*options, python=python),
        version=lambda: _own_version(python),
    )
