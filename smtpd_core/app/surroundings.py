"""What must be there around the settings: the user and the group, the state directory, files to read and to write.

A server gives up root before it reads or writes them, so they are asked for as the user that it becomes.
Thread: any. Looks at files and directories, changes nothing.
Not here: what the settings say among themselves (sanity.py).
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

from smtpd_core.app.permissions import ENTER, READ, WRITE, Permissions
from smtpd_core.app.settings import Settings

Fault = tuple[str, str]


def unreadable(path: str, settings: Settings) -> list[str]:
    """Why a file can't be read; nothing where it can."""
    if not os.path.isfile(path):
        return [f"{path}: no such file"]
    permissions = Permissions(settings.user, settings.group)
    return [] if permissions.allow(path, READ) else [f"{path}: not readable{permissions.whose}"]


def state(settings: Settings) -> Iterator[Fault]:
    path = Path(settings.state).absolute() if settings.state else Path("/")
    # A directory that is made becomes the user's; one that is there is left as it is.
    permissions = Permissions(settings.user if os.path.exists(path) else "", settings.group)
    while not os.path.exists(path):  # unlike Path.exists(), also for a name that no file can have
        path = path.parent
    if not os.path.isdir(path):
        yield "state", f"{path} is no directory"
    elif settings.state and not permissions.allow(path, WRITE | ENTER):
        yield "state", f"{path} is not writable{permissions.whose}"


def process(settings: Settings) -> Iterator[Fault]:
    """Who the process is, and what it writes besides mail."""
    if settings.user and not _is_there(pwd.getpwnam, settings.user):
        yield "user", f"there is no user {settings.user!r}"
    if settings.group and not _is_there(grp.getgrnam, settings.group):
        yield "group", f"there is no group {settings.group!r}"
    for key, text, user in (("pid_file", settings.pid_file, ""), ("log.file", settings.log.file, settings.user)):
        path = Path(text).absolute()
        permissions = Permissions(user, settings.group)
        if text and os.path.isdir(path):
            yield key, f"{path} is a directory"
        elif text and not permissions.allow(path if os.path.exists(path) else path.parent, WRITE):
            what = path if os.path.exists(path) or not os.path.isdir(path.parent) else path.parent
            yield key, f"{what} is not writable{permissions.whose}"


def _is_there(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True
