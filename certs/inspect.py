"""What a certificate says, as plain data and as text for people."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.issue import USAGES
from certs.keys import key_length, kind_of
from certs.names import Name, common_name, names_of

_USAGE_NAMES = {oid: name for name, oid in USAGES.items()}


@dataclass(frozen=True, slots=True)
class Description:
    """Times are aware, in UTC. Fingerprints are lower-case hexadecimal. `key` is the kind ("ec-p256"), `key_length`
    its bits, `usages` the extended key usages by short name or dotted number; none: any use."""

    subject: str
    issuer: str
    common_name: str
    names: tuple[Name, ...]
    serial: str
    valid_from: datetime.datetime
    valid_to: datetime.datetime
    key: str
    key_length: int
    signature: str
    usages: tuple[str, ...]
    is_authority: bool
    is_self_issued: bool
    sha256: str
    sha1: str

    def as_json(self) -> dict[str, object]:
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "common_name": self.common_name,
            "names": [f"{kind}:{name}" for kind, name in self.names],
            "serial": self.serial,
            "valid_from": self.valid_from.isoformat(),
            "valid_to": self.valid_to.isoformat(),
            "key": self.key,
            "key_length": self.key_length,
            "signature": self.signature,
            "usages": list(self.usages),
            "is_authority": self.is_authority,
            "is_self_issued": self.is_self_issued,
            "sha256": self.sha256,
            "sha1": self.sha1,
        }

    def lines(self, now: datetime.datetime) -> list[str]:
        """For people: label and value, one fact a line."""
        rows = [
            ("subject", self.subject or "(empty)"),
            ("issuer", "itself" if self.is_self_issued else self.issuer),
            ("names", ", ".join(name for _, name in self.names) or "(none)"),
            ("valid", f"{self.valid_from:%Y-%m-%d %H:%M} to {self.valid_to:%Y-%m-%d %H:%M} UTC, {self._rest(now)}"),
            ("key", f"{self.key}, {self.key_length} bits"),
            ("signature", self.signature),
            ("use", "authority" if self.is_authority else ", ".join(self.usages) or "any"),
            ("serial", self.serial),
            ("sha256", self.sha256),
            ("sha1", self.sha1),
        ]
        return [f"{label:<10} {value}" for label, value in rows]

    def _rest(self, now: datetime.datetime) -> str:
        if now < self.valid_from:
            return "not yet valid"
        rest = self.valid_to - now
        if rest.total_seconds() <= 0:
            return "expired"
        return f"{rest.days} days left" if rest.days != 1 else "1 day left"


def describe(certificate: x509.Certificate) -> Description:
    public = _public_key(certificate)
    return Description(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        common_name=common_name(certificate),
        names=tuple(names_of(certificate)),
        serial=f"{certificate.serial_number:x}",
        valid_from=certificate.not_valid_before_utc,
        valid_to=certificate.not_valid_after_utc,
        key=kind_of(public),
        key_length=key_length(public),
        signature=_signature(certificate),
        usages=usages_of(certificate),
        is_authority=is_authority(certificate),
        is_self_issued=certificate.subject == certificate.issuer,
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        sha1=certificate.fingerprint(hashes.SHA1()).hex(),
    )


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except ValueError:  # a kind of key that `cryptography` does not know; all else can still be told
        return None
    except Exception as error:  # UnsupportedAlgorithm, which is no ValueError
        if type(error).__name__ != "UnsupportedAlgorithm":
            raise
        return None


def _signature(certificate: x509.Certificate) -> str:
    name: str = getattr(certificate.signature_algorithm_oid, "_name", "") or ""
    return name if name and name != "Unknown OID" else certificate.signature_algorithm_oid.dotted_string


def usages_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The extended key usages by short name or dotted number; () where there is no such extension."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(_USAGE_NAMES.get(one, one.dotted_string) for one in usages)


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
