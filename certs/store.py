"""A folder of certificates and keys: NAME.pem (certificate and chain), NAME.key (mode 0600), NAME.csr (a request).

Rules: the folder is the whole truth and is read anew at each call, so that other programs may change it; files are
written atomically; a name never leaves the folder. A key without a certificate waits for it, and import_from_cer
brings them together.

Thread: any; two writers of one name are decided by who renames last.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs import issue
from certs.check import WARN_DAYS, Problem, path_of, problems_of
from certs.files import Pair, make_pair, pem_of, pfx_of, read_certificates, read_pfx, write_file
from certs.inspect import Description, describe, is_authority
from certs.issue import DEFAULT_DAYS, SELF_SIGNED_DAYS, Wish
from certs.keys import DEFAULT_KIND, PrivateKey, key_to_pem, new_key, public_bytes, read_key
from certs.names import any_covers, common_name, names_of
from certs.trouble import CertificateError

_UNSAFE = re.compile(r"[^A-Za-z0-9._@-]+")
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """One certificate of the store. `has_key`: its private key lies beside it."""

    name: str
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    has_key: bool
    description: Description

    @property
    def key_length(self) -> int:
        """Bits."""
        return self.description.key_length

    @property
    def enhanced_key_usage(self) -> tuple[str, ...]:
        """Short names ("server", "client", "email") or dotted numbers; () for any use."""
        return self.description.usages

    @property
    def valid_from(self) -> datetime.datetime:
        """UTC, aware."""
        return self.description.valid_from

    @property
    def valid_to(self) -> datetime.datetime:
        """UTC, aware."""
        return self.description.valid_to

    @property
    def thumbprint(self) -> str:
        """SHA-1 of the certificate in lower-case hexadecimal, as other certificate stores name it."""
        return self.description.sha1

    @property
    def emails(self) -> tuple[str, ...]:
        """The mail addresses it is for, those in old subjects included."""
        named = [name for kind, name in self.description.names if kind == "email"]
        old = self.certificate.subject.get_attributes_for_oid(x509.NameOID.EMAIL_ADDRESS)
        return tuple(dict.fromkeys([*named, *(str(one.value) for one in old)]))


class CertificateStore:
    """Certificates in `folder`; `password` encrypts the private keys that are written and opens those read."""

    def __init__(self, folder: str | Path, password: str = "") -> None:
        self.folder = Path(folder)
        self._password = password

    @classmethod
    def open(cls, folder: str | Path, password: str = "", *, create: bool = True) -> CertificateStore:
        """The store in this folder, which is made (mode 0700) where it is missing and `create` allows."""
        path = Path(folder)
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not path.is_dir():
            raise CertificateError(f"{path} is no folder")
        return cls(path, password)

    # -- look

    @property
    def items(self) -> list[StoredCertificate]:
        """All certificates, by name. A file that can't be read is left out; unreadable() names it."""
        found = []
        for path in self.folder.glob("*.pem"):
            try:
                found.append(self._read(path))
            except (CertificateError, OSError):
                continue
        return sorted(found, key=lambda one: one.name)

    def unreadable(self) -> list[str]:
        """One line for each file that should be a certificate and is none."""
        told = []
        for path in sorted(self.folder.glob("*.pem")):
            try:
                self._read(path)
            except (CertificateError, OSError) as error:
                told.append(str(error))
        return told

    def get(self, name: str) -> StoredCertificate:
        """The certificate of this name in the store; CertificateError where there is none."""
        path = self._path(name, ".pem")
        if not path.exists():
            raise CertificateError(f"no certificate {name!r} in {self.folder}")
        return self._read(path)

    def pair(self, item: StoredCertificate | str) -> Pair:
        """Certificate, chain and private key."""
        found = self.get(item) if isinstance(item, str) else item
        path = self._path(found.name, ".key")
        if not path.exists():
            raise CertificateError(f"{found.name} has no private key in {self.folder}")
        key = read_key(path.read_bytes(), self._password, str(path))
        if public_bytes(key) != public_bytes(found.certificate.public_key()):
            raise CertificateError(f"the key in {path} is not the key of the certificate beside it")
        return Pair(found.certificate, key, found.chain)

    def find_by_email(self, address: str) -> list[StoredCertificate]:
        """Those for this mail address: the local part as written, the domain in any case."""
        return [one for one in self.items if any(_same_mailbox(address, other) for other in one.emails)]

    def find_by_thumbprint(self, thumbprint: str) -> StoredCertificate | None:
        """By SHA-1 or SHA-256 in hexadecimal, with or without colons and spaces."""
        wanted = re.sub(r"[\s:]", "", thumbprint).lower()
        for one in self.items:
            if wanted in (one.description.sha1, one.description.sha256):
                return one
        return None

    def find_by_host(self, host: str) -> list[StoredCertificate]:
        """Those that cover this host name (wildcards too) or IP address; the one that lives longest first."""
        found = [one for one in self.items if any_covers(one.description.names, host)]
        return sorted(found, key=lambda one: one.valid_to, reverse=True)

    def verify(
        self,
        item: StoredCertificate | str,
        *,
        host: str = "",
        purpose: str = "server",
        roots: Sequence[x509.Certificate] | None = None,
        now: datetime.datetime | None = None,
        warn_days: int = WARN_DAYS[0],
    ) -> list[Problem]:
        """All that is wrong with it. `roots`: what is trusted; None: the roots in this store."""
        found = self.get(item) if isinstance(item, str) else item
        if roots is None:
            roots = [one.certificate for one in self.items if _is_root(one.certificate)]
        return problems_of(
            found.certificate,
            now=now or datetime.datetime.now(datetime.UTC),
            key=self.pair(found).key if found.has_key else None,
            chain=found.chain,
            hosts=[host] if host else [],
            purpose="authority" if is_authority(found.certificate) and not host else purpose,
            roots=roots,
            warn_days=warn_days,
        )

    # -- make

    def create_self_signed(
        self,
        names: Sequence[str],
        *,
        name: str = "",
        kind: str = DEFAULT_KIND,
        days: float = SELF_SIGNED_DAYS,
        subject: str = "",
        usages: Sequence[str] = ("server",),
    ) -> StoredCertificate:
        """A certificate that vouches for itself."""
        certificate, key = issue.self_signed(names, kind=kind, days=days, subject=subject, usages=usages)
        return self.add(Pair(certificate, key), name)

    def create_authority(
        self,
        subject: str,
        *,
        name: str = "",
        kind: str = DEFAULT_KIND,
        days: float = issue.AUTHORITY_DAYS,
        parent: StoredCertificate | str | None = None,
    ) -> StoredCertificate:
        """A certification authority of one's own; a root, or one under `parent`."""
        above = self.pair(parent) if parent is not None else None
        return self.add(issue.authority(subject, kind=kind, days=days, parent=above), name)

    def create_signed(
        self,
        names: Sequence[str],
        issuer: StoredCertificate | str,
        *,
        name: str = "",
        kind: str = DEFAULT_KIND,
        days: float = DEFAULT_DAYS,
        subject: str = "",
        usages: Sequence[str] = ("server",),
    ) -> StoredCertificate:
        """A certificate signed by an authority of this store, with its key."""
        wish = Wish(tuple(names), subject, days, tuple(usages))
        return self.add(issue.issue(wish, self._authority(issuer), kind=kind), name)

    def create_request(
        self, names: Sequence[str], *, name: str = "", kind: str = DEFAULT_KIND, subject: str = ""
    ) -> tuple[str, bytes]:
        """A key that stays here and a request (PEM) for an authority elsewhere; the name they have in the store."""
        key = new_key(kind)
        asked = issue.request(Wish(tuple(names), subject), key)
        chosen = self._free_name(name or common_name(asked) or names[0])
        pem = asked.public_bytes(Encoding.PEM)
        self._write_key(chosen, key)
        write_file(self._path(chosen, ".csr"), pem)
        return chosen, pem

    def sign_csr(
        self,
        request: bytes | x509.CertificateSigningRequest,
        issuer: StoredCertificate | str,
        *,
        days: float = DEFAULT_DAYS,
        names: Sequence[str] = (),
        usages: Sequence[str] = ("server",),
        name: str = "",
    ) -> StoredCertificate:
        """The certificate for somebody's request (PEM or DER), signed by an authority of this store."""
        asked = read_request(request) if isinstance(request, bytes) else request
        above = self._authority(issuer)
        certificate = issue.sign_request(asked, above, days=days, names=names, usages=usages)
        return self._keep(certificate, issue.chain_under(above), None, name or self._name_of_waiting_key(certificate))

    # -- in and out

    def add(self, pair: Pair, name: str = "") -> StoredCertificate:
        """Keep a certificate with its key and chain."""
        return self._keep(pair.certificate, pair.chain, pair.key, name)

    def remove(self, item: StoredCertificate | str) -> None:
        """Forget a certificate, its key and its request."""
        name = item if isinstance(item, str) else item.name
        if not self._path(name, ".pem").exists():
            raise CertificateError(f"no certificate {name!r} in {self.folder}")
        for ending in (".pem", ".key", ".csr"):
            self._path(name, ending).unlink(missing_ok=True)

    def import_from_pfx(self, source: str | Path | bytes, password: str = "", *, name: str = "") -> StoredCertificate:
        """Key, certificate and chain of a PFX (PKCS#12) file or its content."""
        data, where = _content(source)
        key, certificates = read_pfx(data, password, where)
        if not certificates:
            raise CertificateError(f"{where} holds no certificate")
        if key is None:
            return self._keep(certificates[0], tuple(certificates[1:]), None, name)
        return self.add(make_pair(certificates, key, where, where), name)

    def export_to_pfx(self, item: StoredCertificate | str, password: str = "", path: str | Path | None = None) -> bytes:
        """Key, certificate and chain as PFX; written to `path` with mode 0600 where one is given."""
        found = self.get(item) if isinstance(item, str) else item
        data = pfx_of(self.pair(found), password, found.name)
        if path is not None:
            write_file(Path(path), data, private=True)
        return data

    def import_from_cer(self, source: str | Path | bytes, *, name: str = "") -> StoredCertificate:
        """A certificate, with its chain where it brings one, from DER or PEM. It joins the key that waits for it."""
        data, where = _content(source)
        certificates = read_certificates(data, where)
        leaf = certificates[0]
        waiting = name or self._name_of_waiting_key(leaf)
        chain = tuple(path_of(leaf, certificates[1:])) or tuple(certificates[1:])
        return self._keep(leaf, chain, None, waiting)

    def export_to_cer(self, item: StoredCertificate | str, path: str | Path | None = None) -> bytes:
        """The certificate alone, in DER."""
        found = self.get(item) if isinstance(item, str) else item
        data = found.certificate.public_bytes(Encoding.DER)
        if path is not None:
            write_file(Path(path), data)
        return data

    def import_from_pem(
        self, source: str | Path | bytes, key: str | Path | bytes, password: str = ""
    ) -> StoredCertificate:
        """A certificate with chain and its private key from PEM (or DER)."""
        data, where = _content(source)
        key_data, key_where = _content(key)
        private = read_key(key_data, password, key_where)
        return self.add(make_pair(read_certificates(data, where), private, where, key_where))

    def export_to_pem(self, item: StoredCertificate | str, password: str = "") -> tuple[bytes, bytes]:
        """Certificate with chain, and private key (encrypted where a password is given)."""
        pair = self.pair(item)
        return pem_of(pair.certificate, *pair.chain), key_to_pem(pair.key, password)

    # -- within

    def _read(self, path: Path) -> StoredCertificate:
        certificates = read_certificates(path.read_bytes(), str(path))
        name = path.name.removesuffix(".pem")
        has_key = self._path(name, ".key").exists()
        return StoredCertificate(name, certificates[0], tuple(certificates[1:]), has_key, describe(certificates[0]))

    def _authority(self, issuer: StoredCertificate | str) -> Pair:
        pair = self.pair(issuer)
        if not is_authority(pair.certificate):
            name = issuer if isinstance(issuer, str) else issuer.name
            raise CertificateError(f"{name} is no authority and can't sign: make one with create_authority")
        return pair

    def _keep(
        self, certificate: x509.Certificate, chain: Sequence[x509.Certificate], key: PrivateKey | None, name: str
    ) -> StoredCertificate:
        chosen = self._name_for(certificate, name)
        if key is not None:
            self._write_key(chosen, key)
        elif self._path(chosen, ".key").exists() and not self._key_fits(chosen, certificate):
            raise CertificateError(f"{self._path(chosen, '.key')} is another certificate's key: choose another name")
        write_file(self._path(chosen, ".pem"), pem_of(certificate, *chain))
        self._path(chosen, ".csr").unlink(missing_ok=True)
        return self.get(chosen)

    def _name_for(self, certificate: x509.Certificate, wanted: str) -> str:
        if wanted:
            return self._checked(wanted)
        known = self.find_by_thumbprint(certificate.fingerprint(hashes.SHA256()).hex())
        if known is not None:
            return known.name
        names = [name for _, name in names_of(certificate)]
        return self._free_name(common_name(certificate) or (names[0] if names else "certificate"))

    def _free_name(self, wanted: str) -> str:
        plain = _UNSAFE.sub("_", wanted.replace("*", "_")).strip("._") or "certificate"
        plain, n = plain[:_MAX_NAME], 1
        name = plain
        while any(self._path(name, ending).exists() for ending in (".pem", ".key")):
            n += 1
            name = f"{plain}-{n}"
        return name

    def _name_of_waiting_key(self, certificate: x509.Certificate) -> str:
        for path in sorted(self.folder.glob("*.key")):
            name = path.name.removesuffix(".key")
            if not self._path(name, ".pem").exists() and self._key_fits(name, certificate):
                return name
        return ""

    def _key_fits(self, name: str, certificate: x509.Certificate) -> bool:
        path = self._path(name, ".key")
        try:
            key = read_key(path.read_bytes(), self._password, str(path))
        except CertificateError:
            return False
        return public_bytes(key) == public_bytes(certificate.public_key())

    def _write_key(self, name: str, key: PrivateKey) -> None:
        write_file(self._path(name, ".key"), key_to_pem(key, self._password), private=True)

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / (self._checked(name) + ending)

    def _checked(self, name: str) -> str:
        if not name or len(name) > _MAX_NAME + 10 or _UNSAFE.search(name) or name.startswith("."):
            raise CertificateError(f"{name!r} can't be a name in the store: letters, digits, . _ @ - alone")
        return name


def read_request(data: bytes, where: str = "the request") -> x509.CertificateSigningRequest:
    """A certificate signing request from PEM or DER."""
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_csr(data)
        return x509.load_der_x509_csr(data)
    except ValueError:
        raise CertificateError(f"{where} is no certificate request in PEM or DER form") from None


def _content(source: str | Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "the data"
    return Path(source).read_bytes(), str(source)


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and is_authority(certificate)


def _same_mailbox(one: str, other: str) -> bool:
    local, _, domain = one.rpartition("@")
    other_local, _, other_domain = other.rpartition("@")
    return local == other_local and domain.lower() == other_domain.lower()
