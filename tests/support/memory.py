"""What lies in the memory of another process: looked through for texts, as somebody with its core file would.

A freed piece of memory keeps its contents until it is used again, in any program. IN_SIGHT is an environment in which
glibc overwrites what is freed (and Python gets all of its memory there), so that what is found is still held by
somebody.
"""

from __future__ import annotations

import base64
import platform
import sys
from collections.abc import Iterable, Iterator

IN_SIGHT = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.perturb=165",
}
CAN_BE_LOOKED_AT = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def writable(process: int) -> Iterator[bytes]:
    """Every piece of memory that the process may write to."""
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb") as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            begin, end = (int(number, 16) for number in span.split("-"))
            memory.seek(begin)
            try:
                yield memory.read(end - begin)
            except OSError:
                continue  # [vvar] and its like


def spellings(secret: str) -> list[bytes]:
    """A secret as text in each of the forms that Python keeps, and as base64 at each of the three places in a group."""
    forms = [secret.encode(code) for code in ("utf-8", "utf-16-le", "utf-32-le")]
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + secret.encode())
        forms.append(coded[4 if shift else 0 : -4])
    return forms


def found(process: int, secrets: Iterable[str]) -> set[str]:
    """Those secrets that are there in some spelling."""
    wanted = {secret: spellings(secret) for secret in secrets}
    seen = set()
    for piece in writable(process):
        seen |= {secret for secret, forms in wanted.items() if any(form in piece for form in forms)}
    return seen
