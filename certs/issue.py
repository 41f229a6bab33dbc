"""Make certificates: self-signed, authorities, issued ones, requests, revocation lists.

Rules: everything a certificate says is in one frozen Wish; serial numbers are random (RFC 5280 4.1.2.2, 20 octets);
validity begins an hour early, for clocks that are behind. Nothing here reads or writes a file but ensure_self_signed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.files import Pair, read_pair, write_pair
from certs.keys import DEFAULT_KIND, PrivateKey, kind_of, new_key
from certs.names import common_name, general_name, names_of
from certs.trouble import CertificateError

USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "email": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
    "time": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp": ExtendedKeyUsageOID.OCSP_SIGNING,
}

_EARLY = datetime.timedelta(hours=1)
DEFAULT_DAYS = 365
AUTHORITY_DAYS = 3650
SELF_SIGNED_DAYS = 825  # the longest that Apple's clients take


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a certificate shall say. `names`: as names.general_name takes them. `subject` is a common name or an RFC
    4514 string ("CN=mx.example.com,O=Example"); "" takes the first name. `usages`: keys of USAGES. Times are aware;
    `valid_to` None is `days` after now."""

    names: tuple[str, ...] = ()
    subject: str = ""
    days: float = DEFAULT_DAYS
    usages: tuple[str, ...] = ("server",)
    is_authority: bool = False
    path_length: int | None = None
    valid_from: datetime.datetime | None = None
    valid_to: datetime.datetime | None = None
    crl_url: str = ""


def self_signed(
    names: Sequence[str],
    *,
    kind: str = DEFAULT_KIND,
    days: float = SELF_SIGNED_DAYS,
    subject: str = "",
    usages: Sequence[str] = ("server",),
    key: PrivateKey | None = None,
) -> tuple[x509.Certificate, PrivateKey]:
    """A certificate that vouches for itself, and its key."""
    key = key or new_key(kind)
    wish = Wish(tuple(names), subject, days, tuple(usages))
    return make(wish, key.public_key(), key), key


def authority(
    name: str,
    *,
    kind: str = DEFAULT_KIND,
    days: float = AUTHORITY_DAYS,
    path_length: int | None = None,
    parent: Pair | None = None,
) -> Pair:
    """A certification authority: a root, or one under `parent`."""
    wish = Wish((), name, days, (), is_authority=True, path_length=path_length)
    return issue(wish, parent, kind=kind)


def issue(wish: Wish, issuer: Pair | None, *, kind: str = DEFAULT_KIND, key: PrivateKey | None = None) -> Pair:
    """A new key (or `key`) and its certificate, signed by `issuer`, or by itself where that is None."""
    key = key or new_key(kind)
    if issuer is None:
        return Pair(make(wish, key.public_key(), key), key)
    return Pair(make(wish, key.public_key(), issuer.key, issuer.certificate), key, chain_under(issuer))


def chain_under(issuer: Pair) -> tuple[x509.Certificate, ...]:
    """What a server sends along with a certificate of this issuer: all authorities but the root."""
    return tuple(one for one in (issuer.certificate, *issuer.chain) if one.subject != one.issuer)


def make(
    wish: Wish,
    public_key: object,
    signing_key: PrivateKey,
    issuer: x509.Certificate | None = None,
) -> x509.Certificate:
    """The certificate itself."""
    names = [general_name(one) for one in wish.names]
    subject = subject_of(wish.subject or (wish.names[0] if wish.names else ""))
    if not names and not wish.subject:
        raise CertificateError("a certificate needs a name: give a host, an address or a mail address")
    now = _utc_now()
    begins = wish.valid_from or now - _EARLY
    ends = wish.valid_to or now + datetime.timedelta(days=wish.days)
    if ends <= begins:
        raise CertificateError(f"the validity ends ({ends:%Y-%m-%d}) before it begins ({begins:%Y-%m-%d})")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    for extension, is_critical in _extensions(wish, names, public_key, signing_key, issuer):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signing_key, hash_for(signing_key))


def _extensions(
    wish: Wish,
    names: list[x509.GeneralName],
    public_key: object,
    signing_key: PrivateKey,
    issuer: x509.Certificate | None,
) -> Iterable[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=wish.is_authority, path_length=wish.path_length if wish.is_authority else None), True
    yield _key_usage(wish.is_authority, kind_of(public_key)), True
    if wish.usages:
        yield x509.ExtendedKeyUsage([usage_oid(one) for one in wish.usages]), False
    if names:
        yield x509.SubjectAlternativeName(names), False
    yield x509.SubjectKeyIdentifier.from_public_key(public_key), False  # type: ignore[arg-type]
    yield _authority_key(signing_key, issuer), False
    if wish.crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(wish.crl_url)], None, None, None)
        yield x509.CRLDistributionPoints([point]), False


def _key_usage(is_authority: bool, kind: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=kind.startswith("rsa") and not is_authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(signing_key: PrivateKey, issuer: x509.Certificate | None) -> x509.AuthorityKeyIdentifier:
    if issuer is not None:
        try:
            own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        except x509.ExtensionNotFound:
            pass
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())


def usage_oid(name: str) -> x509.ObjectIdentifier:
    """An extended key usage by its short name or its dotted number."""
    if name in USAGES:
        return USAGES[name]
    try:
        return x509.ObjectIdentifier(name)
    except ValueError:
        raise CertificateError(f"unknown usage {name!r}: one of {', '.join(USAGES)}, or a dotted number") from None


def hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """The hash that a signature with this key takes; Ed25519 and Ed448 bring their own."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    return hashes.SHA384() if kind_of(key) == "ec-p384" else hashes.SHA256()


def subject_of(text: str) -> x509.Name:
    """A subject from a common name or an RFC 4514 string."""
    if "=" in text:
        try:
            return x509.Name.from_rfc4514_string(text)
        except ValueError as error:
            raise CertificateError(f"subject {text!r}: {error}; write it like CN=mx.example.com,O=Example") from None
    # RFC 5280 appendix A: a common name has at most 64 characters. A longer host name stands in the SAN alone.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if 0 < len(text) <= 64 else [])


def request(wish: Wish, key: PrivateKey) -> x509.CertificateSigningRequest:
    """A request (CSR, PKCS#10) for what `wish` says; an authority may grant another validity."""
    if not wish.names and not wish.subject:
        raise CertificateError("a request needs a name: give a host, an address or a mail address")
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_of(wish.subject or wish.names[0]))
    if wish.names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general_name(one) for one in wish.names]), False)
    if wish.usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage_oid(one) for one in wish.usages]), False)
    return builder.sign(key, hash_for(key))


def sign_request(
    asked: x509.CertificateSigningRequest,
    issuer: Pair,
    *,
    days: float = DEFAULT_DAYS,
    names: Sequence[str] = (),
    usages: Sequence[str] = ("server",),
) -> x509.Certificate:
    """The certificate for a request. Of the request only key, subject and names count; names given here replace its
    own. It never becomes an authority, whatever it asks for."""
    if not asked.is_signature_valid:
        raise CertificateError("the request is not signed by its own key: it was changed, or damaged")
    own = tuple(f"{kind}:{name}" for kind, name in names_of(asked) if kind in ("dns", "ip", "email"))
    subject = asked.subject.rfc4514_string() if len(asked.subject.rdns) else ""
    wish = Wish(tuple(names) or own, subject, days, tuple(usages))
    return make(wish, asked.public_key(), issuer.key, issuer.certificate)


def revocation_list(
    issuer: Pair, revoked: Iterable[x509.Certificate | int], *, days: float = 30
) -> x509.CertificateRevocationList:
    """A revocation list (CRL) that names these certificates, or serial numbers."""
    now = _utc_now()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - _EARLY)
        .next_update(now + datetime.timedelta(days=days))
        .add_extension(_authority_key(issuer.key, issuer.certificate), critical=False)
    )
    for one in revoked:
        serial = one if isinstance(one, int) else one.serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _EARLY).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hash_for(issuer.key))


def ensure_self_signed(folder: str | Path, hostname: str) -> tuple[Path, Path]:
    """The paths of a certificate and key for `hostname` in `folder`, made where there are none, where the one there
    is for another host, or has less than a day to live. The folder is made with mode 0700."""
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate_path, key_path = folder / "self-signed.pem", folder / "self-signed.key"
    if not _is_of_use(certificate_path, key_path, hostname):
        names = dict.fromkeys([hostname, "localhost", "127.0.0.1", "::1"])
        certificate, key = self_signed(list(names))
        write_pair(Pair(certificate, key), certificate_path, key_path)
    return certificate_path, key_path


def _is_of_use(certificate_path: Path, key_path: Path, hostname: str) -> bool:
    try:
        pair = read_pair(certificate_path, key_path)
    except (OSError, CertificateError):
        return False
    lives = pair.certificate.not_valid_after_utc - _utc_now()
    return lives > datetime.timedelta(days=1) and (
        hostname.lower() in pair.hosts or common_name(pair.certificate) == hostname
    )
