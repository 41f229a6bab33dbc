"""Words on standard output that hold up nobody.

Rule: what a server says on standard output is a courtesy. That nobody reads it, or that it can't be written, neither
ends the server nor keeps it waiting.
Thread: main.
Not here: streams that were closed from the start (certs/program.py).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from smtpd_core.net.poller import is_writable

log = logging.getLogger(__name__)

# A pipe that is ready takes so much at once (PIPE_BUF is 4096 on Linux, 512 where it is least).
_PIECE = 512 if sys.platform != "linux" else 4096


def takes(stream: TextIO) -> bool:
    """Whether a short write would not wait for a reader."""
    try:
        return is_writable(stream.fileno())
    except (OSError, ValueError):
        return True  # none of the system's, or a closed one, which says so when it is written


def say(text: str) -> None:
    """On standard output, as far as somebody takes it."""
    try:
        for start in range(0, len(text), _PIECE):
            if not takes(sys.stdout):
                log.warning("nobody reads standard output, so nothing more is said there")
                return
            sys.stdout.write(text[start : start + _PIECE])
            sys.stdout.flush()
    except OSError as error:
        log.warning("standard output can't be written: %s", error.strerror or error)
        # What still waits there goes nowhere, also at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
