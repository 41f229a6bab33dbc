"""A mount namespace in which paths and accounts that are compiled into a program lie in a scratch folder: the machine
needs neither, and keeps its own. Root only.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path


def with_accounts(folder: Path, accounts: Mapping[str, int]) -> dict[str, str]:
    """Writes lists of accounts with these too, any free number will do; what in_a_namespace() mounts for them."""
    for kind, line in (("passwd", "{0}:x:{1}:{1}::/:/bin/false\n"), ("group", "{0}:x:{1}:\n")):
        known = Path("/etc", kind).read_text().splitlines(True)
        kept = [one for one in known if one.partition(":")[0] not in accounts]
        (folder / kind).write_text("".join(kept + [line.format(*one) for one in accounts.items()]))
    return {kind: f"/etc/{kind}" for kind in ("passwd", "group")}


def in_a_namespace(folder: Path, mounts: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """The command under which those paths are the folder's, for the processes of this command alone."""
    binds = [f"mount --bind {shlex.quote(str(folder / name))} {shlex.quote(path)}" for name, path in mounts.items()]
    return ["unshare", "--mount", "sh", "-ec", "\n".join([*binds, f"exec {shlex.join(words)}"])]
