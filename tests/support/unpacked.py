"""Servers from Debian's packages that exclude an installed Postfix as packages, so theirs are only unpacked, into
build/debian: `python -m tests.support.unpacked` gets those that are missing. Nothing that the machine has is removed.

Root only. Several may ask at once: one of them gets it, the others wait.
Not here: how they are started (exim.py, opensmtpd.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "debian"


class Unavailable(Exception):
    """What can't be had here, and why."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A program of a package; its files lie under PLACE/name as they would under the root directory."""

    name: str
    package: str
    path: str

    @property
    def folder(self) -> Path:
        return PLACE / self.name

    def program(self) -> Path | None:
        """None where it is not unpacked."""
        # Written last: half of a package is none.
        return self.folder / self.path if (self.folder / "version").exists() else None

    def version(self) -> str:
        version = self.folder / "version"
        return version.read_text().strip() if version.exists() else ""

    def get(self) -> None:
        """Unpack it where it is missing, with the libraries that it needs as packages. Raises Unavailable."""
        needs_root("apt-get", self.package)
        import fcntl  # on POSIX only, and every test run imports this module

        PLACE.mkdir(parents=True, exist_ok=True)
        with (PLACE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.program() is None:
                self._unpack()

    def _unpack(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.glob("*.deb"):  # of a try that was cut short
            left.unlink()
        # apt-get reads packages as an account of its own, which may not see this folder: it then says so and goes on.
        run(["apt-get", "download", self.package], cwd=self.folder)
        [archive] = self.folder.glob("*.deb")
        run(["dpkg", "-x", str(archive), str(self.folder)])
        listed = subprocess.run(["apt-cache", "depends", self.package], capture_output=True, text=True).stdout
        needed = [line.split()[1] for line in listed.splitlines() if line.strip().startswith("Depends: lib")]
        apt_install(*needed)
        archive.unlink()
        (self.folder / "version").write_text(archive.name.split("_")[1] + "\n")


EXIM = Unpacked("exim4", "exim4-daemon-light", "usr/sbin/exim4")
OPENSMTPD = Unpacked("opensmtpd", "opensmtpd", "usr/sbin/smtpd")
ALL = (EXIM, OPENSMTPD)


def apt_install(*packages: str) -> None:
    """Raises Unavailable."""
    needs_root("apt-get", " ".join(packages))
    words = ["apt-get", "install", "--yes", "--no-install-recommends", "--no-remove", *packages]
    run(words, {**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def needs_root(program: str, what: str) -> None:
    if os.geteuid() != 0 or shutil.which(program) is None:
        raise Unavailable(f"{what}: needs root and {program}")


def run(words: Sequence[str], settings: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Raises Unavailable with the last line that it said."""
    done = subprocess.run(words, capture_output=True, text=True, env=settings, cwd=cwd)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{' '.join(words[:3])}: {said[-1] if said else 'failed'}")


def main() -> int:
    """1 where one of them can't be had."""
    try:
        for one in ALL:
            one.get()
    except Unavailable as why:
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
