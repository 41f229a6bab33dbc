"""One connection to a server that is tried out: whole replies, TLS, and what the server did not do as a plain sentence.

Thread: one at a time.
Not here: what is asked of a server (rules.py, attacks.py), what is played again (replay.py).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass

from smtpd_core.wire.sasl.client import Credentials, Plain

# How long a server may think about one reply.
PATIENCE = 10.0

# One reply. Far more than the longest EHLO; who says more would fill memory.
MAX_REPLY = 64 * 1024


class Broken(Exception):
    """The server did otherwise; the text says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server under test, an envelope that it takes, and how each session with it begins.

    `tls`: "none", "starttls" or "implicit"; the certificate is not looked at. `credentials`: to log in with, by PLAIN.
    """

    host: str
    port: int
    sender: str = "probe@probe.test"
    to: str = "postmaster@localhost"
    patience: float = PATIENCE
    tls: str = "none"
    credentials: Credentials | None = None

    def probe(self) -> Probe:
        """A new connection. OSError where there is none."""
        return Probe(self)

    def filled(self, text: str) -> str:
        """The text with {to}, {sender}, {local} and {domain} of the envelope."""
        local, _, domain = self.to.rpartition("@")
        for name, value in {"to": self.to, "sender": self.sender, "local": local, "domain": domain}.items():
            text = text.replace(f"{{{name}}}", value)
        return text


class Probe:
    """One connection to the server under test. Use as a context manager."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.socket = socket.create_connection((target.host, target.port), timeout=target.patience)
        self._buffer = b""
        if target.tls == "implicit":
            self.start_tls()

    @property
    def tls_is_up(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)

    def start_tls(self, context: ssl.SSLContext | None = None) -> None:
        """From now on under TLS. Broken where something came before it; OSError where the handshake fails."""
        if self._buffer:
            raise Broken(f"octets in the clear before the handshake: {self._buffer[:60]!r}")
        self.socket = (context or trusting()).wrap_socket(self.socket, server_hostname=self.target.host)

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
        """The next reply's lines; none where the server closed. Broken where it is not over in time, or has no end."""
        lines: list[str] = []
        room = MAX_REPLY
        until = time.monotonic() + self.target.patience
        try:
            while (line := self._line(until, room)) is not None:
                lines.append(line.decode("utf-8", "replace"))
                room -= len(line) + 2
                if line[3:4] != b"-":
                    return lines
        finally:
            self.socket.settimeout(self.target.patience)
        if self._buffer or lines:
            raise Broken(f"the connection ended within a reply: {self._buffer[:60]!r}")
        return []

    def _line(self, until: float, room: int) -> bytes | None:
        """The next line, None where the connection ended before it."""
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > room:
                raise Broken(f"a reply of more than {MAX_REPLY} octets")
            try:
                self.socket.settimeout(max(until - time.monotonic(), 0.001))
                piece = self.socket.recv(65_536)
            except TimeoutError:
                raise Broken(f"no reply within {self.target.patience:g} s") from None
            except OSError:
                piece = b""
            if not piece:
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def ask(self, line: str) -> list[str]:
        """Send a line; the reply to it."""
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def hello(self, name: str = "probe.test") -> list[str]:
        """Banner, EHLO, and TLS and log-in where the target has them; the keywords announced, upper case."""
        expect("220", self.reply())
        keywords = self.ehlo(name)
        if self.target.tls == "starttls":
            expect("220", self.ask("STARTTLS"))
            self.start_tls()
            keywords = self.ehlo(name)
        if self.target.credentials is not None:
            first = Plain(self.target.credentials).first() or b""
            expect("235", self.ask(f"AUTH PLAIN {b64encode(first).decode()}"))
        return keywords

    def ehlo(self, name: str = "probe.test") -> list[str]:
        """EHLO; the keywords announced, upper case."""
        lines = self.ask(f"EHLO {name}")
        expect("250", lines)
        return [line[4:].upper() for line in lines[1:]]


def expect(pattern: str, lines: list[str]) -> None:
    """Raises Broken where the reply does not begin as `pattern` (a regular expression) says."""
    said = lines[-1] if lines else "closed"
    if not re.match(pattern, said):
        raise Broken(f"expected {pattern}, got {said[:200]}")


def offers(keywords: list[str], extension: str) -> bool:
    return any(one.split(" ")[0] == extension for one in keywords)


def trusting(authorities: str | None = None) -> ssl.SSLContext:
    """A context that trusts these authorities (a PEM file), or whomever it meets. OSError without such a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(authorities)
    return context


def is_loopback(host: str, port: int) -> bool:
    """Whether every address of this name is one of loopback. OSError where there is no such name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(one[4][0]).split("%")[0]).is_loopback for one in found)
