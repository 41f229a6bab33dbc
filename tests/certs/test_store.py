"""The certificate store: every way in, every way out, every way to find."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from certs.files import Pair, pem_of
from certs.issue import Wish, issue, request
from certs.keys import key_to_pem, new_key, public_bytes, read_key
from certs.store import CertificateStore
from certs.trouble import CertificateError


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore.open(tmp_path / "store")


def test_what_was_made_is_there_when_the_store_is_opened_again(store: CertificateStore) -> None:
    made = store.create_self_signed(["mx.test", "192.0.2.1"])
    again = CertificateStore.open(store.folder).items
    assert [one.name for one in again] == ["mx.test"]
    assert again[0].certificate == made.certificate and again[0].has_key
    assert (again[0].key_length, again[0].enhanced_key_usage) == (256, ("server",))
    assert again[0].valid_from < again[0].valid_to


def test_private_keys_are_for_their_owner_alone(store: CertificateStore) -> None:
    store.create_self_signed(["mx.test"])
    assert stat.S_IMODE((store.folder / "mx.test.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert not list(store.folder.glob(".*")), "nothing temporary is left"


def test_keys_are_encrypted_where_the_store_has_a_password(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path, "secret")
    item = store.create_self_signed(["mx.test"])
    assert b"ENCRYPTED" in (tmp_path / "mx.test.key").read_bytes()
    assert public_bytes(store.pair(item).key) == public_bytes(item.certificate.public_key())
    with pytest.raises(CertificateError, match="password"):
        CertificateStore.open(tmp_path).pair("mx.test")


def test_an_authority_signs_and_its_certificates_verify(store: CertificateStore) -> None:
    store.create_authority("Example Root", name="root")
    store.create_authority("Example Mail", name="mail", parent="root")
    leaf = store.create_signed(["mx.test"], "mail", kind="rsa-2048")
    assert len(leaf.chain) == 1
    assert store.verify(leaf, host="mx.test") == []
    assert store.verify("mail") == []
    assert [one.what for one in store.verify(leaf, host="other.test")] == ["name"]
    with pytest.raises(CertificateError, match="no authority"):
        store.create_signed(["x.test"], "mx.test")


def test_a_request_goes_out_and_the_answer_finds_its_key(
    store: CertificateStore, between: Pair, tmp_path: Path
) -> None:
    name, pem = store.create_request(["mx.test"])
    assert store.items == []
    there = CertificateStore.open(tmp_path / "authority")
    there.add(between, "authority")
    signed = there.sign_csr(pem, "authority", days=30)
    assert not signed.has_key
    item = store.import_from_cer(there.export_to_cer(signed))
    assert item.name == name and item.has_key
    assert store.pair(item).key is not None
    assert not (store.folder / f"{name}.csr").exists()


def test_a_request_signed_where_its_key_waits_joins_it(store: CertificateStore, between: Pair) -> None:
    store.add(between, "authority")
    name, pem = store.create_request(["mx.test"])
    signed = store.sign_csr(pem, "authority")
    assert signed.name == name and signed.has_key
    assert store.pair(signed).certificate == signed.certificate


def test_a_pfx_goes_out_and_comes_in_with_key_and_chain(store: CertificateStore, leaf: Pair, tmp_path: Path) -> None:
    store.add(leaf, "leaf")
    path = tmp_path / "leaf.pfx"
    data = store.export_to_pfx("leaf", "secret", path)
    assert path.read_bytes() == data and stat.S_IMODE(path.stat().st_mode) == 0o600
    other = CertificateStore.open(tmp_path / "other")
    item = other.import_from_pfx(path, "secret", name="again")
    assert (item.certificate, item.chain, item.has_key) == (leaf.certificate, leaf.chain, True)
    with pytest.raises(CertificateError, match="password is wrong"):
        other.import_from_pfx(path, "wrong")
    with pytest.raises(CertificateError, match="password is needed"):
        other.import_from_pfx(path)
    with pytest.raises(CertificateError, match="no PFX"):
        other.import_from_pfx(b"rubbish")


def test_pem_goes_out_and_comes_in(store: CertificateStore, leaf: Pair) -> None:
    item = store.import_from_pem(pem_of(leaf.certificate, *leaf.chain), key_to_pem(leaf.key, "x"), "x")
    certificate, key = store.export_to_pem(item, "secret")
    assert certificate == pem_of(leaf.certificate, *leaf.chain)
    assert public_bytes(read_key(key, "secret")) == public_bytes(leaf.key)
    with pytest.raises(CertificateError, match="not the key"):
        store.import_from_pem(certificate, key_to_pem(new_key()))


def test_certificates_are_found_by_mailbox_host_and_thumbprint(store: CertificateStore, between: Pair) -> None:
    store.add(issue(Wish(("ann@mx.test",), usages=("email",)), between), "ann")
    store.add(issue(Wish(("*.mx.test",), days=10), between), "wild")
    store.add(issue(Wish(("a.mx.test",), days=20), between), "a")
    assert [one.name for one in store.find_by_email("ann@MX.test")] == ["ann"]
    assert store.find_by_email("Ann@mx.test") == [], "the local part is the mail system's own affair"
    assert [one.name for one in store.find_by_host("A.mx.test")] == ["a", "wild"]
    item = store.get("wild")
    spelled = ":".join(item.thumbprint[n : n + 2] for n in range(0, 40, 2)).upper()
    for one in (item.thumbprint, spelled, item.description.sha256):
        found = store.find_by_thumbprint(one)
        assert found is not None and found.name == "wild"
    assert store.find_by_thumbprint("00" * 20) is None


def test_one_certificate_has_one_name_however_often_it_comes(store: CertificateStore, leaf: Pair) -> None:
    assert store.add(leaf).name == store.add(leaf).name
    assert len(store.items) == 1
    store.create_self_signed(["mx.test"])
    assert [one.name for one in store.items] == ["mx.test", "mx.test-2"]


def test_what_is_removed_is_gone_with_its_key(store: CertificateStore) -> None:
    item = store.create_self_signed(["mx.test"])
    store.remove(item)
    assert list(store.folder.iterdir()) == []
    with pytest.raises(CertificateError, match="no certificate"):
        store.remove("mx.test")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "nul\0", "x" * 200])
def test_no_name_leaves_the_folder(store: CertificateStore, name: str) -> None:
    with pytest.raises(CertificateError, match="can't be a name"):
        store.get(name)


def test_a_name_in_a_certificate_can_not_choose_a_path(store: CertificateStore) -> None:
    item = store.create_self_signed(["mx.test"], subject="../../etc/passwd")
    assert (store.folder / f"{item.name}.pem").exists()
    assert "/" not in item.name and not item.name.startswith(".")


def test_a_certificate_does_not_come_to_another_ones_key(store: CertificateStore, leaf: Pair, between: Pair) -> None:
    store.add(leaf, "mx")
    stranger = issue(Wish(("mx.test",)), between).certificate
    with pytest.raises(CertificateError, match="another certificate's key"):
        store.import_from_cer(pem_of(stranger), name="mx")


def test_a_file_that_can_not_be_read_is_named_and_hides_no_other(store: CertificateStore) -> None:
    store.create_self_signed(["mx.test"])
    (store.folder / "bad.pem").write_bytes(b"rubbish")
    assert [one.name for one in store.items] == ["mx.test"]
    assert len(store.unreadable()) == 1 and "bad.pem" in store.unreadable()[0]


def test_an_unfinished_request_of_the_same_name_is_not_overwritten(store: CertificateStore) -> None:
    assert store.create_request(["mx.test"])[0] == "mx.test"
    assert store.create_request(["mx.test"])[0] == "mx.test-2"
    assert request(Wish(("mx.test",)), new_key()) is not None
