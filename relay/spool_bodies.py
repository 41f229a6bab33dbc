"""Large bodies: files of their own beside the segments, linked instead of copied.

Thread: the loop of one spool that keeps bodies.
Not here: the record that names the file (spool).
"""

from __future__ import annotations

import errno
import os

from relay.disk import Disk
from smtpd_core.draft import Draft

# Trouble that a copy would meet as well.
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def keep_body(draft: Draft, path: str, disk: Disk) -> None:
    """Sync, link, sync the directory, in this order; only then may a record name the file."""
    descriptor = draft.fileno()
    disk.sync(descriptor)
    try:
        disk.link(descriptor, path)
    except OSError as error:
        if error.errno in _HOPELESS:
            raise
        _copy(draft, path, disk)  # no /proc, no nameless files here, or the draft is on another disk
    disk.sync_directory(os.path.dirname(path))


def _copy(draft: Draft, path: str, disk: Disk) -> None:
    descriptor = disk.create(path)
    try:
        for piece in draft.chunks(1 << 20):
            while piece:
                piece = piece[disk.append(descriptor, [piece]) :]
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
