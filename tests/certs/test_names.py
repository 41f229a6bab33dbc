"""Names in certificates, and which hosts they cover."""

from __future__ import annotations

import pytest
from cryptography import x509

from certs.issue import self_signed
from certs.names import covers, covers_host, general_name, names_of, to_ascii
from certs.trouble import CertificateError


@pytest.mark.parametrize(
    "pattern, host, is_covered",
    [
        ("mx.example.com", "mx.example.com", True),
        ("mx.example.com", "MX.Example.COM.", True),
        ("mx.example.com", "mx2.example.com", False),
        ("*.example.com", "mx.example.com", True),
        ("*.example.com", "a.mx.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.com", "example.com", False),
        ("m*.example.com", "mx.example.com", False),
        ("xn--bcher-kva.example", "bücher.example", True),
    ],
)
def test_a_name_covers_a_host(pattern: str, host: str, is_covered: bool) -> None:
    assert covers(pattern, host) is is_covered


@pytest.mark.parametrize(
    "text, name",
    [
        ("mx.example.com", x509.DNSName("mx.example.com")),
        ("*.Example.com", x509.DNSName("*.example.com")),
        ("bücher.example", x509.DNSName("xn--bcher-kva.example")),
        ("ann@example.com", x509.RFC822Name("ann@example.com")),
        ("email:ann@Example.com", x509.RFC822Name("ann@example.com")),
        ("dns:localhost", x509.DNSName("localhost")),
    ],
)
def test_a_name_is_known_by_its_shape(text: str, name: x509.GeneralName) -> None:
    assert general_name(text) == name


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "[2001:db8::1]", "ip:192.0.2.1"])
def test_an_address_is_an_address(text: str) -> None:
    assert isinstance(general_name(text), x509.IPAddress)


@pytest.mark.parametrize("text", ["", "two words", "-x.example", "a..b", "@example.com", "ip:nine", "a." + "b" * 64])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(CertificateError):
        general_name(text)


def test_an_address_is_covered_by_an_address_alone() -> None:
    certificate, _ = self_signed(["192.0.2.1", "2001:db8::1", "mx.example.com"])
    assert covers_host(certificate, "192.0.2.1")
    assert covers_host(certificate, "[2001:db8:0::1]")
    assert not covers_host(certificate, "192.0.2.2")
    assert [kind for kind, _ in names_of(certificate)] == ["ip", "ip", "dns"]


def test_the_common_name_covers_nothing() -> None:
    certificate, _ = self_signed([], subject="mx.example.com")
    assert not covers_host(certificate, "mx.example.com")


def test_a_host_is_spelled_as_dns_does() -> None:
    assert to_ascii("*.Bücher.Example.") == "*.xn--bcher-kva.example"
