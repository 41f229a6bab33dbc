"""Whether the system may write down this process's memory: a core file of it would hold keys and passwords.

Not here: what is in memory, and for how long (docs/security.md).
Thread: main, after the privileges are dropped, since the system decides anew whenever a process changes its user.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid() -> None:
    """No core file of this process and of those that it forks.

    Everywhere the limit of its size is 0. That says nothing to a program that the system hands the core to (a
    core_pattern with a pipe), so on Linux the process is also made one that is not dumped, which at the same time
    keeps other processes of its user from reading its memory.
    """
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            log.warning("core_dumps: the system may still write them: %s", os.strerror(ctypes.get_errno()))
