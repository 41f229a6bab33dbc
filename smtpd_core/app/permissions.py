"""What the user that the process becomes may do with files: asked before root is given up, when it would be too late.

Where no user is set, or we are not root, it is what this process may do.
Thread: any. Looks at files, changes nothing.
Not here: becoming that user (life.py).
"""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

READ, WRITE, ENTER = os.R_OK, os.W_OK, os.X_OK


class Permissions:
    """Of `user` in `group`, "" being its own. "" for both is this process. One who does not exist may do nothing."""

    def __init__(self, user: str, group: str = "") -> None:
        self.user = user if os.geteuid() == 0 else ""
        self._id = -1
        self._groups: set[int] = set()
        if self.user:
            try:
                entry = pwd.getpwnam(user)
                gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
            except KeyError:
                return
            self._id = entry.pw_uid
            self._groups = set(os.getgrouplist(user, gid))

    @property
    def whose(self) -> str:
        """For a sentence: "not readable" + whose."""
        return f" for user {self.user}" if self.user else ""

    def allow(self, path: str | Path, wanted: int) -> bool:
        """Whether the path is there and may be used so. Access lists are not looked at: they count when it is tried."""
        if not self.user or self._id == 0:
            return os.access(path, wanted)
        there = Path(os.path.realpath(path))
        return all(self._has(folder, ENTER) for folder in there.parents) and self._has(there, wanted)

    def _has(self, path: Path, wanted: int) -> bool:
        try:
            found = path.stat()
        except OSError:
            return False
        if found.st_uid == self._id:
            bits = found.st_mode >> 6
        elif found.st_gid in self._groups:
            bits = found.st_mode >> 3
        else:
            bits = found.st_mode
        return bits & wanted == wanted
