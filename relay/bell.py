"""A bell between processes: receivers ring after a sync, intake in the relay process hears it.

A named pipe in the spool's directory; a byte in it means "something is synced", a full pipe means the same. A bell
that nobody made yet, or nobody hears, is no error: intake looks around by itself now and then.
Thread: ring() from one; hear() in a loop of its own.
"""

from __future__ import annotations

import os

_NAME = "bell"


class Bell:
    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, _NAME)
        self._descriptor = -1

    def ring(self) -> None:
        """Never blocks, never raises."""
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._descriptor, b"!")
        except BlockingIOError:
            pass  # full: whoever hears it has enough to do
        except OSError:
            self.close()  # not made yet, or its hearer ended; a new one makes the pipe anew

    def listen(self) -> None:
        """Make the bell. The pipe is opened for writing too, so that it never ends while nobody else has it open."""
        try:
            os.mkfifo(self._path, 0o600)
        except FileExistsError:
            pass
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    def hear(self) -> None:
        """Sleep until it rang."""
        os.read(self._descriptor, 4096)

    def ring_self(self) -> None:
        """Wake hear() in our own loop."""
        os.write(self._descriptor, b"!")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
