"""Certificates and keys in files: PEM, DER (CER) and PFX in; PEM, DER and PFX out.

Rules: what kind a file is, its content tells, not its name. A private key is written with mode 0600 and every file
atomically: a reader, or a crash, finds the old file or the new one, never half.

Not here: keys alone (keys.py), a folder of many (store.py).
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12, serialize_key_and_certificates

from certs.keys import PrivateKey, key_to_pem, public_bytes, read_key
from certs.names import common_name, hosts_of
from certs.trouble import CertificateError

# No pattern reaches over a beginning to a later end: on a file of beginnings alone that would take hours.
_BEGINNING = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_CERTIFICATE = re.compile(_BEGINNING.pattern + rb"[^-]+-----END (?:TRUSTED |X509 )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY)-----(?:[^-]|-(?!----))+-----END \1-----")
_LARGEST = 16 * 1024 * 1024  # the authorities of a whole system take a quarter of a megabyte


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its private key and the authorities between it and the root, nearest first."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def hosts(self) -> list[str]:
        """The host names that it covers; the common name where it names none."""
        hosts = hosts_of(self.certificate)
        name = common_name(self.certificate).lower()
        return hosts or ([name] if name else [])


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Where a pair lies. `key` is "" where the certificate's file holds the key too (PEM with both, PFX). `names` are
    the SNI names it serves; none: those in the certificate."""

    certificate: str
    key: str = ""
    password: str = ""
    names: tuple[str, ...] = ()

    def read(self) -> Pair:
        return read_pair(self.certificate, self.key, self.password)

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.certificate, self.key) if self.key else (self.certificate,)


def read_pair(certificate: str | Path, key: str | Path = "", password: str = "") -> Pair:
    """A pair from one or two files. CertificateError where the key is not the certificate's, or a file is not what it
    should be; OSError where one can't be read."""
    data = read_content(certificate)
    where = str(certificate)
    if not _CERTIFICATE.search(data):
        pfx = _try_pfx(data, password, where)
        if pfx is not None:
            return pfx
    certificates = read_certificates(data, where)
    key_data = read_content(key) if key else data
    key_where = str(key) if key else where
    found = _KEY.search(key_data)
    if found is None and not key:
        raise CertificateError(f"{where} holds no private key: name the file that does")
    private = read_key(found[0] if found else key_data, password, key_where)
    return make_pair(certificates, private, where, key_where)


def read_content(path: str | Path) -> bytes:
    """A file's bytes; CertificateError for one too large to be what is looked for, OSError where it can't be read."""
    with Path(path).open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise CertificateError(f"{path} is larger than {_LARGEST >> 20} MiB: that is no file of certificates or keys")
    return data


def make_pair(certificates: list[x509.Certificate], key: PrivateKey, where: str, key_where: str) -> Pair:
    """The certificate that the key belongs to (the first in a file in order), all others as its chain."""
    wanted = public_bytes(key)
    for n, one in enumerate(certificates):
        if _public_bytes_of(one) == wanted:
            return Pair(one, key, tuple(certificates[:n] + certificates[n + 1 :]))
    raise CertificateError(f"the key in {key_where} is not the key of the certificate in {where}")


def _public_bytes_of(certificate: x509.Certificate) -> bytes:
    """Of its key; b"" for a kind of key that is unknown here, as an authority in a chain may have."""
    try:
        return public_bytes(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return b""


def read_certificates(data: bytes, where: str = "the file") -> list[x509.Certificate]:
    """All certificates in PEM or DER data, in their order; CertificateError where there is none, or half a one."""
    if not data.strip():
        raise CertificateError(f"{where} is empty: a certificate is due there")
    try:
        found = [x509.load_pem_x509_certificate(one[0]) for one in _CERTIFICATE.finditer(data)]
        if not found and b"-----BEGIN" not in data:
            found = [x509.load_der_x509_certificate(data)]
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateError(f"{where} holds a certificate that can't be read: {error}") from None
    if len(found) < len(_BEGINNING.findall(data)):
        raise CertificateError(f"{where} breaks off within a certificate: a BEGIN line has no END line")
    if not found:
        raise CertificateError(f"{where} holds no certificate")
    return found


def read_pfx(
    data: bytes, password: str = "", where: str = "the file"
) -> tuple[PrivateKey | None, list[x509.Certificate]]:
    """Key and certificates of a PFX (PKCS#12), the key's own certificate first."""
    try:
        bag = load_pkcs12(data, password.encode() if password else None)
    except ValueError as error:
        if "password" in str(error).lower():
            wrong = "the password is wrong" if password else "its password is needed"
            raise CertificateError(f"{where} can't be decrypted: {wrong}") from None
        raise CertificateError(f"{where} is no PFX file") from None
    certificates = [bag.cert.certificate] if bag.cert else []
    certificates += [one.certificate for one in bag.additional_certs]
    return bag.key, certificates  # type: ignore[return-value]


def _try_pfx(data: bytes, password: str, where: str) -> Pair | None:
    if b"-----BEGIN" in data:
        return None
    try:
        key, certificates = read_pfx(data, password, where)
    except CertificateError as error:
        if str(error).endswith("is no PFX file"):
            return None
        raise
    if key is None:
        raise CertificateError(f"{where} holds no private key")
    return make_pair(certificates, key, where, where)


def pfx_of(pair: Pair, password: str = "", name: str = "") -> bytes:
    """The pair with its chain as PFX."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    label = (name or common_name(pair.certificate) or "certificate").encode()
    return serialize_key_and_certificates(label, pair.key, pair.certificate, list(pair.chain) or None, encryption)


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def write_pair(pair: Pair, certificate_path: Path, key_path: Path, password: str = "") -> None:
    """The certificate with its chain, and the key. The key goes first: who sees the new certificate finds its key."""
    write_file(key_path, key_to_pem(pair.key, password), private=True)
    write_file(certificate_path, pem_of(pair.certificate, *pair.chain))


def write_file(path: Path, data: bytes, private: bool = False) -> None:
    """Write whole or not at all, synced; mode 0600 where `private`, else 0644."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bundle(path: str | Path, password: str = "") -> tuple[list[x509.Certificate], PrivateKey | None]:
    """All that a PEM, DER or PFX file holds, in its order: certificates, and a private key where there is one."""
    data = read_content(path)
    where = str(path)
    if b"-----BEGIN" in data:
        found = _KEY.search(data)
        return read_certificates(data, where), read_key(found[0], password, where) if found else None
    try:
        return read_certificates(data, where), None
    except CertificateError:
        try:
            key, certificates = read_pfx(data, password, where)
        except CertificateError as error:
            if str(error).endswith("is no PFX file"):
                raise CertificateError(f"{where} is neither PEM, nor DER, nor PFX") from None
            raise
        return certificates, key
