"""OpenSMTPD from its unpacked package: the command that starts it with its queue in a folder and its deliveries paused.
It looks nothing up in DNS: where a name server does not answer, each connection costs it five seconds otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.namespace import in_a_namespace, with_accounts
from tests.support.unpacked import OPENSMTPD

# In the namespace only.
USERS = {"opensmtpd": 64996, "opensmtpq": 64997}


def command(folder: Path, settings: str) -> list[str] | None:
    """`settings` are all of its smtpd.conf but the action "keep". None where it is not unpacked or this is not root."""
    program = OPENSMTPD.program()
    if program is None or os.geteuid() != 0:
        return None
    folder.chmod(0o755)
    for name in ("spool", "run", "lib/empty"):
        (folder / name).mkdir(parents=True)
    (folder / "spool").chmod(0o711)
    (folder / "resolv.conf").write_text("lookup file\nnameserver 127.0.0.1\n")
    config = folder / "smtpd.conf"
    config.write_text(f'action "keep" relay host smtp://127.0.0.1:1\n{settings}')
    mounts = {
        "spool": "/var/spool/smtpd",
        "run": "/run",
        "lib": "/var/lib/opensmtpd",
        "resolv.conf": "/etc/resolv.conf",
        **with_accounts(folder, USERS),
    }
    for needed in (mounts["spool"], mounts["lib"]):
        Path(needed).mkdir(parents=True, exist_ok=True)
    return in_a_namespace(folder, mounts, [str(program), "-d", "-P", "mta", "-f", str(config)])
