"""One connection to a server that is tried out: whole replies, TLS, and what the server did not do as a plain sentence.

Thread: one at a time.
Not here: what is asked of a server (rules.py, attacks.py), what is played again (replay.py).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl

# How long a server may think about one reply.
PATIENCE = 10.0


class Broken(Exception):
    """The server did otherwise; the text says what was expected and what came."""


class Probe:
    """One connection to the server under test. Use as a context manager."""

    def __init__(self, host: str, port: int, patience: float = PATIENCE) -> None:
        self.socket = socket.create_connection((host, port), timeout=patience)
        self.host = host
        self._buffer = b""

    @property
    def tls_is_up(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """From now on under TLS. Broken where something came before it; OSError where the handshake fails."""
        if self._buffer:
            raise Broken(f"octets in the clear before the handshake: {self._buffer[:60]!r}")
        self.socket = context.wrap_socket(self.socket, server_hostname=self.host)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """A server that closes early is noticed when its reply is read."""
        try:
            self.socket.sendall(octets)
        except OSError:
            pass

    def reply(self) -> list[str]:
        """The next reply's lines; none where the server closed. Broken where it says nothing."""
        lines: list[str] = []
        while True:
            line, found, rest = self._buffer.partition(b"\r\n")
            if found:
                self._buffer = rest
                lines.append(line.decode("utf-8", "replace"))
                if line[3:4] != b"-":
                    return lines
                continue
            try:
                piece = self.socket.recv(65_536)
            except TimeoutError:
                raise Broken(f"no reply within {self.socket.gettimeout():g} s") from None
            except OSError:
                piece = b""
            if not piece:
                if self._buffer or lines:
                    raise Broken(f"the connection ended within a reply: {self._buffer!r}")
                return []
            self._buffer += piece

    def hello(self, name: str = "probe.test") -> list[str]:
        """Banner and EHLO; the keywords announced, upper case."""
        expect("220", self.reply())
        self.send(f"EHLO {name}\r\n".encode())
        lines = self.reply()
        expect("250", lines)
        return [line[4:].upper() for line in lines[1:]]


def expect(pattern: str, lines: list[str]) -> None:
    """Raises Broken where the reply does not begin as `pattern` (a regular expression) says."""
    said = lines[-1] if lines else "closed"
    if not re.match(pattern, said):
        raise Broken(f"expected {pattern}, got {said}")


def offers(keywords: list[str], extension: str) -> bool:
    return any(one.split(" ")[0] == extension for one in keywords)


def trusting(authorities: str | None = None) -> ssl.SSLContext:
    """A context that trusts these authorities (a PEM file), or whomever it meets. OSError without such a file."""
    context = ssl.create_default_context(cafile=authorities)
    if authorities is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_loopback(host: str, port: int) -> bool:
    """Whether every address of this name is one of loopback. OSError where there is no such name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(one[4][0]).split("%")[0]).is_loopback for one in found)
