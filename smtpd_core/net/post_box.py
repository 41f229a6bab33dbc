"""A box between the processes of one server: made before they are forked, any of them posts, one empties it.

Rule: who posts never waits. A box that is full, since nobody empties it, takes nothing; the system bounds its size.
What lies in it outlives the process that empties it: its successor goes on.
Thread: post() and wake() from any, take() from one.
Not here: what is posted (app/sums.py).
"""

from __future__ import annotations

import socket

# One message. The system takes some 200 KB of them.
MOST = 128 * 1024


class PostBox:
    """See the module. Raises OSError where the system has no descriptors left."""

    def __init__(self) -> None:
        self._slot, self._inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._slot.setblocking(False)

    def post(self, message: bytes) -> bool:
        """Whether the box took it. ValueError where it is larger than MOST."""
        if len(message) > MOST:
            raise ValueError(f"a message of {len(message)} bytes is more than {MOST}")
        try:
            self._slot.send(message)
        except OSError:
            return False
        return True

    def take(self) -> bytes:
        """The next message, waited for; b"" after wake()."""
        return self._inside.recv(MOST)

    def wake(self) -> None:
        """Let take() return. Where the box is full it returns anyway."""
        self.post(b"")

    def close(self) -> None:
        self._slot.close()
        self._inside.close()
