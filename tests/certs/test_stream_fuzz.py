"""Whatever arrives, a TlsStream answers, asks for more, or raises TlsError; its output stays bounded."""

from __future__ import annotations

import random
import ssl

import pytest

from certs.contexts import ClientContext, ServerContexts
from certs.files import Pair
from certs.stream import TlsStream
from certs.trouble import TlsError
from tests.certs.talk import shake_hands

SEED = 20_261
CASES = 400


@pytest.fixture(scope="module")
def hello() -> bytes:
    """A good ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(into, out, server_hostname="mx.test").do_handshake()
    return out.read()


def changed(data: bytes, chance: random.Random) -> bytes:
    """A few bytes flipped, cut out, or put in."""
    buffer = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(buffer))
        match chance.randrange(3):
            case 0:
                buffer[at] ^= 1 << chance.randrange(8)
            case 1:
                del buffer[at : at + chance.randint(1, 40)]
            case _:
                buffer[at:at] = chance.randbytes(chance.randint(1, 40))
        if not buffer:
            return b"\x16"
    return bytes(buffer)


def fed(stream: TlsStream, data: bytes) -> int:
    """Feed and step; how many bytes it answered."""
    stream.feed(data)
    try:
        if stream.handshake():
            stream.read()
    except TlsError as error:
        assert str(error)
    return len(stream.take_output())


def test_a_handshake_changed_at_random(leaf: Pair, hello: bytes) -> None:
    print(f"seed {SEED}")
    chance, contexts = random.Random(SEED), ServerContexts(leaf)
    for _ in range(CASES):
        stream = contexts.stream()
        data = changed(hello, chance) if chance.random() < 0.8 else chance.randbytes(chance.randint(1, 2_000))
        assert fed(stream, data) < 20_000
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client)


def test_records_changed_at_random(leaf: Pair) -> None:
    print(f"seed {SEED}")
    chance, contexts = random.Random(SEED), ServerContexts(leaf)
    for _ in range(CASES // 8):
        server, client = contexts.stream(), ClientContext().stream("mx.test")
        shake_hands(server, client)
        client.write(b"MAIL FROM:<ann@a.test>\r\n" * 20)
        assert fed(server, changed(client.take_output(), chance)) < 20_000
