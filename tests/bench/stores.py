"""Peers that sync before their 250: Postfix and OpenSMTPD, each with a configuration and queue in the scratch folder.

Both need root. OpenSMTPD has its queue folder compiled in (/var/spool/smtpd), so a system where it serves already is
left alone: it counts as not installed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PATH = "/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")


def postfix(port: int, folder: Path) -> list[str] | None:
    """A Postfix instance of its own that accepts everything and discards it after queueing."""
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
default_transport = discard
relay_transport = discard
smtpd_client_connection_count_limit = 0
smtpd_recipient_limit = 1000
message_size_limit = 104857600
"""
    )
    master = Path("/etc/postfix/master.cf.proto").read_text()
    (config / "master.cf").write_text(master.replace("\nsmtp      inet", f"\n127.0.0.1:{port} inet", 1))
    return [program, "-c", str(config), "start-fg"]


def opensmtpd(port: int, folder: Path) -> list[str] | None:
    """OpenSMTPD that accepts everything and has deliveries paused."""
    program = shutil.which("smtpd", path=PATH)
    if program is None or os.geteuid() != 0 or Path("/var/run/smtpd.sock").exists():
        return None
    config = folder / "smtpd.conf"
    config.write_text(
        f"smtp limit max-mails 1000000\nlisten on 127.0.0.1 port {port}\n"
        'action "keep" relay host smtp://127.0.0.1:1\nmatch from any for any action "keep"\n'
    )
    return [program, "-d", "-P", "mta", "-f", str(config)]
