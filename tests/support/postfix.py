"""A Postfix of its own as a next hop: configuration, queue, data and Maildir under one folder. Root only."""

from __future__ import annotations

import os
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = shutil.which("postfix", path="/usr/sbin:" + os.environ.get("PATH", ""))


class Postfix:
    """`with Postfix() as hop:` serves 127.0.0.1:hop.port for bob@there.test, and nobody else."""

    def __init__(self, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        # Its daemons drop to their own user, who can't look into pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        self._settings = settings

    def __enter__(self) -> Postfix:
        assert PROGRAM is not None, "postfix is not installed"
        self.folder.chmod(0o755)
        config = self.folder / "config"
        for name in ("config", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        for name in ("data", "mail"):
            shutil.chown(self.folder / name, "postfix", "postfix")
        self._write()
        master = Path("/etc/postfix/master.cf.proto").read_text()
        (config / "master.cf").write_text(master.replace("\nsmtp      inet", f"\n127.0.0.1:{self.port} inet", 1))
        command = [PROGRAM, "-c", str(config), "start-fg"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                smtplib.SMTP("127.0.0.1", self.port, timeout=5).quit()
                return self
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.05)  # it has no way to say that it is ready

    def _write(self) -> None:
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": f"{self.folder}/queue",
            "data_directory": f"{self.folder}/data",
            "maillog_file": f"{self.folder}/maillog",
            "maillog_file_prefixes": "/tmp, /var",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "postfix.test",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "virtual_mailbox_domains": "there.test",
            "virtual_mailbox_base": f"{self.folder}/mail",
            "virtual_mailbox_maps": "inline:{bob@there.test=inbox/}",
            "virtual_uid_maps": f"static:{self.folder.joinpath('mail').stat().st_uid}",
            "virtual_gid_maps": f"static:{self.folder.joinpath('mail').stat().st_gid}",
            "virtual_minimum_uid": "1",
            "smtpd_tls_security_level": "none",
            **self._settings,
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "config" / "main.cf").write_text(text)

    def change(self, **settings: str) -> None:
        """Other settings for the connections that come."""
        assert PROGRAM is not None
        self._settings |= settings
        self._write()
        subprocess.run([PROGRAM, "-c", str(self.folder / "config"), "reload"], timeout=30, capture_output=True)

    def __exit__(self, *exception: object) -> None:
        assert PROGRAM is not None
        subprocess.run([PROGRAM, "-c", str(self.folder / "config"), "stop"], timeout=30, capture_output=True)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        path = self.folder / "maillog"
        return path.read_text() if path.exists() else "it wrote no log"

    def mail(self, count: int, holding: bytes = b"") -> list[bytes]:
        """So many messages of the mailbox with this in them, once they are there."""
        deadline = time.monotonic() + 20
        new = self.folder / "mail" / "inbox" / "new"
        while True:
            mails = [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []
            found = [mail for mail in mails if holding in mail]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)  # another program's folder
