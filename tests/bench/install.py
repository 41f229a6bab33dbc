"""The peers that the bench can bring along: `python -m tests.bench.install` gets those that are missing.

Nothing that the machine has is removed or replaced. Exim and OpenSMTPD exclude each other and Postfix as packages, so
theirs are only unpacked, into build/bench; smtp-server comes from npm into build/bench/node at the version of
peers/package-lock.json; go-smtp is built from Debian's packages. Without root only npm's and what is there are used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench.running import ROOT

PLACE = ROOT / "build" / "bench"
PEERS = Path(__file__).parent / "peers"
GO_LIBRARY = Path("/usr/share/gocode")
GO_PACKAGES = tuple(f"golang-github-emersion-{name}-dev" for name in ("go-smtp", "go-sasl"))


class Unavailable(Exception):
    """A peer that can't be had here, and why."""


def unpacked_version(name: str) -> str:
    version = PLACE / name / "version"
    return version.read_text().strip() if version.exists() else ""


def load_program() -> Path | None:
    """The load generator in C, built from load.c; load.py serves where it is not."""
    return _if_there(PLACE / "load")


def exim_program() -> Path | None:
    return _if_there(PLACE / "exim4" / "usr/sbin/exim4")


def opensmtpd_program() -> Path | None:
    return _if_there(PLACE / "opensmtpd" / "usr/sbin/smtpd")


def gosmtp_program() -> Path | None:
    return _if_there(PLACE / "gosmtp")


def smtp_server_folder() -> Path | None:
    return _if_there(PLACE / "node" / "node_modules" / "smtp-server" / "package.json")


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


def postfix() -> None:
    if shutil.which("postfix", path="/usr/sbin:" + os.environ.get("PATH", "")) is None:
        _apt_install("postfix")


def exim() -> None:
    if exim_program() is None:
        _unpack("exim4", "exim4-daemon-light")


def opensmtpd() -> None:
    if opensmtpd_program() is None:
        _unpack("opensmtpd", "opensmtpd")


def load_generator() -> None:
    source, program = Path(__file__).parent / "load.c", PLACE / "load"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return
    if shutil.which("cc") is None:
        _apt_install("gcc", "libc6-dev")
    PLACE.mkdir(parents=True, exist_ok=True)
    _run(["cc", "-O2", "-o", str(program), str(source)])


def gosmtp() -> None:
    source, program = PEERS / "gosmtp.go", PLACE / "gosmtp"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return
    libraries = [GO_LIBRARY / "src/github.com/emersion" / name for name in ("go-smtp", "go-sasl")]
    if shutil.which("go") is None or not all(one.exists() for one in libraries):
        _apt_install("golang-go", *GO_PACKAGES)
    PLACE.mkdir(parents=True, exist_ok=True)
    settings = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_LIBRARY), "GOCACHE": str(PLACE / "go-cache")}
    _run(["go", "build", "-o", str(program), str(source)], settings)


def smtp_server() -> None:
    if smtp_server_folder() is not None:
        return
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    folder = PLACE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PEERS / name, folder)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)])


def _unpack(name: str, package: str) -> None:
    """Its files under build/bench, and the libraries that it needs as packages."""
    _needs_root("apt-get", package)
    folder = PLACE / name
    folder.mkdir(parents=True, exist_ok=True)
    # apt-get reads the packages as an account of its own, which may not see this folder: it then says so and goes on.
    _run(["apt-get", "download", package], cwd=folder)
    for archive in folder.glob("*.deb"):
        _run(["dpkg", "-x", str(archive), str(folder)])
        (folder / "version").write_text(archive.name.split("_")[1] + "\n")
        archive.unlink()
    listed = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True).stdout
    needed = [line.split()[1] for line in listed.splitlines() if line.strip().startswith("Depends: lib")]
    _apt_install(*needed)


def _apt_install(*packages: str) -> None:
    _needs_root("apt-get", " ".join(packages))
    words = ["apt-get", "install", "--yes", "--no-install-recommends", "--no-remove", *packages]
    _run(words, {**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def _needs_root(program: str, what: str) -> None:
    if os.geteuid() != 0 or shutil.which(program) is None:
        raise Unavailable(f"{what}: needs root and {program}")


def _run(words: list[str], settings: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env=settings, cwd=cwd)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{' '.join(words[:3])}: {said[-1] if said else 'failed'}")


STEPS: dict[str, Callable[[], None]] = {
    "the load generator in C": load_generator,
    "smtp-server": smtp_server,
    "go-smtp": gosmtp,
    "Postfix, smtp-sink": postfix,
    "OpenSMTPD": opensmtpd,
    "Exim": exim,
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
