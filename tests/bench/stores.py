"""Mail systems as peers: Postfix, OpenSMTPD and Exim, each with its configuration and queue in the scratch folder.

All three keep every message in their queue and deliver none, so that the queue can be held against what was accepted.
Postfix and Exim sync before their 250; OpenSMTPD, as it comes, moves the message into its queue without a sync. They
log each message, as they always do.
Not here: reading what they stored (stored.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import tests.support.exim
import tests.support.opensmtpd

PATH = "/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")


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
    return tests.support.opensmtpd.command(
        folder,
        f'pki bench.test cert "{folder}/tls/self-signed.pem"\npki bench.test key "{folder}/tls/self-signed.key"\n'
        "smtp limit max-mails 1000000\nsmtp limit max-rcpt 1000\nsmtp max-message-size 1G\n"
        f"listen on 127.0.0.1 port {port} tls pki bench.test\n"
        'match from any for any action "keep"\n',
    )


def exim(port: int, folder: Path) -> list[str] | None:
    """Exim that queues only."""
    words = tests.support.exim.command(
        port,
        folder,
        f"""primary_hostname = mx.bench.test
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
""",
    )
    if words is not None:
        shutil.copytree(folder / "tls", folder / "exim-tls")  # read after the account is dropped to
        for owned in (folder / "exim-tls", *(folder / "exim-tls").iterdir()):
            os.chown(owned, tests.support.exim.USER, tests.support.exim.USER)
    return words
