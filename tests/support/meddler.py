"""A proxy that exchanges one reply of a server for another: a server that breaks a rule at one place alone."""

from __future__ import annotations

import socket
import threading


class Meddler:
    """`with Meddler(port, nth) as meddler:` is the server behind, but for the nth reply (from 0) of each connection.

    `replies` counts those of the last connection that ended.
    """

    def __init__(self, port: int, nth: int, instead: bytes = b"199 what\r\n") -> None:
        self._behind = port
        self._nth = nth
        self._instead = instead
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.replies = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Meddler:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._behind)) as server:
                there = threading.Thread(target=self._pass_on, args=(client, server), daemon=True)
                there.start()
                self._meddle(server, client)
                for one in (client, server):
                    _end(one)
                there.join(5)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65_536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of the two is gone, and so is the other soon

    def _meddle(self, server: socket.socket, client: socket.socket) -> None:
        replies = 0
        reply = b""
        with server.makefile("rb") as lines:
            for line in lines:
                reply += line
                if line[3:4] == b"-":
                    continue
                try:
                    client.sendall(self._instead if replies == self._nth else reply)
                except OSError:
                    break
                replies, reply = replies + 1, b""
        self.replies = replies


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it went first
