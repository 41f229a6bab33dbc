"""TLS on memory buffers: any split of the ciphertext, both ways, to a clean end."""

from __future__ import annotations

import gc
import ssl
import weakref

import pytest

from certs.contexts import ClientContext, ServerContexts
from certs.files import Pair
from certs.policy import ClientPolicy
from certs.trouble import TlsError
from tests.certs.talk import carry, shake_hands


@pytest.fixture(scope="module")
def contexts(leaf: Pair) -> ServerContexts:
    return ServerContexts(leaf)


@pytest.mark.parametrize("size", [1, 7, 1_000, 1 << 30])
def test_ciphertext_in_pieces_of_any_size_gives_the_same_plaintext(contexts: ServerContexts, size: int) -> None:
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client, size)
    told = b"EHLO probe\r\n" * 400
    client.write(told)
    output, heard = client.take_output(), b""
    for n in range(0, len(output), size):
        server.feed(output[n : n + size])
        heard += server.read()
    assert heard == told
    server.write(b"250 mx.test\r\n")
    carry(server, client, size)
    assert client.read() == b"250 mx.test\r\n"


def test_a_write_of_many_records_arrives_whole(contexts: ServerContexts) -> None:
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client)
    content = bytes(range(256)) * 8_000
    client.write(content)
    carry(client, server)
    assert server.read() == content
    assert server.read() == b""


def test_both_sides_know_the_same_channel_bindings(contexts: ServerContexts) -> None:
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client)
    assert server.facts.bindings == client.facts.bindings
    assert set(server.facts.bindings) == {"tls-exporter", "tls-server-end-point"}
    assert len(server.facts.bindings["tls-exporter"]) == 32


def test_the_facts_name_version_cipher_and_server(contexts: ServerContexts) -> None:
    server, client = contexts.stream(), ClientContext(ClientPolicy(alpn=("smtp",))).stream("mx.test")
    shake_hands(server, client)
    facts = server.facts
    assert (facts.version, facts.server_name, facts.alpn, facts.resumed) == ("TLSv1.3", "mx.test", "smtp", False)
    assert facts.bits >= 128 and facts.cipher
    assert client.facts.peer_names == ("mx.test", "*.mail.test")
    assert facts.peer_certificate == b"" and not facts.peer_verified


def test_before_the_handshake_is_over_there_are_no_facts(contexts: ServerContexts) -> None:
    with pytest.raises(TlsError, match="not over"):
        _ = contexts.stream().facts


def test_close_notify_goes_both_ways(contexts: ServerContexts) -> None:
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client)
    server.write(b"221 bye\r\n")
    server.shutdown()
    carry(server, client)
    assert client.read() == b"221 bye\r\n"
    assert client.ended
    client.shutdown()
    carry(client, server)
    assert server.read() == b"" and server.ended


def test_what_is_not_tls_ends_the_handshake_with_a_clear_word(contexts: ServerContexts) -> None:
    server = contexts.stream()
    server.feed(b"EHLO probe\r\n")
    with pytest.raises(TlsError, match="not TLS"):
        server.handshake()


def test_changed_ciphertext_is_an_error_after_what_came_before_it(contexts: ServerContexts) -> None:
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client)
    client.write(b"NOOP\r\n")
    good = client.take_output()
    client.write(b"QUIT\r\n")
    bad = bytearray(client.take_output())
    bad[-1] ^= 1
    server.feed(good + bytes(bad))
    assert server.read() == b"NOOP\r\n"
    with pytest.raises(TlsError):
        server.read()


def test_a_stream_that_failed_does_not_spoil_the_next_one(contexts: ServerContexts) -> None:
    broken = contexts.stream()
    broken.feed(b"\x16\x03\x01\x00\x05hello")
    with pytest.raises(TlsError):
        broken.handshake()
    server, client = contexts.stream(), ClientContext().stream("mx.test")
    shake_hands(server, client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_standard_librarys_ssl_is_served(contexts: ServerContexts, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="mx.test")
    server, is_up = contexts.stream(), False
    for _ in range(5):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        server.feed(out.read())
        is_up = is_up or server.handshake()
        into.write(server.take_output())
    assert is_up and client.version() == server.facts.version
    # TLS 1.2 has one too, since both sides use the extended master secret (RFC 9266 4.2).
    assert "tls-exporter" in server.facts.bindings
    client.write(b"NOOP\r\n")
    server.feed(out.read())
    assert server.read() == b"NOOP\r\n"


def test_a_stream_that_is_dropped_frees_its_memory_at_once(contexts: ServerContexts) -> None:
    """No cycle: thousands of connections can't wait for the collector."""
    gc.disable()
    try:
        server, client = contexts.stream(), ClientContext().stream("mx.test")
        shake_hands(server, client)
        _ = server.facts
        alive = weakref.ref(server._connection)
        del server
        assert alive() is None
    finally:
        gc.enable()
