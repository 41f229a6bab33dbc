"""Mail systems as peers: Postfix, OpenSMTPD and Exim, each with its configuration and queue in the scratch folder.

All three sync before their 250, keep every message in their queue and deliver none, so that the queue can be held
against what was accepted. They log each message, as they always do.
OpenSMTPD and Exim run in a mount namespace of their own, in which the paths and accounts that are compiled into them
lie in the scratch folder: the machine needs neither, and keeps its own. Both look nothing up in DNS there: on a machine
whose name server does not answer, each connection costs them five seconds a look-up otherwise.
Not here: reading what they stored (stored.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from tests.bench.install import exim_program, opensmtpd_program

PATH = "/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")
# Accounts in the namespace only, so any free number will do.
EXIM_USER = 64998


def postfix(port: int, folder: Path) -> list[str] | None:
    """A Postfix instance of its own. It holds every message after queueing it."""
    program = shutil.which("postfix", path=PATH)
    if program is None or os.geteuid() != 0 or not Path("/etc/postfix/master.cf.proto").exists():
        return None
    folder.chmod(0o755)
    config = folder / "config"
    config.mkdir()
    for name in ("queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix", "postfix")
    (config / "main.cf").write_text(
        f"""compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/maillog
maillog_file_prefixes = /tmp, /var
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = bench.test
mynetworks = 127.0.0.0/8
mydestination =
smtpd_data_restrictions = check_client_access static:HOLD
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_recipient_limit = 1000
smtpd_tls_security_level = may
smtpd_tls_cert_file = {folder}/tls/self-signed.pem
smtpd_tls_key_file = {folder}/tls/self-signed.key
message_size_limit = 1073741824
mailbox_size_limit = 0
"""
    )
    master = Path("/etc/postfix/master.cf.proto").read_text()
    (config / "master.cf").write_text(master.replace("\nsmtp      inet", f"\n127.0.0.1:{port} inet", 1))
    return [program, "-c", str(config), "start-fg"]


def opensmtpd(port: int, folder: Path) -> list[str] | None:
    """OpenSMTPD with its deliveries paused."""
    program = opensmtpd_program()
    if program is None or os.geteuid() != 0:
        return None
    folder.chmod(0o755)
    for name in ("spool", "run", "lib/empty"):
        (folder / name).mkdir(parents=True)
    (folder / "spool").chmod(0o711)
    for name, extra in (
        ("passwd", "opensmtpd:x:64996:64996::/var/lib/opensmtpd:/bin/false\nopensmtpq:x:64997:64997::/:/bin/false\n"),
        ("group", "opensmtpd:x:64996:\nopensmtpq:x:64997:\n"),
    ):
        known = [line for line in Path("/etc", name).read_text().splitlines(True) if not line.startswith("opensmtp")]
        (folder / name).write_text("".join(known) + extra)
    (folder / "resolv.conf").write_text("lookup file\nnameserver 127.0.0.1\n")
    config = folder / "smtpd.conf"
    config.write_text(
        f'pki bench.test cert "{folder}/tls/self-signed.pem"\npki bench.test key "{folder}/tls/self-signed.key"\n'
        "smtp limit max-mails 1000000\nsmtp limit max-rcpt 1000\nsmtp max-message-size 1G\n"
        f"listen on 127.0.0.1 port {port} tls pki bench.test\n"
        'action "keep" relay host smtp://127.0.0.1:1\nmatch from any for any action "keep"\n'
    )
    for needed in ("/var/spool/smtpd", "/var/lib/opensmtpd"):
        Path(needed).mkdir(parents=True, exist_ok=True)
    mounts = {
        "spool": "/var/spool/smtpd",
        "run": "/run",
        "lib": "/var/lib/opensmtpd",
        **{name: f"/etc/{name}" for name in ("passwd", "group", "resolv.conf")},
    }
    return _in_a_namespace(folder, mounts, [str(program), "-d", "-P", "mta", "-f", str(config)])


def exim(port: int, folder: Path) -> list[str] | None:
    """Exim that queues only."""
    program = exim_program()
    if program is None or os.geteuid() != 0:
        return None
    folder.chmod(0o755)
    for name in ("spool", "exim-log"):
        (folder / name).mkdir()
    shutil.copytree(folder / "tls", folder / "exim-tls")  # read after the account is dropped to
    for owned in (folder / "spool", folder / "exim-log", folder / "exim-tls", *(folder / "exim-tls").iterdir()):
        os.chown(owned, EXIM_USER, EXIM_USER)
    for name, extra in (
        ("passwd", f"Debian-exim:x:{EXIM_USER}:{EXIM_USER}::/:/bin/false\n"),
        ("group", f"Debian-exim:x:{EXIM_USER}:\n"),
    ):
        known = [line for line in Path("/etc", name).read_text().splitlines(True) if not line.startswith("Debian-exim")]
        (folder / name).write_text("".join(known) + extra)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    config = folder / "exim.conf"
    config.write_text(
        f"""primary_hostname = mx.bench.test
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/exim-log/%slog
pid_file_path = {folder}/spool/exim.pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
queue_only
keep_environment =
host_lookup =
helo_lookup_domains =
rfc1413_query_timeout = 0s
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 128
recipients_max = 0
message_size_limit = 1G
tls_certificate = {folder}/exim-tls/self-signed.pem
tls_privatekey = {folder}/exim-tls/self-signed.key
tls_advertise_hosts = *
acl_smtp_rcpt = everyone
begin acl
everyone:
  accept
"""
    )
    mounts = {name: f"/etc/{name}" for name in ("passwd", "group", "resolv.conf")}
    dropped = ["setpriv", f"--reuid={EXIM_USER}", f"--regid={EXIM_USER}", "--clear-groups"]
    return _in_a_namespace(folder, mounts, [*dropped, str(program), "-C", str(config), "-bdf"])


def _in_a_namespace(folder: Path, mounts: dict[str, str], words: list[str]) -> list[str]:
    """The command under which those paths are the folder's, for the processes of this command alone."""
    binds = [f"mount --bind {shlex.quote(str(folder / name))} {shlex.quote(path)}" for name, path in mounts.items()]
    return ["unshare", "--mount", "sh", "-ec", "\n".join([*binds, f"exec {shlex.join(words)}"])]
