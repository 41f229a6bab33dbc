"""What is wrong with a certificate, its key, its chain and its names: one line each.

Rules: an error means that it must not be served; a warning that somebody should look. `now` is an argument. The
chain is judged by signatures, names and times alone; whether a root is trusted is asked only where roots are given.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from certs.inspect import is_authority, usages_of
from certs.keys import key_length, kind_of, public_bytes
from certs.names import common_name, covers_host, names_of

WARN_DAYS = (30, 14, 7, 3, 1)

# RFC 9325 section 4.5: 2048 bits of RSA, 256 of an elliptic curve, and no SHA-1.
_LEAST_RSA = 2_048
_LEAST_EC = 256
_WEAK_HASHES = ("md5", "sha1")


@dataclass(frozen=True, slots=True)
class Problem:
    """`what` is a word to grep for ("expired", "name", ...), `text` the line for people."""

    what: str
    text: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.text}"


def problems_of(
    certificate: x509.Certificate,
    *,
    now: datetime.datetime,
    key: object | None = None,
    chain: Sequence[x509.Certificate] = (),
    hosts: Sequence[str] = (),
    purpose: str = "server",
    roots: Sequence[x509.Certificate] | None = None,
    revocations: Sequence[x509.CertificateRevocationList] = (),
    warn_days: int = WARN_DAYS[0],
) -> list[Problem]:
    """All that is wrong. `key` is the private (or public) key meant for it, `hosts` the names it must cover, `roots`
    what is trusted: None asks no such question."""
    found: list[Problem] = []
    if key is not None and public_bytes(key) != public_bytes(certificate.public_key()):
        found.append(Problem("mismatch", f"the key ({kind_of(key)}) is not the key of the certificate"))
    found += _times(certificate, "the certificate", now, warn_days)
    found += _strength(certificate, "the certificate")
    found += _names(certificate, hosts)
    found += _purpose(certificate, purpose)
    found += _chain(certificate, chain, now, roots is None)
    if roots is not None:
        found += _trust(certificate, chain, roots)
    found += _revoked(certificate, revocations, now)
    return found


def _times(certificate: x509.Certificate, which: str, now: datetime.datetime, warn_days: int = 0) -> Iterator[Problem]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        yield Problem("not-yet-valid", f"{which} is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    if now > ends:
        yield Problem("expired", f"{which} expired on {ends:%Y-%m-%d %H:%M} UTC")
    elif ends - now <= datetime.timedelta(days=warn_days):
        days = (ends - now).days
        when = f"in {days} days" if days > 1 else "in 1 day" if days == 1 else "within a day"
        yield Problem("expiring", f"{which} expires {when}, on {ends:%Y-%m-%d %H:%M} UTC", is_error=False)


def _strength(certificate: x509.Certificate, which: str) -> Iterator[Problem]:
    try:
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        yield Problem("weak", f"{which} has a kind of key that is not known here")
        return
    bits = key_length(public)
    if isinstance(public, rsa.RSAPublicKey) and bits < _LEAST_RSA:
        yield Problem("weak", f"{which} has an RSA key of {bits} bits; {_LEAST_RSA} or more would do")
    elif isinstance(public, ec.EllipticCurvePublicKey) and bits < _LEAST_EC:
        yield Problem("weak", f"{which} has an EC key of {bits} bits; {_LEAST_EC} or more would do")
    elif isinstance(public, dsa.DSAPublicKey):
        yield Problem("weak", f"{which} has a DSA key, which TLS no longer takes; EC or RSA would do")
    try:
        used = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        used = None
    if used is not None and used.name in _WEAK_HASHES and certificate.subject != certificate.issuer:
        yield Problem("weak", f"{which} is signed with {used.name.upper()}; SHA-256 or better would do")


def _names(certificate: x509.Certificate, hosts: Sequence[str]) -> Iterator[Problem]:
    names = names_of(certificate)
    missing = [host for host in hosts if not covers_host(certificate, host)]
    if missing:
        has = ", ".join(name for _, name in names) or "no name"
        yield Problem("name", f"{', '.join(missing)} is not covered: the certificate is for {has}")
    elif not names and not is_authority(certificate):
        only = common_name(certificate)
        text = f"the certificate names hosts in its subject alone ({only}); clients look at subjectAltName"
        yield Problem("name", text, is_error=False)


def _purpose(certificate: x509.Certificate, purpose: str) -> Iterator[Problem]:
    usages = usages_of(certificate)
    if purpose == "authority":
        if not is_authority(certificate):
            yield Problem("purpose", "the certificate is not an authority's")
        return
    if purpose and usages and purpose not in usages and "2.5.29.37.0" not in usages:
        yield Problem("purpose", f"the certificate is for {', '.join(usages)}, not for use as {purpose}")
    if is_authority(certificate) and certificate.subject != certificate.issuer:
        yield Problem("purpose", "the certificate is an authority's, not a server's", is_error=False)


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed it: the names agree and the signature is good."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def path_of(certificate: x509.Certificate, pool: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """The authorities above it, nearest first, as far as the pool goes; the order in the pool does not matter."""
    left = list(pool)
    path: list[x509.Certificate] = []
    current = certificate
    while current.subject != current.issuer:
        issuer = next((one for one in left if signed_by(current, one)), None)
        if issuer is None:
            break
        left.remove(issuer)
        path.append(issuer)
        current = issuer
    return path


def _chain(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime.datetime, asks_for_more: bool
) -> Iterator[Problem]:
    path = path_of(certificate, chain)
    for authority in path:
        name = authority.subject.rfc4514_string()
        yield from _times(authority, f"the authority {name}", now)
        if authority.subject != authority.issuer:
            yield from _strength(authority, f"the authority {name}")
        if not is_authority(authority):
            yield Problem("chain", f"{name} signed the one below it, but is no authority")
    if list(chain[: len(path)]) != path:
        right = ", ".join(one.subject.rfc4514_string() for one in path)
        yield Problem("chain", f"the chain is out of order; right is, after the certificate: {right}")
    strays = [one for one in chain if one not in path]
    for one in strays:
        text = f"{one.subject.rfc4514_string()} stands in the chain, but signed nothing in it"
        yield Problem("chain", text, is_error=False)
    if path and path[-1].subject == path[-1].issuer:
        text = (
            f"the root {path[-1].subject.rfc4514_string()} need not be in the chain: clients have it, or don't trust it"
        )
        yield Problem("chain", text, is_error=False)
    elif not path and certificate.subject != certificate.issuer and asks_for_more:
        # Issued by a root itself, it needs no chain; only who knows the roots can tell that from a missing link.
        issuer = certificate.issuer.rfc4514_string()
        text = f"the chain is incomplete: the certificate of {issuer} is not in it (right only where that is a root)"
        yield Problem("chain", text, is_error=bool(strays))


def _trust(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> Iterator[Problem]:
    if certificate in roots:
        return
    if certificate.subject == certificate.issuer:
        yield Problem("untrusted", "the certificate is self-signed and not among the trusted ones")
        return
    path = path_of(certificate, [*roots, *chain])
    if any(one in roots for one in path):
        return
    last = path[-1] if path else certificate
    if last.subject == last.issuer:
        yield Problem("untrusted", f"the root {last.subject.rfc4514_string()} is not among the trusted ones")
    else:
        issuer = last.issuer.rfc4514_string()
        yield Problem("chain", f"the chain is incomplete: {issuer} is neither in it nor trusted")


def _revoked(
    certificate: x509.Certificate, lists: Sequence[x509.CertificateRevocationList], now: datetime.datetime
) -> Iterator[Problem]:
    for one in lists:
        if one.issuer != certificate.issuer:
            continue
        ends = one.next_update_utc
        if ends is not None and now > ends:
            yield Problem("crl", f"the revocation list is out of date since {ends:%Y-%m-%d %H:%M} UTC", is_error=False)
        entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if entry is not None:
            yield Problem("revoked", f"the certificate was revoked on {entry.revocation_date_utc:%Y-%m-%d}")


def problems_of_bundle(
    certificates: Sequence[x509.Certificate],
    *,
    now: datetime.datetime,
    key: object | None = None,
    hosts: Sequence[str] = (),
    purpose: str = "server",
    roots: Sequence[x509.Certificate] | None = None,
    revocations: Sequence[x509.CertificateRevocationList] = (),
    warn_days: int = WARN_DAYS[0],
) -> list[Problem]:
    """The same for what a file holds: the certificate should come first, then its chain."""
    found: list[Problem] = []
    leaf, chain = certificates[0], list(certificates[1:])
    place = _place_of_leaf(certificates, key)
    if place:
        leaf = certificates[place]
        chain = [one for one in certificates if one is not leaf]
        text = f"the chain is out of order; {leaf.subject.rfc4514_string()} must come first"
        found.append(Problem("chain", text))
        chain = [*path_of(leaf, chain), *(one for one in chain if one not in path_of(leaf, chain))]
    return found + problems_of(
        leaf,
        now=now,
        key=key,
        chain=chain,
        hosts=hosts,
        purpose=purpose,
        roots=roots,
        revocations=revocations,
        warn_days=warn_days,
    )


def _place_of_leaf(certificates: Sequence[x509.Certificate], key: object | None) -> int:
    """Where the certificate itself stands: it has the key, or else is no authority while the first is one."""
    if key is not None:
        wanted = public_bytes(key)
        for n, one in enumerate(certificates):
            if public_bytes(one.public_key()) == wanted:
                return n
    if is_authority(certificates[0]):
        for n, one in enumerate(certificates):
            if not is_authority(one):
                return n
    return 0
