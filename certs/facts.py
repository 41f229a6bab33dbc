"""What is known of a TLS connection once its handshake is over: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """`version` as OpenSSL names it ("TLSv1.3"), `cipher` the suite's name, `bits` its strength,
    `group` the key exchange ("X25519MLKEM768"), "" where OpenSSL does not tell.

    `server_name` is the SNI name or "". `bindings` maps a channel binding type ("tls-exporter", "tls-server-end-point")
    to its bytes. `peer_subject` and `peer_names` (SAN: dNSName, rfc822Name) are empty without a peer certificate;
    `peer_verified` says whether the chain was checked and good; `peer_certificate` is its DER form.
    """

    version: str
    cipher: str
    bits: int = 0
    group: str = ""
    server_name: str = ""
    alpn: str = ""
    resumed: bool = False
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    peer_subject: str = ""
    peer_names: tuple[str, ...] = ()
    peer_certificate: bytes = b""
    peer_verified: bool = False
    peer_error: str = ""
