"""What each subcommand of `python -m certs` does. Each takes the parsed arguments and returns an Answer.

Not here: the arguments themselves and how an answer is printed (__main__.py).
"""

from __future__ import annotations

import argparse
import datetime
import getpass
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import tlsa
from certs.check import problems_of_bundle
from certs.files import read_bundle, read_certificates, write_file
from certs.fitting import read_revocation_lists
from certs.inspect import describe
from certs.issue import revocation_list
from certs.keys import read_key
from certs.samples import write_samples
from certs.store import CertificateStore, StoredCertificate, read_request
from certs.trouble import CertificateError


@dataclass(slots=True)
class Answer:
    """`lines` for people, `data` for --json; `code` is the exit code."""

    lines: list[str]
    data: dict[str, object] = field(default_factory=dict)
    code: int = 0


def password_from(source: str, prompt: str) -> str:
    """A password: from the first line of a file, "-" the standard input, "ask" the terminal, "" none. Never from an
    argument, which every user of the machine can read."""
    if not source:
        return ""
    if source == "ask":
        return getpass.getpass(f"{prompt}: ")
    if source == "-":
        return sys.stdin.readline().rstrip("\r\n")
    lines = Path(source).read_text(encoding="utf-8").splitlines()
    return lines[0] if lines else ""


def _store(args: argparse.Namespace, *, create: bool = True) -> CertificateStore:
    password = password_from(args.key_password, "password of the private key")
    return CertificateStore.open(args.folder, password, create=create)


def _made(store: CertificateStore, item: StoredCertificate) -> Answer:
    folder = Path(store.folder)
    files = [str(folder / f"{item.name}.pem")] + ([str(folder / f"{item.name}.key")] if item.has_key else [])
    now = datetime.datetime.now(datetime.UTC)
    lines = [*item.description.lines(now), *(f"{'wrote':<10} {one}" for one in files)]
    return Answer(lines, {"name": item.name, "files": files, "certificate": item.description.as_json()})


def self_signed(args: argparse.Namespace) -> Answer:
    store = _store(args)
    item = store.create_self_signed(
        args.names, name=args.name, kind=args.key_type, days=args.days, subject=args.subject, usages=args.usage
    )
    return _made(store, item)


def ca(args: argparse.Namespace) -> Answer:
    store = _store(args)
    item = store.create_authority(
        args.subject, name=args.name, kind=args.key_type, days=args.days, parent=args.parent or None
    )
    return _made(store, item)


def issue(args: argparse.Namespace) -> Answer:
    store = _store(args)
    item = store.create_signed(
        args.names,
        args.ca,
        name=args.name,
        kind=args.key_type,
        days=args.days,
        subject=args.subject,
        usages=args.usage,
    )
    return _made(store, item)


def csr(args: argparse.Namespace) -> Answer:
    store = _store(args)
    name, pem = store.create_request(args.names, name=args.name, kind=args.key_type, subject=args.subject)
    files = [str(store.folder / f"{name}{ending}") for ending in (".csr", ".key")]
    text = pem.decode("ascii")
    lines = [*(f"{'wrote':<10} {one}" for one in files), *text.splitlines()]
    return Answer(lines, {"name": name, "files": files, "request": text})


def sign(args: argparse.Namespace) -> Answer:
    store = _store(args)
    asked = read_request(Path(args.request).read_bytes(), args.request)
    item = store.sign_csr(asked, args.ca, days=args.days, names=args.names, usages=args.usage, name=args.name)
    return _made(store, item)


def revoke(args: argparse.Namespace) -> Answer:
    store = _store(args)
    revoked = [store.get(name).certificate for name in args.names]
    pem = revocation_list(store.pair(args.ca), revoked, days=args.days).public_bytes(Encoding.PEM)
    path = Path(args.out) if args.out else store.folder / f"{args.ca}.crl"
    write_file(path, pem)
    return Answer(
        [f"{'wrote':<10} {path}"], {"files": [str(path)], "revoked": [f"{one.serial_number:x}" for one in revoked]}
    )


def listing(args: argparse.Namespace) -> Answer:
    store = _store(args, create=False)
    items = store.items
    width = max((len(one.name) for one in items), default=0)
    lines = [
        f"{one.name:<{width}}  {'key' if one.has_key else '   '}  until {one.valid_to:%Y-%m-%d}  "
        f"{', '.join(name for _, name in one.description.names) or one.description.subject}"
        for one in items
    ]
    data = [{"name": one.name, "has_key": one.has_key, **one.description.as_json()} for one in items]
    unreadable = store.unreadable()
    return Answer(lines + [f"error: {one}" for one in unreadable], {"items": data, "unreadable": unreadable})


def show(args: argparse.Namespace) -> Answer:
    certificates, key = _bundle(args)
    now = datetime.datetime.now(datetime.UTC)
    lines: list[str] = []
    for n, one in enumerate(certificates):
        lines += ([""] if n else []) + describe(one).lines(now)
    if key is not None:
        lines += ["", "the file holds a private key too"]
    data = {"certificates": [describe(one).as_json() for one in certificates], "has_key": key is not None}
    return Answer(lines, data)


def check(args: argparse.Namespace) -> Answer:
    certificates, key = _bundle(args)
    if args.key:
        key = read_key(Path(args.key).read_bytes(), password_from(args.key_password, "password of the key"), args.key)
    for path in args.chain:
        certificates += read_certificates(Path(path).read_bytes(), path)
    problems = problems_of_bundle(
        certificates,
        now=datetime.datetime.now(datetime.UTC),
        key=key,
        hosts=args.host,
        purpose=args.purpose,
        roots=_roots(args.roots),
        revocations=read_revocation_lists(args.crl) if args.crl else (),
        warn_days=args.warn_days,
    )
    code = 1 if any(one.is_error for one in problems) else 0
    lines = [str(one) for one in problems] or ["good"]
    data = {
        "good": not code,
        "problems": [{"what": one.what, "text": one.text, "is_error": one.is_error} for one in problems],
    }
    return Answer(lines, data, code)


def pfx_import(args: argparse.Namespace) -> Answer:
    store = _store(args)
    password = password_from(args.password, "password of the PFX file")
    return _made(store, store.import_from_pfx(args.file, password, name=args.name))


def pfx_export(args: argparse.Namespace) -> Answer:
    store = _store(args, create=False)
    password = password_from(args.password, "password for the PFX file")
    path = Path(args.out) if args.out else store.folder / f"{args.certificate}.pfx"
    store.export_to_pfx(args.certificate, password, path)
    lines = [f"{'wrote':<10} {path}"]
    if not password:
        lines.append("warning: the private key in it is not encrypted (see --password)")
    return Answer(lines, {"files": [str(path)], "encrypted": bool(password)})


def cer_import(args: argparse.Namespace) -> Answer:
    store = _store(args)
    return _made(store, store.import_from_cer(args.file, name=args.name))


def tlsa_record(args: argparse.Namespace) -> Answer:
    certificates, _ = _bundle(args)
    one = certificates[0]
    if args.tlsa_usage == 2:
        if len(certificates) < 2:
            raise CertificateError(f"usage 2 names an authority, and {args.certificate} holds no chain")
        one = certificates[-1]
    hosts = args.host or [name for kind, name in describe(certificates[0]).names if kind == "dns" and "*" not in name]
    if not hosts:
        raise CertificateError("name the mail server that the record is for with --host")
    records = [
        tlsa.tlsa_record(
            one, host, port=args.port, usage=args.tlsa_usage, selector=args.selector, matching=args.matching
        )
        for host in hosts
    ]
    return Answer(records, {"records": records})


def samples(args: argparse.Namespace) -> Answer:
    files = [str(one) for one in write_samples(args.folder_to_write, args.host)]
    return Answer([f"{'wrote':<10} {one}" for one in files], {"files": files})


def _bundle(args: argparse.Namespace) -> tuple[list[x509.Certificate], object | None]:
    """A file, or the name of a certificate in the folder."""
    path = Path(args.certificate)
    if not path.exists():
        beside = Path(args.folder) / f"{args.certificate}.pem"
        if not beside.exists():
            raise CertificateError(f"{args.certificate} is neither a file nor a certificate in {args.folder}")
        path = beside
    secret = password_from(args.password, "password of the file")
    certificates, key = read_bundle(path, secret)
    if not certificates:
        raise CertificateError(f"{path} holds no certificate")
    return list(certificates), key


def _roots(wanted: str) -> list[x509.Certificate] | None:
    if not wanted:
        return None
    if wanted != "system":
        return read_certificates(Path(wanted).read_bytes(), wanted)
    for place in SYSTEM_ROOTS:
        if Path(place).exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old roots there, which nobody here can mend
                return read_certificates(Path(place).read_bytes(), place)
    raise CertificateError("the system's trusted authorities were not found: name a file with --roots")


# Debian and its kin, Fedora and its kin, openSUSE, the BSDs and macOS.
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

Command = Callable[[argparse.Namespace], Answer]
