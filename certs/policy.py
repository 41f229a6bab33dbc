"""What TLS must be here: versions, ciphers, groups. Plain data, used by contexts.py.

The defaults follow the usual advice for servers that need no device older than 2014: TLS 1.2 and 1.3, forward secrecy
and authenticated encryption only (RFC 9325).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Version = Literal["1.0", "1.1", "1.2", "1.3"]
VERSIONS: tuple[Version, ...] = ("1.0", "1.1", "1.2", "1.3")

# TLS 1.2: ECDHE with AEAD alone. AES-128 first because it is as strong as the P-256 and X25519 beside it.
MODERN_CIPHERS = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)
TLS13_SUITES = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"

# TLS 1.0 and 1.1 have neither AEAD nor SHA-2 in their handshake; OpenSSL allows them at security level 0 alone.
OLD_DEVICE_CIPHERS = "DEFAULT:@SECLEVEL=0"

# One preference level, so that a server takes the group for which the client has already sent its share.
SERVER_GROUPS = ("X25519MLKEM768:X25519:P-256:P-384", "X25519:P-256:P-384")
# A client that sends only the hybrid share would cost a round trip with every server that lacks it: OpenSSL's own
# default sends X25519 beside it. The plain list is for peers that choke on a long ClientHello.
PLAIN_GROUPS = ("X25519:P-256:P-384",)

ALPN_SMTP = b"smtp"


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """`minimum` under 1.2 also opens the old ciphers that such devices need. `ciphers` replaces the TLS 1.2 list.

    `alpn`: protocol names to agree on where a client offers them; a client that offers others is served all the same.
    """

    minimum: Version = "1.2"
    ciphers: str = ""
    alpn: tuple[str, ...] = ("smtp",)
    tickets: bool = True


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """Whether clients are asked for a certificate. `no`; `ask`: facts tell what came, nothing is refused;
    `require`: the handshake fails without a good one. `ca_file` holds the trusted authorities (PEM), `crl_file`
    revocation lists in PEM."""

    mode: Literal["no", "ask", "require"] = "no"
    ca_file: str = ""
    crl_file: str = ""


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """How a client of ours (the relay, `send`) talks TLS.

    `verify`: the chain is checked against `ca_file` (the system's authorities where it is "") and the certificate must
    cover the server's name, else handshake() fails. Without it the chain is not looked at. `minimum` under 1.2 also
    opens old ciphers. `plain_groups`: no post-quantum hybrid, for a retry with a peer that can't take it. `alpn` is
    offered where not empty.
    """

    verify: bool = False
    minimum: Version = "1.2"
    ca_file: str = ""
    ciphers: str = ""
    alpn: tuple[str, ...] = ()
    plain_groups: bool = False
