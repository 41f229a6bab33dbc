"""A real slapd, a real PostgreSQL and a real MariaDB on loopback, for as long as a test wants them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {folder}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
{more}database mdb
suffix "dc=example,dc=test"
rootdn "cn=root,dc=example,dc=test"
rootpw rootsecret
directory {folder}/data
maxsize 10485760
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""
POSTGRES = Path("/usr/lib/postgresql")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def slapd(ldif: str, certificate: Path | None = None) -> Iterator[str]:
    """A directory with these entries; its URL. `certificate` (with key, PEM) is for STARTTLS."""
    program = shutil.which("slapd", path=os.environ["PATH"] + ":/usr/sbin")
    assert program, "slapd is missing"
    more = ""
    if certificate is not None:
        names = ("TLSCACertificateFile", "TLSCertificateFile", "TLSCertificateKeyFile")
        more = "".join(f"{name} {certificate}\n" for name in names)
    with tempfile.TemporaryDirectory(prefix="slapd-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "slapd.conf").write_text(SLAPD_CONF.format(folder=folder, more=more))
        (folder / "people.ldif").write_text(ldif)
        subprocess.run(
            [program, "-T", "add", "-f", folder / "slapd.conf", "-l", folder / "people.ldif"],
            check=True,
            capture_output=True,
        )
        url = f"ldap://127.0.0.1:{free_port()}"
        server = subprocess.Popen(
            [program, "-f", str(folder / "slapd.conf"), "-h", url, "-d", "stats"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stderr is not None
        try:
            if not any("slapd starting" in line for line in server.stderr):
                pytest.fail("slapd did not start")
            with subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL):
                try:
                    yield url
                finally:
                    server.terminate()
        finally:
            server.kill()
            server.wait()


def postgres_programs() -> Path | None:
    versions = sorted(POSTGRES.glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@contextmanager
def postgres() -> Iterator[str]:
    """An empty database; its URL. PostgreSQL refuses to run as root, so the packaged user runs it then."""
    programs = postgres_programs()
    assert programs, "postgresql is missing"
    as_root = os.geteuid() == 0
    options = {"user": "postgres", "group": "postgres"} if as_root else {}
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        if as_root:
            owner = pwd.getpwnam("postgres")
            os.chown(name, owner.pw_uid, owner.pw_gid)
        data, port = f"{name}/data", free_port()
        run = {"check": True, "capture_output": True, "cwd": name, **options}
        subprocess.run([programs / "initdb", "-D", data, "-U", "mail", "-A", "trust", "-N"], **run)  # type: ignore[call-overload]
        subprocess.run(
            [programs / "pg_ctl", "-D", data, "-w", "-l", f"{name}/log", "-o",
             f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {name}", "start"],
            **run,
        )  # type: ignore[call-overload]  # fmt: skip
        try:
            yield f"postgresql://mail:unused@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **run)  # type: ignore[call-overload]


def is_here(program: str) -> bool:
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is not None


@contextmanager
def mariadb() -> Iterator[str]:
    """An empty database; its URL."""
    with tempfile.TemporaryDirectory(prefix="maria-") as name:
        user = [f"--user={pwd.getpwuid(os.geteuid()).pw_name}"]
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={name}/data", *user, "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, capture_output=True,
        )  # fmt: skip
        port = free_port()
        server = subprocess.Popen(
            ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={name}/data", f"--port={port}", *user,
             "--bind-address=127.0.0.1", f"--socket={name}/socket", f"--pid-file={name}/pid", "--skip-log-bin",
             "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stderr is not None
        try:
            if not any("ready for connections" in line for line in server.stderr):
                pytest.fail("mariadbd did not start")
            with subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL):
                yield f"mysql://root@127.0.0.1:{port}/mysql"
                server.terminate()
                server.wait(30)
        finally:
            server.kill()
            server.wait()
