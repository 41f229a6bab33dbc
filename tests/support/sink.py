"""Postfix's smtp-sink as a next hop that takes everything."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time


class SmtpSink:
    """`with SmtpSink() as sink:` listens on 127.0.0.1:sink.port. `options` are smtp-sink's own."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._options = options

    def __enter__(self) -> SmtpSink:
        program = shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
        assert program is not None, "smtp-sink is not installed"
        user = ["-u", "root"] if os.geteuid() == 0 else []
        command = [program, *user, *self._options, f"127.0.0.1:{self.port}", "100"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                    connection.recv(100)
                    return self
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, "smtp-sink does not start"
                time.sleep(0.02)  # it has no way to say that it is ready

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(10)
