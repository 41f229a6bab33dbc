"""A real slapd and a real PostgreSQL on loopback, for as long as a test wants them."""

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
database mdb
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
def slapd(ldif: str) -> Iterator[str]:
    """A directory with these entries; its URL."""
    program = shutil.which("slapd", path=os.environ["PATH"] + ":/usr/sbin")
    assert program, "slapd is missing"
    with tempfile.TemporaryDirectory(prefix="slapd-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "slapd.conf").write_text(SLAPD_CONF.format(folder=folder))
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
