"""A real name server (nsd) on a free port of loopback, with the zones that a test writes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin"

_CONF = """
server:
    ip-address: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/xfrd.state"
    zonelistfile: "{folder}/zone.list"
    logfile: "{folder}/nsd.log"
    server-count: 1
    verbosity: 1
remote-control:
    control-enable: no
"""

_HEAD = "$ORIGIN {zone}.\n$TTL {ttl}\n@ IN SOA ns hostmaster 1 60 60 600 30\n@ IN NS ns\nns IN A 127.0.0.1\n"


def _free_port() -> int:
    """Free for both, UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])


class NameServer:
    """`with NameServer(folder, {"a.test": "@ MX 10 mx"}) as server:` answers at server.address until it is left."""

    def __init__(self, folder: Path, zones: Mapping[str, str], ttl: int = 60) -> None:
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        conf = _CONF.format(port=self.port, folder=folder)
        for zone, records in zones.items():
            (folder / f"{zone}.zone").write_text(_HEAD.format(zone=zone, ttl=ttl) + records + "\n")
            conf += f'zone:\n    name: "{zone}"\n    zonefile: "{zone}.zone"\n'
        (folder / "nsd.conf").write_text(conf)

    def __enter__(self) -> NameServer:
        program = shutil.which("nsd", path=_PATH)
        assert program is not None, "nsd is not installed"
        self._process = subprocess.Popen(
            [program, "-d", "-c", str(self._folder / "nsd.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                log = self._folder / "nsd.log"
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(log.read_text() if log.exists() else "nsd does not start") from None
                self._process.poll()
                time.sleep(0.02)  # nsd has no way to say that it is ready

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(10)
