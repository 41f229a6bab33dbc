"""The NT hash of a password: MD4 over UTF-16LE (MS-NLMP 3.3.1). As good as the password itself to whoever has it.

MD4 is long broken and OpenSSL no longer has it by default, so it is written out here; only NTLM uses it.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
# RFC 1320 3.4: for each round its constant, the order in which the words are used, and the rotations.
_ROUNDS = (
    (0x00000000, tuple(range(16)), (3, 7, 11, 19)),
    (0x5A827999, (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), (3, 5, 9, 13)),
    (0x6ED9EBA1, (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), (3, 9, 11, 15)),
)


def of_password(password: str) -> bytes:
    """16 bytes."""
    return md4(password.encode("utf-16-le", errors="surrogatepass"))


def md4(message: bytes) -> bytes:
    """RFC 1320."""
    padding = b"\x80" + bytes((55 - len(message)) % 64) + struct.pack("<Q", 8 * len(message))
    padded = message + padding
    state = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
    for at in range(0, len(padded), 64):
        block = _digested(state, struct.unpack("<16I", padded[at : at + 64]))
        state = tuple((old + new) & _MASK for old, new in zip(state, block, strict=True))  # type: ignore[assignment]
    return struct.pack("<4I", *state)


def _digested(state: tuple[int, int, int, int], words: tuple[int, ...]) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for number, (constant, order, rotations) in enumerate(_ROUNDS):
        for step, index in enumerate(order):
            turned = (a + _mixed(number, b, c, d) + words[index] + constant) & _MASK
            by = rotations[step % 4]
            a, b, c, d = d, (turned << by | turned >> (32 - by)) & _MASK, b, c
    return a, b, c, d


def _mixed(number: int, x: int, y: int, z: int) -> int:
    if number == 0:
        return x & y | ~x & _MASK & z
    return (x & y | x & z | y & z) if number == 1 else x ^ y ^ z
