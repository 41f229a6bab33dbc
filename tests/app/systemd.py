"""A real systemd as the first process of namespaces of its own, with the units of docs/deploy and nothing else.

It has its own processes, mounts, network and control groups, and /etc, /var and /opt of which changes go nowhere; it
ends with its first process, after SECONDS at the latest. The interpreter and the packages of the test are mounted
where the units expect them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from certs.store import CertificateStore
from tests.app.daemon import ROOT

SECONDS = 100
DEPLOY = ROOT / "docs" / "deploy"
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup")
SYSTEMD = "/lib/systemd/systemd"

# What our units refer to, without what a whole system would start for them.
TARGETS = ("sysinit", "basic", "sockets", "network-online", "shutdown", "umount", "multi-user")

BOOT = """
umask 022
set -e
mount --make-rprivate /
for folder in etc var opt; do
    mkdir -p "$WORK/$folder.up" "$WORK/$folder.work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$WORK/$folder.up,workdir=$WORK/$folder.work" "/$folder"
done
mount -t tmpfs tmpfs /run
for folder in /usr/lib/systemd/system /usr/lib/systemd/system-generators /etc/systemd; do
    test -d $folder && mount -t tmpfs tmpfs $folder
done
mkdir -p /run/systemd/system /opt/python /opt/smtpd_core/bin /opt/smtpd_core/source /opt/smtpd_core/site
cp -r "$WORK/units/." /run/systemd/system/
cp -r "$WORK/etc/." /etc/
echo "smtpd:x:4242:4242::/:/bin/false" >> /etc/passwd
echo "smtpd:x:4242:" >> /etc/group
chown -R smtpd:smtpd /etc/smtpd_core
mount --bind "$PREFIX" /opt/python
mount --bind "$SOURCE" /opt/smtpd_core/source
mount --bind "$SITE" /opt/smtpd_core/site
cp "$WORK/python" /opt/smtpd_core/bin/python
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t proc proc /proc
ip link set lo up
exec env -i PATH="$PATH" container=test $SYSTEMD --system --unit=test.target --log-target=console --show-status=0
"""


def why_not() -> str:
    """Why no systemd can be started here; "" where it can."""
    if os.geteuid() != 0:
        return "only root may make namespaces"
    probe = "mount --make-rprivate / && mount -t cgroup2 none /mnt && mount -t tmpfs tmpfs /mnt && ip link set lo up"
    done = subprocess.run(
        ["unshare", *NAMESPACES, "sh", "-c", probe], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    )
    return "" if done.returncode == 0 else f"no namespaces: {done.stderr.decode(errors='replace').strip()}"


class Systemd:
    """`more` are lines for the [Service] section besides those of the unit."""

    def __init__(self, place: Path, more: str = "") -> None:
        self.place = place
        self._groups: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._prepare(more)

    def _prepare(self, more: str) -> None:
        units, etc = self.place / "units", self.place / "etc"
        (units / "smtpd_core.service.d").mkdir(parents=True)
        for unit in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")):
            shutil.copy(unit, units)
        for target in TARGETS:
            (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        wanted = " ".join(sorted(path.name for path in DEPLOY.glob("*.s[eo][rc]*")))
        (units / "test.target").write_text(f"[Unit]\nDefaultDependencies=no\nWants={wanted}\n")
        output = f"append:{self.place}/output"
        (units / "smtpd_core.service.d" / "more.conf").write_text(
            f"[Service]\nStandardOutput={output}\nStandardError={output}\n{more}\n"
        )
        shutil.copytree(DEPLOY / "etc", etc)
        store = CertificateStore.open(self.place / "certificates")
        store.create_self_signed(["mail.example.test"], name="mail")
        shutil.copy(self.place / "certificates" / "mail.pem", etc / "smtpd_core" / "certificate.pem")
        shutil.copy(self.place / "certificates" / "mail.key", etc / "smtpd_core" / "key.pem")
        subprocess.run(
            [sys.executable, "-m", "smtpd_core", "user", "add", "ann", "--email", "ann@example.test"]
            + ["--store", f"file:{etc}/smtpd_core/users.toml"],
            input=b"secret\n", cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        program = "bin/" + Path(os.path.realpath(sys.executable)).name
        python = self.place / "python"
        python.write_text(
            "#!/bin/sh\nexport PYTHONPATH=/opt/smtpd_core/source:/opt/smtpd_core/site PYTHONDONTWRITEBYTECODE=1\n"
            "export LD_LIBRARY_PATH=/opt/python/lib\n"  # libpython, where the interpreter is not all in its program
            f'exec /opt/python/{program} "$@"\n'
        )
        python.chmod(0o755)

    def __enter__(self) -> Systemd:
        self._groups = _own_control_groups()
        environment = {
            "PATH": os.environ["PATH"],
            "WORK": str(self.place),
            "PREFIX": sys.base_prefix,
            "SOURCE": str(ROOT),
            "SITE": sysconfig.get_path("purelib"),
            "SYSTEMD": SYSTEMD,
        }
        with open(self.place / "boot", "wb") as said:
            self._process = subprocess.Popen(
                ["timeout", "-s", "KILL", str(SECONDS), "unshare", *NAMESPACES, "sh", "-c", BOOT],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                preexec_fn=self._join,
            )
        return self

    def _join(self) -> None:
        for group in self._groups:
            try:
                (group / "cgroup.procs").write_text("0")
            except OSError:
                pass  # a controller that wants to be set up first: its limits are not what this is about

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        if self.first:
            os.kill(self.first, 9)  # and all of its namespace with it
        self._process.wait(60)
        ends = time.monotonic() + 20
        while self._groups and time.monotonic() < ends:
            self._groups = [group for group in self._groups if not _removed(group)]

    @property
    def first(self) -> int:
        """The first process of the namespace, as it is seen from outside; 0 where there is none yet."""
        assert self._process is not None
        found = self._process.pid
        for _ in ("timeout", "unshare"):
            try:
                children = Path(f"/proc/{found}/task/{found}/children").read_text().split()
            except OSError:
                return 0
            if not children:
                return 0
            found = int(children[0])
        return found

    def inside(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command among the processes of that system."""
        enter = ["nsenter", "-t", str(self.first), "--mount", "--pid", "--net", "--ipc"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60, **options)

    def fact(self, name: str, unit: str = "smtpd_core.service") -> str:
        return self.inside("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def wait_for(self, name: str, value: str, seconds: float = 60.0) -> None:
        """Until the service has come so far."""
        ends = time.monotonic() + seconds
        while (now := self.fact(name)) != value:
            assert time.monotonic() < ends, f"{name} is {now!r}, not {value!r}:\n{self.said()}"
            time.sleep(0.1)

    def python(self, program: str) -> str:
        """What a program of a client prints there."""
        done = self.inside("/opt/smtpd_core/bin/python", "-c", program)
        assert done.returncode == 0, f"{done.stderr}\n{self.said()}"
        return done.stdout

    def said(self) -> str:
        """What service and system have to say."""
        files = [self.place / "boot", self.place / "output"]
        return "\n".join(file.read_text(errors="replace")[-4000:] for file in files if file.exists())


def _own_control_groups() -> list[Path]:
    """A group for this system in every hierarchy, so that nothing of ours is moved or counted with it."""
    made = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if not kind.startswith("cgroup"):
            continue
        group = Path(fields.split()[4]) / f"smtpd-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            assert "cgroup2" not in kind, f"{shlex.quote(str(group))}: {error}"
            continue
        made.append(group)
    return made


def _removed(group: Path) -> bool:
    """Deepest first; what still has processes is not empty."""
    try:
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()
    except OSError:
        time.sleep(0.1)
        return not group.exists()
    return True
