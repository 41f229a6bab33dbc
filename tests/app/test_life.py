"""A daemon's life: ready lines, signals, reload, supervisors, privileges, and what it says when it can't start."""

from __future__ import annotations

import os
import pwd
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from certs.issue import self_signed
from smtpd_core.app.first_mail import how_to_send
from smtpd_core.app.settings import EMBEDDED, Domain
from smtpd_core.net.notify import Supervisor
from tests.app.daemon import ROOT, DaemonProcess

CONFIG = """
hostname = "mx.our.test"
[[listener]]
bind = "127.0.0.1:0"
[domains."our.test"]
users = ["ann"]
deliver = "maildir:{state}/mail"
"""


def configured(tmp_path: Path, more: str = "") -> tuple[Path, DaemonProcess]:
    state = tmp_path / "state"
    config = tmp_path / "smtpd.toml"
    config.write_text(CONFIG.replace("{state}", str(state)) + more)
    return config, DaemonProcess(state, "--config", str(config), listen="")


def rcpt(daemon: DaemonProcess, address: str) -> int:
    with smtplib.SMTP(*daemon.address, timeout=60) as client:
        client.ehlo("probe.test")
        client.mail("eve@far.test")
        return client.rcpt(address)[0]


def test_it_says_where_it_listens_and_how_to_send_a_first_mail(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path / "state") as daemon:
        said = daemon.output.read_text()
        assert said.startswith(f"listening mx 127.0.0.1:{daemon.address[1]}\n")
        assert "send --to you@example.test" in said and "swaks" in said and "smtplib" in said
        assert f"it will lie in {daemon.state}/mail/new" in said
        program = next(line for line in said.splitlines() if "import smtplib" in line)
        subprocess.run(program, shell=True, check=True, cwd=tmp_path)
        assert b"Subject: hello" in daemon.wait_for(1)[0].read_bytes()


def test_where_it_will_lie_is_where_it_lies(tmp_path: Path) -> None:
    """It said `{domain}/{user}`, and nothing of where an alias leads."""
    config = tmp_path / "smtpd.toml"
    config.write_text(
        'listener = [{ bind = "127.0.0.1:0" }]\n[domains."our.test"]\nusers = "accounts"\n'
        f'aliases = {{ postmaster = ["ann+first", "bob"] }}\n[accounts]\nstore = "file:{tmp_path}/users.toml"\n'
    )
    for name in ("ann", "bob"):
        words = [sys.executable, "-m", "smtpd_core", "user", "add", name, "--config", str(config)]
        subprocess.run(words, input=b"secret\n", check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    with DaemonProcess(tmp_path / "state", "--config", str(config), listen="") as daemon:
        said = daemon.output.read_text()
        program = next(line for line in said.splitlines() if "import smtplib" in line)
        subprocess.run(program, shell=True, check=True, cwd=tmp_path)
        for name in ("ann", "bob"):
            assert f"it will lie in {daemon.state}/mail/our.test/{name}/new\n" in said
            assert daemon.wait_for(1, folder=f"mail/our.test/{name}")


def test_what_it_prints_can_be_pasted_for_ipv6_and_from_a_directory_with_a_space(tmp_path: Path) -> None:
    place = tmp_path / "a place"
    (place / "bin").mkdir(parents=True)
    python = place / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = "\n".join(how_to_send(EMBEDDED, [("mx", "[::]:2525")]))
    assert "smtplib.SMTP('::1', 2525)" in told and "--server [::1]:2525" in told
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        patch.chdir(place)
        told = "\n".join(how_to_send(EMBEDDED, [("mx", "127.0.0.1:2525")]))
    assert told.count(f"'{python}' -") == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "no-such-host.invalid:0"], "listener no-such-host.invalid:0: "),
        (["--listen", f"{'a' * 70}.test:0"], "listener[1].bind: "),
        (["--listen", "127.0.0.1:0", "--state", "/proc/state"], "state: /proc/state can't be made: No such file"),
    ],
)
def test_a_start_that_can_not_be_names_the_setting(tmp_path: Path, arguments: list[str], reason: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "serve", "--state", str(tmp_path / "state"), *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert reason in done.stderr.decode() and b"Traceback" not in done.stderr


def test_hup_takes_over_new_settings_and_sessions_go_on(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path)
    with daemon, smtplib.SMTP(*daemon.address, timeout=60) as session:
        session.ehlo("probe.test")
        session.mail("eve@far.test")
        assert session.rcpt("bob@our.test")[0] == 550
        daemon.wait_for_log("<bob@our.test> from 127.0.0.1 refused: 550 5.1.1")
        config.write_text(config.read_text().replace('["ann"]', '["ann", "bob"]') + "[limits]\nmax_recipients = 100")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        assert session.rcpt("bob@our.test")[0] == 250, "a session that was open follows the new rules"
        assert rcpt(daemon, "bob@our.test") == 250


def test_hup_without_a_change_has_nothing_to_say(tmp_path: Path) -> None:
    """The limit of connections that the system holds was taken for a change of the setting."""
    _, daemon = configured(tmp_path)
    with daemon:
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        assert "needs a restart" not in daemon.log.read_text()


def test_hup_with_a_bad_configuration_changes_nothing(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path)
    with daemon:
        config.write_text(config.read_text() + "\n[limmits]\n")
        daemon.signal(signal.SIGHUP)
        line = daemon.wait_for_log("reload refused")
        assert f"{config}: limmits: unknown setting; did you mean limits?" in line
        assert rcpt(daemon, "ann@our.test") == 250


def test_hup_changes_the_guard_and_opens_no_second_chance_for_the_old_one(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path)
    before = config.read_text()
    with daemon:
        assert rcpt(daemon, "ann@our.test") == 250
        config.write_text(before + '[guard]\nblock = ["127.0.0.0/8"]\n')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        with pytest.raises(smtplib.SMTPConnectError, match="554"):
            smtplib.SMTP(*daemon.address, timeout=60)
        assert "guard.block needs a restart" not in daemon.log.read_text()


def test_hup_may_move_both_bounds_of_the_threads_at_once(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path, "[threads]\nmin = 8\nmax = 16\n")
    with daemon:
        config.write_text(config.read_text().replace("min = 8\nmax = 16", "min = 2\nmax = 4"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        config.write_text(config.read_text().replace("min = 2\nmax = 4", "min = 20\nmax = 30"))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.log.read_text().count("reloaded") == 2, daemon)


def test_a_reload_that_the_server_refuses_changes_nothing(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    store_password(users, "ann")
    section = f'[accounts]\nstore = "file:{users}"\n'
    config, daemon = configured(tmp_path, section)
    config.write_text(config.read_text().replace("[domains", 'auth = "offered"\n[domains'))
    with daemon:
        shown = offered(daemon)
        changed = config.read_text().replace(section, section + 'mechanisms = ["CRAM-MD5"]\n')
        config.write_text(changed.replace('["ann"]', '["ann", "bob"]') + "[limits]\nmax_recipients = 150\n")
        daemon.signal(signal.SIGHUP)
        assert "CRAM-MD5" in daemon.wait_for_log("reload refused")
        assert offered(daemon) == shown
        assert rcpt(daemon, "bob@our.test") == 550


def store_password(users: Path, name: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "smtpd_core", "user", "add", name, "--store", f"file:{users}"],
        input=b"correct horse\n",
        cwd=ROOT,
        check=True,
    )


def offered(daemon: DaemonProcess) -> tuple[str, str]:
    """What EHLO shows of AUTH and LIMITS after STARTTLS."""
    with smtplib.SMTP(*daemon.address, timeout=60) as client:
        client.starttls(context=ssl._create_unverified_context())
        client.ehlo()
        return client.esmtp_features["auth"], client.esmtp_features["limits"]


def wait_until(holds: Callable[[], bool], daemon: DaemonProcess) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(0.02)  # facts of another process


def test_it_misbehaves_as_it_is_told(tmp_path: Path) -> None:
    faults = ["--fault", "RCPT to=*@full.test reply 452 times=1", "--fault", "content to=*@late.test reply 451"]
    with DaemonProcess(tmp_path / "state", *faults) as daemon:
        assert rcpt(daemon, "ann@full.test") == 452
        assert rcpt(daemon, "ann@full.test") == 250
        with smtplib.SMTP(*daemon.address, timeout=60) as client:
            with pytest.raises(smtplib.SMTPDataError, match="451"):
                client.sendmail("eve@far.test", ["ann@late.test"], "Subject: refused\r\n\r\n")
            client.sendmail("eve@far.test", ["ann@good.test"], "Subject: taken\r\n\r\n")
        assert b"Subject: taken" in daemon.wait_for(1)[0].read_bytes()
        daemon.stop()
        assert len(daemon.mails()) == 1, "what was refused on purpose is not delivered"
        assert "misbehaves on purpose: RCPT to=*@full.test reply 452 times=1" in daemon.log.read_text()


def test_it_misbehaves_in_the_handshake(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path / "state", "--fault", "HANDSHAKE close times=1") as daemon:
        with smtplib.SMTP(*daemon.address, timeout=60) as client:
            with pytest.raises(OSError):
                client.starttls()
            client.close()
        with smtplib.SMTP(*daemon.address, timeout=60) as client:
            assert client.starttls()[0] == 220 and client.noop()[0] == 250


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("HANDSHAKE certificate expired", "serve shows what tls.certificate says"),
        ("RCPT drop SIZE", "drop is for EHLO, not for RCPT"),
        ("magic", "a domain is due"),
        ("RPCT reply 452", "did you mean RCPT?"),
        ("RCPT reply 99", "99"),
        ("RCPT 'reply", "no closing quotation"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(fault: str, reason: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smtpd_core", "serve", "--state", str(tmp_path / "state"), "--fault", fault],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2 and reason in done.stderr.decode(), done.stderr.decode()


def test_the_log_tells_who_came_and_how_a_session_ended(tmp_path: Path) -> None:
    _, daemon = configured(tmp_path, '[log]\nlevel = "debug"\n')
    with daemon:
        with smtplib.SMTP(*daemon.address, timeout=60) as client:
            client.noop()
        daemon.wait_for_log("connected to mx")
        daemon.wait_for_log("is gone: ended; 0 messages")
        with socket.create_connection(daemon.address) as visitor:
            assert visitor.recv(100).startswith(b"220 ")  # what is closed unread is a reset
        assert " INFO " in daemon.wait_for_log("is gone: closed by the client")


def test_each_listener_offers_its_own_mechanisms(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    store_password(users, "ann")
    config = tmp_path / "smtpd.toml"
    config.write_text(
        f"""
        accounts = {{ store = "file:{users}" }}
        listener = [
            {{ bind = "127.0.0.1:0", auth = "offered", mechanisms = ["LOGIN"] }},
            {{ bind = "127.0.0.1:0", auth = "offered" }},
        ]
        """
    )
    with DaemonProcess(tmp_path / "state", "--config", str(config), listen="") as daemon:
        shown = []
        for _, text in daemon.listening:
            with smtplib.SMTP(text, timeout=20) as client:
                client.starttls(context=ssl._create_unverified_context())
                client.ehlo()
                shown.append(client.esmtp_features["auth"].split())
    assert shown[0] == ["LOGIN"]
    assert "PLAIN" in shown[1]


def test_hup_names_what_needs_a_restart(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path)
    with daemon:
        config.write_text('pid_file = "other"\n' + config.read_text().replace("127.0.0.1:0", "127.0.0.1:1"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        assert "listener.bind needs a restart and keeps its old value: sockets are bound" in daemon.log.read_text()
        assert "pid_file needs a restart" in daemon.log.read_text()
        assert rcpt(daemon, "ann@our.test") == 250


def test_hup_serves_a_new_certificate_without_closing_anything(tmp_path: Path) -> None:
    from certs.files import Pair, write_pair

    def renew() -> None:
        write_pair(Pair(*self_signed(["mx.our.test"])), tmp_path / "certificate.pem", tmp_path / "key.pem")

    def shown(daemon: DaemonProcess) -> bytes | None:
        with smtplib.SMTP(*daemon.address, timeout=60) as client:
            client.starttls(context=ssl._create_unverified_context())
            return client.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]

    renew()
    _, daemon = configured(tmp_path, f'[tls]\ncertificate = "{tmp_path}/certificate.pem"\nkey = "{tmp_path}/key.pem"\n')
    with daemon, smtplib.SMTP(*daemon.address, timeout=60) as session:
        session.starttls(context=ssl._create_unverified_context())
        before = shown(daemon)
        renew()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        assert shown(daemon) not in (before, None)
        assert session.noop()[0] == 250


def test_a_second_term_ends_at_once(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "state")
    daemon.start()
    with smtplib.SMTP(*daemon.address, timeout=60) as busy:
        busy.ehlo("probe.test")
        busy.mail("eve@far.test")
        busy.rcpt("ann@our.test")
        busy.putcmd("data")
        busy.getreply()
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("stopping")
        daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        began = time.monotonic()
        assert daemon.process.wait(60) != 0
        assert time.monotonic() - began < 20, "draining would have waited for the client, for 30 seconds"
        busy.close()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = refused("--listen", address, "--state", str(tmp_path / "state"))
    assert done.returncode == 1 and address in done.stderr and "in use" in done.stderr


def test_two_servers_on_one_state_directory_are_refused(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path / "state"):
        done = refused("--listen", "127.0.0.1:0", "--state", str(tmp_path / "state"))
    assert done.returncode == 1 and "another server uses this directory" in done.stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[[listener]]\nauth = 'offered'\n[accounts]\nstore = 'file:/no/such.toml'", "accounts.store: "),
        ("[[listener]]\n[tls]\ncertificate = '/etc/passwd'", "/etc/passwd"),
        ("user = 'no-such-user'\n[[listener]]\nbind = '127.0.0.1:0'", "there is no user 'no-such-user'"),
    ],
)
def test_what_can_not_be_served_is_refused_with_the_reason(tmp_path: Path, config: str, said: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(f'state = "{tmp_path}/state"\n{config}')
    done = refused("--config", str(file))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smtpd_core", "serve", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_supervisor_hears_ready_reloading_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(60)
        daemon = DaemonProcess(tmp_path / "state")
        daemon.start({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
        assert supervisor.recv(1000).startswith(b"READY=1\nMAINPID=")
        assert supervisor.recv(1000) == b"WATCHDOG=1"
        daemon.signal(signal.SIGHUP)
        heard = [supervisor.recv(1000)]
        while heard[-1] != b"READY=1":
            heard.append(supervisor.recv(1000))
        assert any(one.startswith(b"RELOADING=1\nMONOTONIC_USEC=") for one in heard)
        assert daemon.stop() == 0
        while heard[-1] != b"STOPPING=1":
            heard.append(supervisor.recv(1000))


def test_a_socket_that_systemd_opened_is_served(tmp_path: Path) -> None:
    """LISTEN_FDS: the sockets are descriptor 3 and up, LISTEN_PID is the process."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        port = opened.getsockname()[1]
        there = opened.fileno()
        move = f"exec 3<&{there} {there}<&-; " if there != 3 else ""
        start = move + 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp exec "$@"'
        daemon = DaemonProcess(tmp_path / "state", listen="fd:smtp", wrapper=("bash", "-c", start, "bash"))
        daemon.start(descriptors=(there,))
        try:
            assert daemon.listening == [("mx", f"127.0.0.1:{port}")]
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                assert client.noop()[0] == 250
        finally:
            assert daemon.stop() == 0


def test_the_pid_file_holds_the_process_and_goes_with_it(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path)
    config.write_text(f'pid_file = "{tmp_path}/pid"\n' + config.read_text())
    with daemon:
        assert daemon.process is not None
        assert (tmp_path / "pid").read_text() == f"{daemon.process.pid}\n"
    assert not (tmp_path / "pid").exists()


def test_the_pid_file_of_a_server_that_runs_is_no_other_servers(tmp_path: Path) -> None:
    """A second server that could not start took the first one's file away."""
    config, daemon = configured(tmp_path)
    (tmp_path / "pid").write_text("999999999 of a server that was killed\n")
    config.write_text(f'pid_file = "{tmp_path}/pid"\n' + config.read_text())
    with daemon:
        assert daemon.process is not None
        done = subprocess.run(daemon.command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
        there = f"pid_file: {tmp_path}/pid is held by a server that runs, process {daemon.process.pid}\n"
        assert (done.returncode, done.stderr.decode()) == (1, f"smtpd_core: {there}")
        assert (tmp_path / "pid").read_text() == f"{daemon.process.pid}\n"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter; tmp_path lies in one that each run of pytest closes again for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_privileges_are_given_up_once_the_port_is_bound(open_folder: Path) -> None:
    config, daemon = configured(open_folder)
    config.write_text('user = "nobody"\n' + config.read_text())
    with daemon:
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert set(uids) == {nobody}
        with smtplib.SMTP(*daemon.address, timeout=60) as client:
            client.sendmail("eve@far.test", ["ann@our.test"], "Subject: x\r\n\r\nx\r\n")
        mail = daemon.wait_for(1)[0]
        assert mail.stat().st_uid == int(nobody) and mail.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_unix_socket_that_can_not_be_removed_holds_up_no_stop(open_folder: Path, processes: int) -> None:
    """Its directory is root's, as /run is: the leading thread ended with PermissionError, and the stop never did."""
    config, daemon = configured(open_folder, f"[threads]\nprocesses = {processes}\n")
    path = open_folder / "lmtp.sock"
    listener = f'[[listener]]\nbind = "unix:{path}"\nservice = "lmtp"\n'
    config.write_text('user = "nobody"\n' + config.read_text() + listener)
    for _ in range(2):  # what is left is replaced
        with daemon:
            assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid, "its own user may connect"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                assert client.recv(100).startswith(b"220 ")
            assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("end", ["full", "closed"])
def test_streams_that_nobody_reads_neither_end_a_server_nor_hold_it_up(
    tmp_path: Path, end: str, stream: str, processes: int
) -> None:
    """It ended where it could not say how to send a first mail, and waited for ever, TERM or not, where the pipe was
    full."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config, daemon = configured(tmp_path, f"[threads]\nprocesses = {processes}\n")
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    reader = None
    if end == "full":
        reader, writer = full_pipe()
    else:
        gone, writer = os.pipe()
        os.close(gone)
    with open(tmp_path / "other", "wb") as other:
        streams = {"stdout": other, "stderr": other} | {stream: writer}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(daemon.command, env=environment, **streams)  # type: ignore[call-overload]
    os.close(writer)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                    client.sendmail("eve@far.test", ["ann@our.test"], "Subject: x\r\n\r\nx\r\n")
                break
            except ConnectionRefusedError:
                assert process.poll() is None, f"it ended with {process.returncode}"
                assert time.monotonic() < deadline
                time.sleep(0.05)  # another process's port
        daemon.wait_for(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "Traceback" not in (tmp_path / "other").read_text()
    finally:
        process.kill()
        process.wait()
        if reader is not None:
            os.close(reader)


def test_an_aliases_file_that_goes_away_after_the_start_ends_no_server_that_only_says_where_mail_lies(
    tmp_path: Path,
) -> None:
    domains = {"our.test": Domain(users=("ann",), aliases_file=str(tmp_path / "gone"))}
    told = "\n".join(how_to_send(replace(EMBEDDED, domains=domains), [("mx", "127.0.0.1:2525")]))
    assert "send --to ann@our.test" in told


@pytest.mark.parametrize("processes", [1, 2])
def test_a_reload_from_a_pipe_that_nobody_writes_into_waits_for_nobody(tmp_path: Path, processes: int) -> None:
    """It waited for a writer, and heard no TERM meanwhile."""
    config, daemon = configured(tmp_path, f"[threads]\nprocesses = {processes}\n")
    with daemon:
        config.unlink()
        os.mkfifo(config)
        daemon.signal(signal.SIGHUP)
        assert "listener: no [[listener]] is given" in daemon.wait_for_log("reload refused")
        assert daemon.stop() == 0


def test_a_configuration_may_come_from_a_program(tmp_path: Path) -> None:
    config, daemon = configured(tmp_path)
    daemon.command = ["bash", "-c", f'exec "$@" --config <(sleep 0.2; cat {config})', "bash", *daemon.command[:-2]]
    with daemon:
        assert rcpt(daemon, "ann@our.test") == 250


@pytest.mark.parametrize("microseconds", ["-5", "many"])
def test_a_watchdog_that_means_nothing_is_none(microseconds: str) -> None:
    """Below 0 the main thread ended where it was to wait for signals."""
    assert Supervisor({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": microseconds}).watchdog == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_on_a_full_disk_names_the_state_directory(tmp_path: Path, processes: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", state], capture_output=True).returncode:
        pytest.skip("a small file system can't be mounted here")
    try:
        with (state / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        _, daemon = configured(tmp_path, f"[threads]\nprocesses = {processes}\n")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(daemon.command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert f"state: {state}: No space left on device" in done.stderr and "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", "-l", state], check=True)


def test_hup_while_it_ends_does_not_end_it_otherwise() -> None:
    """In the last moments of a stop, when the interpreter has let go of its signals, it ended with HUP."""
    script = """
import os, subprocess, sys
from smtpd_core.app.life import Signals
signals = Signals()
signals.end_at_once()
nowhere = subprocess.DEVNULL
again = "while kill -HUP %d; do :; done" % os.getpid()
subprocess.Popen(["sh", "-c", again], stdout=nowhere, stderr=nowhere)
print("ends", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ends\n")
