"""Which sessions a test server had, which are open, and what was open when a connection of its own was accepted.

Thread: any.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from smtpd_core.threads import Condition

# Sessions whose transcripts are remembered; older ones go.
REMEMBERED = 200


class Sessions:
    """Which sessions there were, and which are open; probes are none."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._known: list[str] = []
        self._open: set[str] = set()
        self._probes: dict[int, set[str] | None] = {}

    def open(self, session_id: str, port: int) -> bool:
        """A session begins; True where it is a probe's, which then knows what was open before it."""
        with self._changed:
            if port in self._probes:
                self._probes[port] = set(self._open)
                self._changed.notify_all()
                return True
            self._known = [*self._known[1 - REMEMBERED :], session_id]
            self._open.add(session_id)
            return False

    def close(self, session_id: str) -> None:
        with self._changed:
            self._open.discard(session_id)
            self._changed.notify_all()

    def known(self) -> list[str]:
        with self._changed:
            return list(self._known)

    def forget(self) -> None:
        """Those that have ended are known no more."""
        with self._changed:
            self._known = [one for one in self._known if one in self._open]

    @contextmanager
    def probing(self, port: int) -> Iterator[None]:
        """A probe will come from this port."""
        with self._changed:
            self._probes[port] = None
        try:
            yield
        finally:
            with self._changed:
                del self._probes[port]

    def before(self, port: int, until: float) -> set[str] | None:
        """What was open when the probe was accepted; None where it has not been by then."""
        with self._changed:
            while self._probes[port] is None and (wait := until - time.monotonic()) > 0:
                self._changed.wait(wait)
            return self._probes[port]

    def await_end(self, sessions: set[str], until: float) -> set[str]:
        """Wait until all of these are closed; what is left when the time is over."""
        with self._changed:
            while (left := sessions & self._open) and (wait := until - time.monotonic()) > 0:
                self._changed.wait(wait)
            return left
