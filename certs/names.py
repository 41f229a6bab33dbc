"""The names in a certificate: DNS names, addresses, mailboxes; and whether they cover a host (RFC 9525)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import idna
from cryptography import x509

from certs.trouble import CertificateError

Name = tuple[str, str]  # kind ("dns", "ip", "email", "uri", "other") and its text


def is_address(text: str) -> bool:
    """Whether this is an IP address, in brackets or not."""
    try:
        ipaddress.ip_address(text.strip("[]").removeprefix("IPv6:"))
    except ValueError:
        return False
    return True


def to_ascii(host: str) -> str:
    """A host name as DNS and certificates spell it: lower-case A-labels, no final dot."""
    host = host.rstrip(".").lower()
    if host.isascii():
        return host
    prefix, rest = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    try:
        return prefix + idna.encode(rest, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise CertificateError(f"{host!r} is no host name: {error}") from None


def general_name(text: str) -> x509.GeneralName:
    """`mx.example.com`, `*.example.com`, `192.0.2.1`, `ann@example.com`, or one with its kind before it ("dns:",
    "ip:", "email:")."""
    kind, separator, value = text.partition(":")
    if not separator or kind.lower() not in ("dns", "ip", "email"):
        kind, value = _kind_of(text), text
    kind, value = kind.lower(), value.strip()
    try:
        if kind == "ip":
            return x509.IPAddress(ipaddress.ip_address(value.strip("[]").removeprefix("IPv6:")))
        if kind == "email":
            local, at, domain = value.rpartition("@")
            if not at or not local or not domain:
                raise CertificateError(f"{value!r} is no mail address; write local@domain")
            return x509.RFC822Name(f"{local}@{to_ascii(domain)}")
        return x509.DNSName(_checked_host(value))
    except ValueError as error:
        if isinstance(error, CertificateError):
            raise
        raise CertificateError(f"{text!r} can't be a name in a certificate: {error}") from None


def _kind_of(text: str) -> str:
    if "@" in text:
        return "email"
    return "ip" if is_address(text) else "dns"


def _checked_host(value: str) -> str:
    host = to_ascii(value)
    labels = host.split(".")
    if labels[0] == "*":
        labels = labels[1:]
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789-_"
    for label in labels:
        if not label or len(label) > 63 or label.strip(allowed) or label.startswith("-") or label.endswith("-"):
            raise CertificateError(f"{value!r} is no host name: write it like mx.example.com or *.example.com")
    if len(host) > 253:
        raise CertificateError(f"{value!r} is longer than the 253 characters of a host name")
    return host


def names_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[Name]:
    """The subject alternative names, in their order. The common name is not one of them (RFC 9525 section 2)."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except ValueError:  # a foreign certificate with an extension that can't be read has no names for us
        return []
    return [_name(one) for one in alternatives]


def _name(one: x509.GeneralName) -> Name:
    if isinstance(one, x509.DNSName):
        return "dns", one.value
    if isinstance(one, x509.IPAddress):
        return "ip", str(one.value)
    if isinstance(one, x509.RFC822Name):
        return "email", one.value
    if isinstance(one, x509.UniformResourceIdentifier):
        return "uri", one.value
    return "other", type(one).__name__


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names, lower-case."""
    return [name.lower() for kind, name in names_of(certificate) if kind == "dns"]


def common_name(certificate: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The subject's common name, or ""."""
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def covers(pattern: str, host: str) -> bool:
    """Whether a DNS name of a certificate covers this host: "*" stands for exactly one leftmost label."""
    pattern, host = pattern.lower().rstrip("."), to_ascii(host)
    if pattern == host:
        return True
    if not pattern.startswith("*."):
        return False
    first, _, rest = host.partition(".")
    return bool(first) and rest == pattern[2:] and "." in rest


def covers_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for this host name or IP address."""
    return any_covers(names_of(certificate), host)


def any_covers(names: Iterable[Name], host: str) -> bool:
    if is_address(host):
        address = str(ipaddress.ip_address(host.strip("[]").removeprefix("IPv6:")))
        return ("ip", address) in names
    return any(kind == "dns" and covers(name, host) for kind, name in names)
