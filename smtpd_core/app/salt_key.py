"""The key of the made-up salts (wire/sasl/salts.py), a file in the state directory that only its owner can read.

Made at the first start. Who has several machines behind one name gives them all the same file.
Thread: main, in any of our processes at the same time: one of them makes it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from smtpd_core.wire.sasl.salts import LEAST_KEY

NAME = "scram.key"


def salt_key(state: str) -> bytes:
    """The key, made where there is none. Raises OSError, or ValueError for a file that holds none."""
    path = Path(state) / NAME
    if not path.exists():
        _make(path)
    key = path.read_bytes()
    if len(key) < LEAST_KEY:
        raise ValueError(f"{path}: a key of {LEAST_KEY} octets or more is due; without the file a new one is made")
    return key


def _make(path: Path) -> None:
    """Whole or not at all: a link appears in one step, and only where there is none yet."""
    # By chance and not by process: in two containers over one directory both are process 1.
    beside = path.with_name(f".{NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
    except FileExistsError:
        pass  # another process was first, and its key counts
    finally:
        beside.unlink()
