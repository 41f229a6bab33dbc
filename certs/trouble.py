"""What can go wrong with TLS and certificates, in words that tell what, where, and what would be right."""

from __future__ import annotations

from OpenSSL import SSL
from OpenSSL.SSL import X509VerificationCodes as Codes


class TlsError(Exception):
    """A handshake or a TLS connection failed; the text says why."""


class CertificateError(ValueError):
    """A certificate, key or file is not what it should be; the text says what, where, and what would be right."""


# OpenSSL's reasons that an operator meets, in other words. All others are shown as OpenSSL says them.
_REASONS = {
    "unsupported protocol": "the peer speaks only TLS versions that are refused here",
    "version too low": "the peer speaks only TLS versions that are refused here",
    "tlsv1 alert protocol version": "the peer refuses the TLS versions that are spoken here",
    "no shared cipher": "no cipher in common with the peer",
    "no suitable signature algorithm": "no signature algorithm in common with the peer",
    "no suitable key share": "no key exchange group in common with the peer",
    "wrong version number": "what came is not TLS",
    "packet length too long": "what came is not TLS",
    "http request": "what came is HTTP, not TLS",
    "https proxy request": "what came is HTTP, not TLS",
    "no renegotiation": "the peer asked for renegotiation, which is refused",
    "peer did not return a certificate": "the client sent no certificate, and one is required",
    "tlsv13 alert certificate required": "the peer requires a certificate of ours",
    "unknown ca": "the peer does not know the authority of our certificate",
    "tlsv1 alert unknown ca": "the peer does not know the authority of our certificate",
    "sslv3 alert certificate unknown": "the peer does not accept our certificate",
    "sslv3 alert bad certificate": "the peer does not accept our certificate",
    "sslv3 alert certificate expired": "the peer finds our certificate expired",
    "ssl/tls alert certificate expired": "the peer finds our certificate expired",
    "ee key too small": "the certificate's key is too small",
    "ca md too weak": "the certificate is signed with a weak hash",
    "unexpected eof while reading": "the peer ended the connection without a close_notify",
}

_CHAIN = {
    Codes.ERR_CERT_HAS_EXPIRED: "expired",
    Codes.ERR_CERT_NOT_YET_VALID: "not yet valid",
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "self-signed",
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "issued by an authority that is not trusted here",
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: "issued by an authority that is not known here",
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "issued by an authority that is not known here",
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "issued by an authority that is not known here",
    Codes.ERR_CERT_REVOKED: "revoked",
    Codes.ERR_UNABLE_TO_GET_CRL: "not covered by any revocation list here",
    Codes.ERR_CRL_HAS_EXPIRED: "covered only by a revocation list that is out of date",
    Codes.ERR_CRL_NOT_YET_VALID: "covered only by a revocation list that is not yet valid",
    Codes.ERR_INVALID_PURPOSE: "not made for this use",
    Codes.ERR_INVALID_CA: "issued by a certificate that is no authority",
    Codes.ERR_PATH_LENGTH_EXCEEDED: "under more authorities than its chain allows",
    Codes.ERR_CERT_SIGNATURE_FAILURE: "wrongly signed",
    Codes.ERR_CERT_CHAIN_TOO_LONG: "at the end of too long a chain",
}


def chain_trouble(code: int, depth: int = 0) -> str:
    """What OpenSSL's verification code says of the certificate at `depth`; "" for a good one."""
    if not code:
        return ""
    what = "the certificate is" if depth == 0 else "a certificate above it is"
    return f"{what} {_CHAIN.get(code, f'not good (verification code {code})')}"


def why_it_failed(error: SSL.Error, verify_error: int = 0) -> str:
    """One clear line for what OpenSSL raised."""
    if verify_error:
        return "the peer's certificate was refused: " + chain_trouble(verify_error)
    if isinstance(error, SSL.SysCallError):
        return _REASONS["unexpected eof while reading"]
    reasons = [one[-1] for one in (error.args[0] if error.args and isinstance(error.args[0], list) else []) if one]
    for reason in reasons:
        if reason in _REASONS:
            return f"{_REASONS[reason]} ({reason})" if _REASONS[reason] != reason else reason
    return "; ".join(filter(None, reasons)) or "the TLS connection failed"
