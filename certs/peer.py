"""Whether a server's certificate is for the server that was asked for, through service-identity (extra `relay`).

pyOpenSSL has no check of its own, and the verifier of `cryptography` refuses chains that mail uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from OpenSSL import SSL

from certs.names import is_address, names_of, to_ascii
from certs.trouble import CertificateError, TlsError

if TYPE_CHECKING:
    from certs.stream import Handshake

Check = Callable[[SSL.Connection, "Handshake"], None]


def name_check() -> Check:
    """The check, to be run after a handshake; it raises TlsError. CertificateError where service-identity is not
    installed: a verified connection is not to be had without it."""
    try:
        from service_identity import CertificateError as BadPattern
        from service_identity import VerificationError, hazmat
        from service_identity.cryptography import extract_patterns
    except ImportError:
        raise CertificateError(
            "the name in a server's certificate can't be checked without the package service-identity: "
            'install smtpd_core with its extra "relay" (pip install "smtpd_core[relay]")'
        ) from None

    def check(connection: SSL.Connection, noted: Handshake) -> None:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise TlsError("the server sent no certificate")
        host = noted.server_name
        wanted: hazmat.ServiceID
        if is_address(host):
            wanted = hazmat.IPAddress_ID(host.strip("[]").removeprefix("IPv6:"))
        else:
            wanted = hazmat.DNS_ID(to_ascii(host))
        try:
            hazmat.verify_service_identity(extract_patterns(certificate), [wanted], [])
        except (VerificationError, BadPattern):
            named = ", ".join(name for _, name in names_of(certificate)) or "nothing"
            raise TlsError(f"the server's certificate is for {named}, not for {host}") from None

    return check
