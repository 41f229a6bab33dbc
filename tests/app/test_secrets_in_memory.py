"""What somebody learns who gets hold of the daemon's memory: no core file is written, and no password is held."""

from __future__ import annotations

import base64
import json
import os
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from smtpd_core.accounts import Account
from smtpd_core.accounts.entry import Entry, stored_forms
from smtpd_core.accounts.opening import open_editable
from smtpd_core.wire.sasl.client import Credentials
from smtpd_core.wire.sasl.client import mechanism as client_side
from tests.app.daemon import ROOT, DaemonProcess
from tests.support import memory

pytestmark = pytest.mark.skipif(not memory.CAN_BE_LOOKED_AT, reason="looks into a process as Linux and glibc have it")

CONFIG = """\
hostname = "mx.test"
core_dumps = {core_dumps}
[threads]
processes = {processes}
[[listener]]
bind = "127.0.0.1:0"
service = "submission"
tls = "explicit-allow"
auth = "required"
[accounts]
store = "{store}"
cleartext_without_tls = true
[guard]
login_delay = {delay}
[domains."mx.test"]
"""
SHOWN = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER")
MECHANISMS = (*SHOWN, "SCRAM-SHA-1", "SCRAM-SHA-256")


@pytest.fixture
def authority() -> Iterator[str]:
    """Knows the tokens that begin with "good"."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            token = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["token"][0]
            told = json.dumps({"active": token.startswith("good"), "sub": "ann"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/ask"
    server.shutdown()
    server.server_close()


def config(folder: Path, store: str, *, core_dumps: bool = False, processes: int = 1, delay: int = 0) -> str:
    path = folder / "smtpd.toml"
    path.write_text(CONFIG.format(store=store, core_dumps=str(core_dumps).lower(), processes=processes, delay=delay))
    return str(path)


def people(folder: Path, password: str) -> str:
    url = f"file:{folder}/users.toml"
    kinds = ("password", "scram-sha-1", "scram-sha-256")
    open_editable(url, may_make=True).add(Entry(Account("ann"), stored_forms(password, kinds)))
    return url


def begin(client: smtplib.SMTP, name: str, secret: str) -> int:
    """One log-in up to its last line; the code of what was answered before that, 0 where nothing was."""
    one = client_side(name, Credentials("ann", "" if "OAUTH" in name else secret, secret if "OAUTH" in name else ""))
    first = one.first()
    line = f"AUTH {name}" + (f" {base64.b64encode(first).decode()}" if first is not None else "")
    rounds = {"LOGIN": 2, "SCRAM-SHA-1": 2, "SCRAM-SHA-256": 2}.get(name, 0)
    for _ in range(rounds):
        code, told = client.docmd(line)
        if code != 334:
            return code
        line = base64.b64encode(one.respond(base64.b64decode(told))).decode()
    client.putcmd(line)
    return 0


@pytest.mark.parametrize("tls", [False, True], ids=["in the open", "under TLS"])
def test_nothing_holds_a_password_or_token_once_it_was_judged(tmp_path: Path, authority: str, tls: bool) -> None:
    """Right ones while the session goes on, and wrong ones while their answer is delayed."""
    pytest.importorskip("urllib3")
    right = "goodHorse9Battery7Staple"
    given = ("--config", config(tmp_path, f"{people(tmp_path, right)} | introspect:{authority}", delay=16))
    daemon, clients = DaemonProcess(tmp_path / "state", *given, listen=""), []
    daemon.start(memory.IN_SIGHT)
    try:
        assert daemon.process is not None
        for number, name in enumerate((*MECHANISMS, *SHOWN)):
            is_right = number < len(MECHANISMS)
            client = smtplib.SMTP(*daemon.address, timeout=60)
            clients.append(client)
            if tls:
                client.starttls()
            client.ehlo()
            secret = right if is_right else f"wrongPony{number}Harness5Saddle"
            assert begin(client, name, secret) == 0
            if is_right:
                code = client.getreply()[0]
                while code == 334:
                    code = client.docmd("")[0]
                assert code == 235, name
            elif "OAUTH" in name:
                assert client.getreply()[0] == 334
                client.putcmd("")
        wrong = [f"wrongPony{number}Harness5Saddle" for number in range(len(MECHANISMS), len(MECHANISMS) + len(SHOWN))]
        kept, deadline = {right}, time.monotonic() + 10  # long before the wrong ones are answered
        while kept and time.monotonic() < deadline:  # until the last of them was judged
            kept = memory.found(daemon.process.pid, [right, *wrong])
        assert not kept
        assert memory.found(daemon.process.pid, [str(tmp_path / "users.toml")]), "what is held can be found"
    finally:
        for client in clients:
            client.close()
        daemon.stop()


def processes_of(master: int) -> list[int]:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def limits_of_core_files(process: int) -> list[str]:
    """The soft one and the hard one."""
    lines = Path(f"/proc/{process}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core file size"))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("allowed", [False, True], ids=["by default", "where the settings say so"])
def test_the_system_writes_no_core_file(tmp_path: Path, allowed: bool, processes: int) -> None:
    given = config(tmp_path, people(tmp_path, "correct horse"), core_dumps=allowed, processes=processes)
    unlimited = ("sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"', "sh")
    with DaemonProcess(tmp_path / "state", "--config", given, listen="", wrapper=unlimited) as daemon:
        assert daemon.process is not None
        for process in processes_of(daemon.process.pid):
            soft, hard = limits_of_core_files(process)
            assert soft == (hard if allowed else "0")


DIES = """\
import ctypes, os, sys
from smtpd_core.app import core_dumps
if sys.argv[1] == "forbid":
    core_dumps.forbid()
child = os.fork()
if child == 0:
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
    os.abort()
status = os.waitpid(child, 0)[1]
print(os.WTERMSIG(status), os.WCOREDUMP(status))
"""


def test_a_process_that_crashes_leaves_no_core_file(tmp_path: Path) -> None:
    for word, dumpable in (("forbid", "0"), ("allow", "1")):
        told = subprocess.run(
            ["sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"', "sh", sys.executable, "-c", DIES, word],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        first, second = told.stdout.splitlines()
        assert first == dumpable
        assert word == "allow" or second == f"{signal.SIGABRT.value} False"
        assert word == "allow" or not [one for one in tmp_path.iterdir() if one.name.startswith("core")]


@pytest.mark.debian("gdb")
def test_a_core_file_that_an_administrator_takes_all_the_same_has_no_password(tmp_path: Path) -> None:
    password = "correct4Horse5Battery6"
    given = config(tmp_path, people(tmp_path, password), core_dumps=True)
    daemon = DaemonProcess(tmp_path / "state", "--config", given, listen="")
    daemon.start(memory.IN_SIGHT)
    try:
        assert daemon.process is not None
        for name in ("PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256"):
            with smtplib.SMTP(*daemon.address, timeout=60) as client:
                client.starttls()
                client.ehlo()
                assert begin(client, name, password) == 0
                code = client.getreply()[0]
                assert (client.docmd("")[0] if code == 334 else code) == 235
        taken = subprocess.run(
            ["gcore", "-o", str(tmp_path / "core"), str(daemon.process.pid)], capture_output=True, timeout=120
        )
        assert taken.returncode == 0, taken.stderr
    finally:
        daemon.stop()
    core = Path(f"{tmp_path}/core.{daemon.process.pid}").read_bytes()
    assert str(tmp_path / "users.toml").encode() in core
    assert not [form for form in memory.spellings(password) if form in core]
