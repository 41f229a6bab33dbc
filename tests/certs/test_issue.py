"""Certificates as they are made: self-signed, issued, requested, revoked."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs.check import path_of, signed_by
from certs.files import Pair, read_pair
from certs.inspect import describe
from certs.issue import Wish, authority, ensure_self_signed, issue, request, revocation_list, self_signed, sign_request
from certs.keys import KINDS, new_key
from certs.names import names_of
from certs.trouble import CertificateError


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("rsa-3072", "rsa-4096")])
def test_a_self_signed_certificate_of_every_kind_vouches_for_itself(kind: str) -> None:
    certificate, _ = self_signed(["mx.example.com", "192.0.2.1", "ann@example.com"], kind=kind)
    told = describe(certificate)
    assert signed_by(certificate, certificate)
    assert told.key == kind and told.usages == ("server",) and not told.is_authority
    assert told.names == (("dns", "mx.example.com"), ("ip", "192.0.2.1"), ("email", "ann@example.com"))


def test_a_leaf_stands_under_two_authorities(root: Pair, between: Pair, leaf: Pair) -> None:
    assert path_of(leaf.certificate, [root.certificate, between.certificate]) == [between.certificate, root.certificate]
    assert leaf.chain == (between.certificate,), "the root is not sent along"


def test_an_authority_may_sign_and_a_leaf_may_not(root: Pair, leaf: Pair) -> None:
    usage = root.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign
    usage = leaf.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign


def test_validity_is_what_was_asked_for(root: Pair) -> None:
    begins = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    ends = begins + datetime.timedelta(days=90)
    made = issue(Wish(("mx.test",), valid_from=begins, valid_to=ends), root).certificate
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (begins, ends)
    with pytest.raises(CertificateError, match="before it begins"):
        issue(Wish(("mx.test",), valid_from=ends, valid_to=begins), root)


def test_usages_by_name_and_number(root: Pair) -> None:
    made = issue(Wish(("ann@mx.test",), usages=("client", "email", "1.3.6.1.5.5.7.3.17")), root).certificate
    assert describe(made).usages == ("client", "email", "1.3.6.1.5.5.7.3.17")
    with pytest.raises(CertificateError, match="unknown usage"):
        issue(Wish(("mx.test",), usages=("everything",)), root)


def test_a_whole_subject_can_be_given() -> None:
    certificate, _ = self_signed(["mx.test"], subject="CN=Mail,O=Example Ltd,C=DE")
    assert describe(certificate).subject == "CN=Mail,O=Example Ltd,C=DE"


def test_a_host_name_too_long_for_a_common_name_stands_in_the_alternatives() -> None:
    host = "a" * 60 + ".example.com"
    certificate, _ = self_signed([host])
    assert describe(certificate).common_name == "" and names_of(certificate) == [("dns", host)]


def test_serial_numbers_are_random_and_differ() -> None:
    numbers = {self_signed(["mx.test"])[0].serial_number for _ in range(5)}
    assert len(numbers) == 5 and min(numbers) > 1 << 64


def test_a_request_is_signed_with_its_key_subject_and_names_alone(between: Pair) -> None:
    key = new_key()
    made = sign_request(request(Wish(("mx.test", "ann@mx.test")), key), between, days=10)
    assert made.public_key() == key.public_key()
    assert names_of(made) == [("dns", "mx.test"), ("email", "ann@mx.test")]
    assert signed_by(made, between.certificate)
    assert sign_request(request(Wish(("mx.test",)), key), between, names=["other.test"]) is not None


def test_a_request_never_becomes_an_authority(between: Pair) -> None:
    key = new_key()
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.test")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    assert not describe(sign_request(asked, between)).is_authority


def test_a_changed_request_is_refused(between: Pair) -> None:
    data = bytearray(request(Wish(("mx.test",)), new_key()).public_bytes(Encoding.DER))
    at = data.index(b"mx.test")
    data[at] ^= 1
    with pytest.raises(CertificateError, match="not signed by its own key"):
        sign_request(x509.load_der_x509_csr(bytes(data)), between)


def test_a_revocation_list_names_its_certificates(between: Pair, leaf: Pair) -> None:
    listed = revocation_list(between, [leaf.certificate])
    assert listed.is_signature_valid(between.certificate.public_key())  # type: ignore[arg-type]
    assert listed.get_revoked_certificate_by_serial_number(leaf.certificate.serial_number) is not None
    assert listed.get_revoked_certificate_by_serial_number(1) is None


def test_the_first_starts_certificate_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "tls"
    certificate, key = ensure_self_signed(folder, "mx.test")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = certificate.read_bytes()
    assert ensure_self_signed(folder, "mx.test") == (certificate, key)
    assert certificate.read_bytes() == made
    assert read_pair(certificate, key).hosts == ["mx.test", "localhost"]
    ensure_self_signed(folder, "other.test")
    assert certificate.read_bytes() != made


def test_a_damaged_first_certificate_is_made_again(tmp_path: Path) -> None:
    certificate, key = ensure_self_signed(tmp_path, "mx.test")
    key.write_bytes(b"")
    ensure_self_signed(tmp_path, "mx.test")
    assert read_pair(certificate, key).hosts[0] == "mx.test"


def test_an_authority_under_an_authority_may_be_limited(root: Pair) -> None:
    under = authority("Under", parent=root, path_length=0).certificate
    assert under.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
