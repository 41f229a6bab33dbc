"""Exim from its unpacked package: the command that starts it on a port, with its queue in a folder. It queues only, and
looks nothing up in DNS: where a name server does not answer, each connection costs five seconds a look-up otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.namespace import in_a_namespace, with_accounts
from tests.support.unpacked import EXIM

# In the namespace only.
USER = 64998


def command(port: int, folder: Path, settings: str) -> list[str] | None:
    """`settings` follow those that it can't do without; what they name has to be its account's to read. None where it
    is not unpacked or this is not root."""
    program = EXIM.program()
    if program is None or os.geteuid() != 0:
        return None
    folder.chmod(0o755)
    for name in ("spool", "exim-log"):
        (folder / name).mkdir()
        os.chown(folder / name, USER, USER)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    config = folder / "exim.conf"
    config.write_text(
        f"""exim_user = Debian-exim
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
{settings}"""
    )
    mounts = with_accounts(folder, {"Debian-exim": USER}) | {"resolv.conf": "/etc/resolv.conf"}
    dropped = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return in_a_namespace(folder, mounts, [*dropped, str(program), "-C", str(config), "-bdf"])
