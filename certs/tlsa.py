"""TLSA records for DANE (RFC 6698; RFC 7672 for mail), as text for a zone file."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.keys import public_bytes
from certs.names import to_ascii
from certs.trouble import CertificateError

# RFC 7672 3.1: mail takes DANE-EE(3) and DANE-TA(2); 3 1 1 outlives renewals that keep the key.
USAGES = {2: "DANE-TA", 3: "DANE-EE"}


def tlsa_record(
    certificate: x509.Certificate, host: str, *, port: int = 25, usage: int = 3, selector: int = 1, matching: int = 1
) -> str:
    """`_25._tcp.mx.example.com. IN TLSA 3 1 1 <hexadecimal>`. Selector 0 is the whole certificate, 1 its public key;
    matching 0 all of it, 1 SHA-256, 2 SHA-512."""
    if usage not in USAGES:
        raise CertificateError(f"TLSA usage {usage}: mail takes 3 (this certificate) or 2 (an authority), RFC 7672 3.1")
    return f"_{port}._tcp.{to_ascii(host)}. IN TLSA {usage} {selector} {matching} " + association(
        certificate, selector, matching
    )


def association(certificate: x509.Certificate, selector: int, matching: int) -> str:
    """The record's data in lower-case hexadecimal."""
    if selector not in (0, 1) or matching not in (0, 1, 2):
        raise CertificateError("TLSA: the selector is 0 or 1, the matching type 0, 1 or 2")
    data = public_bytes(certificate.public_key()) if selector else certificate.public_bytes(Encoding.DER)
    if matching == 0:
        return data.hex()
    return hashlib.new("sha256" if matching == 1 else "sha512", data).hexdigest()
