"""TLS handshakes that fail on purpose: the server's side, which stalls, ends, or says what is no TLS.

Each satisfies certs.side.TlsSide in place of a TlsStream, under STARTTLS and implicit TLS alike.
Thread: the turn of the connection.
Not here: handshakes that go well and show a bad certificate (certificates.py).
"""

from __future__ import annotations

from certs.facts import TlsFacts
from certs.side import TlsSide
from certs.trouble import TlsError

_ON_PURPOSE = "on purpose"


class Stalled:
    """Takes what comes and says nothing, for ever."""

    ended = False

    def feed(self, ciphertext: bytes) -> None:
        """What the client says is not looked at."""

    def handshake(self) -> bool:
        return False

    @property
    def facts(self) -> TlsFacts:
        raise TlsError("this handshake is never over")

    def read(self) -> bytes:
        return b""

    def write(self, plaintext: bytes) -> None:
        raise TlsError("this handshake is never over")

    def take_output(self) -> bytes:
        return b""

    def shutdown(self) -> None:
        """There is nothing to end."""


class Rubbish(Stalled):
    """Answers the client's hello with these octets, and ends."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def handshake(self) -> bool:
        raise TlsError(_ON_PURPOSE)

    def take_output(self) -> bytes:
        octets, self._octets = self._octets, b""
        return octets


class Cut(Stalled):
    """A real handshake, until so many octets of it have been said."""

    def __init__(self, side: TlsSide, octets: int) -> None:
        self._side = side
        self._left = octets
        self._output = b""

    def feed(self, ciphertext: bytes) -> None:
        self._side.feed(ciphertext)

    def handshake(self) -> bool:
        if self._left > 0:
            self._side.handshake()
            self._output = self._side.take_output()[: self._left]
            self._left -= len(self._output)
        if self._left <= 0:
            raise TlsError(_ON_PURPOSE)
        return False

    def take_output(self) -> bytes:
        output, self._output = self._output, b""
        return output
