"""Fit out an OpenSSL context: versions, ciphers, pairs, trust. What server and client contexts have in common.

Rules: the callbacks set here never raise; what they find they note in the connection's Handshake.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from certs.files import Pair, pem_of, read_certificates
from certs.inspect import usages_of
from certs.names import common_name
from certs.policy import MODERN_CIPHERS, OLD_DEVICE_CIPHERS, TLS13_SUITES, VERSIONS, Version
from certs.stream import Handshake
from certs.trouble import CertificateError, why_it_failed

_NUMBERS = dict(
    zip(VERSIONS, (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION), strict=True)
)


def set_terms(context: SSL.Context, minimum: Version, ciphers: str = "") -> None:
    """Versions, ciphers, and what is never done: compression (CRIME), renegotiation, buffers kept while idle."""
    if minimum not in _NUMBERS:
        raise CertificateError(f"minimum TLS version {minimum!r}: one of {', '.join(VERSIONS)}")
    context.set_min_proto_version(_NUMBERS[minimum])
    is_old = minimum in ("1.0", "1.1")
    wanted = ciphers or (OLD_DEVICE_CIPHERS if is_old else MODERN_CIPHERS)
    try:
        context.set_cipher_list(wanted.encode())
        context.set_tls13_ciphersuites(TLS13_SUITES.encode())
    except SSL.Error as error:
        raise CertificateError(f"the cipher list {wanted!r} is not understood: {why_it_failed(error)}") from None
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)


def use_pairs(context: SSL.Context, pairs: Sequence[Pair]) -> None:
    """Certificates, chains and keys into the context, and the digests of RFC 5929 section 4 beside them."""
    kinds = [type(pair.key) for pair in pairs]
    if len(set(kinds)) != len(kinds):
        raise CertificateError(
            f"two certificates of one key type for {pairs[0].hosts}: side by side stand RSA and ECDSA, one of each"
        )
    for pair in pairs:
        try:
            _use(context, pair, is_alone=len(pairs) == 1)
        except SSL.Error as error:
            name = common_name(pair.certificate) or "the certificate"
            raise CertificateError(f"OpenSSL refuses {name}: {why_it_failed(error)}") from None
    context.set_app_data(
        [(pair.certificate.fingerprint(hashes.SHA256()), endpoint_of(pair.certificate)) for pair in pairs]
    )


def _use(context: SSL.Context, pair: Pair, is_alone: bool) -> None:
    chain = [one for one in pair.chain if one.subject != one.issuer]
    if is_alone or not chain:
        context.use_certificate(pair.certificate)
        for one in chain:
            context.add_extra_chain_cert(one)
    else:
        # Extra certificates are shared by all pairs of a context; a chain of its own OpenSSL reads from a file only.
        _use_chain_file(context, pem_of(pair.certificate, *chain))
    context.use_privatekey(pair.key)
    context.check_privatekey()


def _use_chain_file(context: SSL.Context, pem: bytes) -> None:
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        context.use_certificate_chain_file(path)
    finally:
        Path(path).unlink(missing_ok=True)


def load_authorities(context: SSL.Context, ca_file: str, crl_file: str = "") -> None:
    """Trust these authorities; with a CRL file, ask it about every peer's certificate."""
    path = Path(ca_file)
    read_certificates(path.read_bytes(), ca_file)  # for the error: OpenSSL's own names no file
    try:
        context.load_verify_locations(str(path))
    except SSL.Error as error:
        raise CertificateError(f"{ca_file}: {why_it_failed(error)}") from None
    if crl_file:
        store = context.get_cert_store()
        if store is None:
            raise CertificateError("this OpenSSL has no certificate store to put a revocation list into")
        for one in read_revocation_lists(crl_file):
            store.add_crl(one)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)


def read_revocation_lists(crl_file: str) -> list[x509.CertificateRevocationList]:
    """All revocation lists of a PEM file, or the one of a DER file."""
    data = Path(crl_file).read_bytes()
    mark = b"-----BEGIN X509 CRL-----"
    try:
        if mark not in data:
            return [x509.load_der_x509_crl(data)]
        return [x509.load_pem_x509_crl(mark + piece) for piece in data.split(mark)[1:]]
    except ValueError:
        raise CertificateError(f"{crl_file} holds no revocation list in PEM or DER form") from None


def note_and_go_on(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, is_good: int) -> bool:
    """A verify callback that refuses nothing: the facts will tell."""
    if error and not _is_server_as_client(certificate, error, depth):
        noted = connection.get_app_data()
        if isinstance(noted, Handshake) and not noted.verify_error:
            noted.verify_error, noted.verify_depth = error, depth
    return True


def note_and_refuse(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, is_good: int) -> bool:
    """A verify callback that refuses what is not good, so that the peer gets the alert that says why."""
    note_and_go_on(connection, certificate, error, depth, is_good)
    return bool(is_good) or _is_server_as_client(certificate, error, depth)


def _is_server_as_client(certificate: crypto.X509, error: int, depth: int) -> bool:
    """A mail server that shows its server certificate as a client: public authorities no longer issue the usage
    "client", so its absence says nothing. The chain is checked all the same."""
    return (
        error == SSL.X509VerificationCodes.ERR_INVALID_PURPOSE
        and depth == 0
        and "server" in usages_of(certificate.to_cryptography())
    )


def endpoint_of(certificate: x509.Certificate) -> bytes:
    """The tls-server-end-point binding (RFC 5929 section 4.1); b"" where the signature names no hash."""
    chosen = certificate.signature_hash_algorithm
    if chosen is None:
        return b""
    if chosen.name in ("md5", "sha1"):
        chosen = hashes.SHA256()
    digest = hashes.Hash(chosen)
    digest.update(certificate.public_bytes(Encoding.DER))
    return digest.finalize()


def own_endpoint(connection: SSL.Connection) -> bytes:
    """The binding of the certificate that this server showed."""
    known = connection.get_context().get_app_data()
    if not known:
        return b""
    if len(known) == 1:
        return bytes(known[0][1])
    shown = connection.get_certificate(as_cryptography=True)
    if shown is None:
        return b""
    return endpoint_of(shown)


def peer_endpoint(connection: SSL.Connection) -> bytes:
    """The binding of the certificate that the server over there showed."""
    shown = connection.get_peer_certificate(as_cryptography=True)
    return endpoint_of(shown) if shown is not None else b""
