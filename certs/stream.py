"""TLS on memory buffers: ciphertext in, plaintext out, and the other way round.

Rules: it never touches a socket and never waits; whoever has the connection feeds it what came, takes what must go
out, and asks again. After a TlsError take_output() still holds the alert for the peer, and nothing else is of use.

Thread: one at a time, the thread that has the connection in its turn.
Not here: which certificate, which versions (contexts.py, policy.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from certs import binding
from certs.facts import TlsFacts
from certs.files import Pair
from certs.names import is_address, names_of, to_ascii
from certs.trouble import TlsError, chain_trouble, why_it_failed

# One TLS record holds at most 16 KiB of plaintext (RFC 8446 5.1); more is read in one call only where it is there.
_RECORD = 16_384
_OUTPUT = 65_536
_EXPORTER = b"EXPORTER-Channel-Binding"  # RFC 9266

_INTERNAL_ERROR = b"\x15\x03\x03\x00\x02\x02\x50"  # a fatal alert in the clear (RFC 8446 6)

Choose = Callable[[str], "Pair | None"]


class Handshake:
    """What OpenSSL's callbacks note while a handshake runs: they can't raise and can't reach the stream, which would
    make a cycle that keeps a dead connection in memory."""

    __slots__ = ("alpn", "choose", "is_named", "server_name", "trouble", "verify_depth", "verify_error")

    def __init__(self, server_name: str = "", choose: Choose | None = None) -> None:
        self.server_name = server_name
        self.choose = choose
        self.alpn = ""
        self.is_named = False
        self.trouble: BaseException | None = None
        self.verify_error = 0
        self.verify_depth = 0


class Terms:
    """What a stream has to know of the context that it was made from; shared by all streams of it."""

    __slots__ = ("asks_client", "binds", "check_peer", "endpoint_binding", "verifies")

    def __init__(
        self,
        endpoint_binding: Callable[[SSL.Connection], bytes] | None = None,
        asks_client: bool = False,
        check_peer: Callable[[SSL.Connection, Handshake], None] | None = None,
        verifies: bool = False,
        binds: bool = True,
    ) -> None:
        self.endpoint_binding = endpoint_binding
        self.asks_client = asks_client
        self.check_peer = check_peer
        self.verifies = verifies
        self.binds = binds


class TlsStream:
    """One TLS connection, either side.

    Order of calls: feed() and handshake() until it says True, taking the output after each; then feed() and read(),
    write() and take_output(); shutdown() before the last take_output().
    """

    __slots__ = (
        "_connection",
        "_context",
        "_facts",
        "_handshake",
        "_has_output",
        "_is_up",
        "_refusal",
        "_server_side",
        "_terms",
        "ended",
    )

    def __init__(
        self,
        context: SSL.Context,
        server_side: bool,
        server_name: str = "",
        *,
        terms: Terms | None = None,
        choose: Choose | None = None,
    ) -> None:
        self._connection = connection = SSL.Connection(context)
        # The first context's callbacks are called until the end, also after SNI switched to another context and
        # renewal dropped this one.
        self._context = context
        self._handshake = Handshake(server_name, choose)
        connection.set_app_data(self._handshake)
        self._server_side = server_side
        self._terms = terms or _NO_TERMS
        self._facts: TlsFacts | None = None
        self._is_up = False
        self._refusal = b""
        self._has_output = False
        self.ended = False
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if server_name and not is_address(server_name):  # RFC 6066 section 3: no address literals
                connection.set_tlsext_host_name(to_ascii(server_name).encode("ascii"))

    def feed(self, ciphertext: bytes) -> None:
        """Bytes from the peer, appended; nothing happens until handshake() or read()."""
        if ciphertext:
            self._connection.bio_write(ciphertext)

    def handshake(self) -> bool:
        """One step. True when it is over; False when more bytes are needed (take the output first). TlsError: it
        failed; the output holds the alert."""
        if self._is_up:
            return True
        self._has_output = True
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._raise_noted()
            return False
        except SSL.ZeroReturnError:
            raise TlsError("the peer ended the connection in the handshake") from None
        except SSL.Error as error:
            self._raise_noted()
            raise TlsError(why_it_failed(error, self._handshake.verify_error)) from None
        self._raise_noted()
        if self._terms.check_peer is not None:
            self._terms.check_peer(self._connection, self._handshake)
        self._is_up = True
        return True

    def read(self) -> bytes:
        """All plaintext there is; b"" where there is none, or where the peer has ended (`ended`). TlsError: what came
        is not TLS, was changed, or was an alert."""
        connection = self._connection
        receive = connection.recv
        first = b""
        more: list[bytes] = []
        try:
            first = receive(_RECORD)
            while binding.has_unread(connection):
                more.append(receive(_RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            if not first:
                raise TlsError(why_it_failed(error)) from None
            # What came before the fault was whole and authentic; the fault is met again at the next read.
        finally:
            self._has_output = self._has_output or binding.has_unsent(connection)  # key updates and alerts
        return first if not more else first + b"".join(more)

    def write(self, plaintext: bytes) -> None:
        """Encrypt; the ciphertext waits for take_output(). A megabyte at once costs half of what small pieces do."""
        if not plaintext:
            return
        self._has_output = True
        try:
            sent = self._connection.send(plaintext)
            if sent < len(plaintext):
                view = memoryview(plaintext)
                while sent < len(plaintext):
                    sent += self._connection.send(view[sent:])
        except SSL.Error as error:
            raise TlsError(why_it_failed(error)) from None

    def take_output(self) -> bytes:
        """All ciphertext to send, in order; empties it."""
        if self._refusal:
            refusal, self._refusal = self._refusal, b""
            self._has_output = False
            return refusal
        if not self._has_output:
            return b""
        self._has_output = False
        output = self._read_buffer()
        if len(output) < _OUTPUT:
            return output
        pieces = [output]
        while len(output) == _OUTPUT:
            output = self._read_buffer()
            pieces.append(output)
        return b"".join(pieces)

    def _read_buffer(self) -> bytes:
        try:
            return self._connection.bio_read(_OUTPUT)
        except SSL.WantReadError:
            return b""

    def shutdown(self) -> None:
        """Say close_notify. The peer's own is not waited for (RFC 8446 6.1 lets each side end on its own)."""
        if not self._is_up:
            return
        self._has_output = True
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass  # a connection that failed has nothing to say good-bye to

    @property
    def facts(self) -> TlsFacts:
        """What is known of the connection; after the handshake."""
        if self._facts is None:
            if not self._is_up:
                raise TlsError("the handshake is not over: there are no facts yet")
            self._facts = self._gather_facts()
        return self._facts

    def _raise_noted(self) -> None:
        trouble = self._handshake.trouble
        if trouble is not None:
            # pyOpenSSL can't end a handshake from within its callback: what OpenSSL said with the wrong certificate
            # is dropped unsent, and the peer gets the alert in its place.
            self.take_output()
            self._refusal = _INTERNAL_ERROR
            raise TlsError(str(trouble)) from trouble

    def _gather_facts(self) -> TlsFacts:
        connection, noted = self._connection, self._handshake
        version = connection.get_protocol_version_name()
        if self._server_side:
            if not noted.is_named:
                noted.server_name = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
        else:
            noted.alpn = connection.get_alpn_proto_negotiated().decode("ascii", "replace")
        peer: dict[str, Any] = {}
        if not self._server_side or self._terms.asks_client:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                peer = _peer_facts(certificate, noted, self._terms.verifies)
        return TlsFacts(
            version=version,
            cipher=connection.get_cipher_name() or "",
            bits=connection.get_cipher_bits() or 0,
            group=binding.group_of(connection),
            server_name=noted.server_name,
            alpn=noted.alpn,
            resumed=binding.was_resumed(connection),
            bindings=self._bindings(version) if self._terms.binds else {},
            **peer,
        )

    def _bindings(self, version: str) -> dict[str, bytes]:
        bindings: dict[str, bytes] = {}
        if version == "TLSv1.3" or binding.has_extended_master_secret(self._connection):
            bindings["tls-exporter"] = self._connection.export_keying_material(_EXPORTER, 32, b"")
        if self._terms.endpoint_binding is not None:
            endpoint = self._terms.endpoint_binding(self._connection)
            if endpoint:
                bindings["tls-server-end-point"] = endpoint
        return bindings


def _peer_facts(certificate: x509.Certificate, noted: Handshake, is_checked: bool) -> dict[str, Any]:
    error = chain_trouble(noted.verify_error, noted.verify_depth)
    return {
        "peer_subject": certificate.subject.rfc4514_string(),
        "peer_names": tuple(name for kind, name in names_of(certificate) if kind in ("dns", "email")),
        "peer_certificate": certificate.public_bytes(Encoding.DER),
        "peer_verified": is_checked and not error,
        "peer_error": error if error or is_checked else "not checked",
    }


_NO_TERMS = Terms()
