"""Two streams that talk to each other in memory, in pieces of any size."""

from __future__ import annotations

from certs.stream import TlsStream


def carry(sender: TlsStream, receiver: TlsStream, size: int = 1 << 30) -> int:
    """Move what `sender` has to send to `receiver`, `size` bytes at a time; how many bytes there were."""
    output = sender.take_output()
    for n in range(0, len(output), size):
        receiver.feed(output[n : n + size])
    return len(output)


def shake_hands(server: TlsStream, client: TlsStream, size: int = 1 << 30) -> None:
    """The handshake, with every piece of `size` bytes followed by a step of the one that got it."""
    server_is_up = client_is_up = False
    while not (server_is_up and client_is_up):
        if not client_is_up:
            client_is_up = client.handshake()
        output = client.take_output()
        for n in range(0, len(output), size):
            server.feed(output[n : n + size])
            if not server_is_up:
                server_is_up = server.handshake()
        output = server.take_output()
        if not output and not client_is_up:
            raise AssertionError("both sides wait for the other")
        for n in range(0, len(output), size):
            client.feed(output[n : n + size])
            if not client_is_up:
                client_is_up = client.handshake()
    client.read()  # session tickets
