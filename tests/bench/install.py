"""The peers that the bench can bring along: `python -m tests.bench.install` gets those that are missing.

Nothing that the machine has is removed or replaced. Exim and OpenSMTPD exclude each other and Postfix as packages, so
theirs are only unpacked, into build/debian; smtp-server comes from npm into build/bench/node at the version of
peers/package-lock.json; go-smtp is built from Debian's packages. Without root only npm's and what is there are used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.running import ROOT
from tests.support.unpacked import EXIM, OPENSMTPD, Unavailable, apt_install, run

PLACE = ROOT / "build" / "bench"
PEERS = Path(__file__).parent / "peers"
OPENSSL_HEADER = Path("/usr/include/openssl/ssl.h")
GO_LIBRARY = Path("/usr/share/gocode")
# Where no registry answers, npm's own patience is more than a minute.
NPM_PATIENCE = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000")
GO_PACKAGES = tuple(f"golang-github-emersion-{name}-dev" for name in ("go-smtp", "go-sasl"))


def load_program(starttls: bool = False) -> Path | None:
    """The load generator in C, built from load.c, for TLS with tls.c; load.py serves where it is not."""
    return _if_there(PLACE / ("load-tls" if starttls else "load"))


def gosmtp_program() -> Path | None:
    return _if_there(PLACE / "gosmtp")


def smtp_server_folder() -> Path | None:
    return _if_there(PLACE / "node" / "node_modules" / "smtp-server" / "package.json")


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


def postfix() -> None:
    if shutil.which("postfix", path="/usr/sbin:" + os.environ.get("PATH", "")) is None:
        apt_install("postfix")


def load_generator() -> None:
    _compile("load", "load.c")


def load_generator_with_tls() -> None:
    if not OPENSSL_HEADER.exists():
        apt_install("libssl-dev")
    _compile("load-tls", "load.c", "tls.c", libraries=("ssl", "crypto"))


def _compile(name: str, *sources: str, libraries: tuple[str, ...] = ()) -> None:
    here, program = Path(__file__).parent, PLACE / name
    newest = max((here / one).stat().st_mtime for one in (*sources, "tls.h"))
    if program.exists() and program.stat().st_mtime > newest:
        return
    if shutil.which("cc") is None:
        apt_install("gcc", "libc6-dev")
    PLACE.mkdir(parents=True, exist_ok=True)
    whole = PLACE / f"{name}-{os.getpid()}"  # so that nobody runs a half of it
    words = [str(here / one) for one in sources] + [f"-l{one}" for one in libraries]
    run(["cc", "-O2", "-o", str(whole), *words])
    whole.replace(program)


def gosmtp() -> None:
    source, program = PEERS / "gosmtp.go", PLACE / "gosmtp"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return
    libraries = [GO_LIBRARY / "src/github.com/emersion" / name for name in ("go-smtp", "go-sasl")]
    if shutil.which("go") is None or not all(one.exists() for one in libraries):
        apt_install("golang-go", *GO_PACKAGES)
    PLACE.mkdir(parents=True, exist_ok=True)
    settings = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_LIBRARY), "GOCACHE": str(PLACE / "go-cache")}
    whole = PLACE / f"gosmtp-{os.getpid()}"
    run(["go", "build", "-o", str(whole), str(source)], settings)
    whole.replace(program)


def smtp_server() -> None:
    if smtp_server_folder() is not None:
        return
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="npm-", dir=PLACE) as name:
        whole = Path(name, "node")  # so that half of it is none, whatever cuts npm short
        whole.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copy(PEERS / file, whole)
        words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--logs-max=0", *NPM_PATIENCE]
        done = subprocess.run([*words, "--prefix", str(whole)], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it says nothing"]
            raise Unavailable(f"npm: {next((line for line in said if ' reason: ' in line), said[0])}")
        shutil.rmtree(PLACE / "node", ignore_errors=True)
        whole.replace(PLACE / "node")


STEPS: dict[str, Callable[[], None]] = {
    "the load generator in C": load_generator,
    "the same with TLS": load_generator_with_tls,
    "smtp-server": smtp_server,
    "go-smtp": gosmtp,
    "Postfix, smtp-sink": postfix,
    "OpenSMTPD": OPENSMTPD.get,
    "Exim": EXIM.get,
}


def main() -> int:
    """Names each peer that could not be had; the others are there afterwards."""
    for name, step in STEPS.items():
        try:
            step()
        except Unavailable as why:
            print(f"{name} can't be had: {why}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
