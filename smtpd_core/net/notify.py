"""Telling a service supervisor how we are: sd_notify(3), one datagram to the socket that NOTIFY_SOCKET names.

Thread: any; never waits, never raises: a supervisor that is gone is no reason to stop serving mail.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Supervisor:
    """`tell("READY=1")`. Without a NOTIFY_SOCKET nothing is said."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._path = environment.get("NOTIFY_SOCKET", "")
        try:
            microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        except ValueError:
            microseconds = 0
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = max(0, microseconds) / 1_000_000 if is_meant and self._path else 0.0
        """Seconds within which WATCHDOG=1 is due, 0 for never."""

    @property
    def is_there(self) -> bool:
        return bool(self._path)

    def tell(self, *states: str) -> None:
        """States as sd_notify(3) lists them."""
        if not self._path or not hasattr(socket, "AF_UNIX"):
            return
        # '@' stands for the NUL of the abstract name space.
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
                telling.setblocking(False)
                telling.sendto("\n".join(states).encode(), address)
        except OSError:
            pass  # nobody listens
