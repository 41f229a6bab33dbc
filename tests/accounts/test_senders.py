"""Which addresses a user may send as, and whom a certificate names."""

from __future__ import annotations

import pytest

from certs.facts import TlsFacts
from smtpd_core.accounts.certificate import certified_identity
from smtpd_core.accounts.senders import may_send_as
from smtpd_core.accounts.store import Account

ANN = Account("ann", email="ann@example.test", addresses=("sales@example.test", "@ann.example"))


@pytest.mark.parametrize(
    ("sender", "may"),
    [
        ("ann@example.test", True),
        ("Ann@EXAMPLE.test", True),
        ("ann+lists@example.test", True),
        ("sales@example.test", True),
        ("anybody@ann.example", True),
        ("", True),
        ("bob@example.test", False),
        ("annie@example.test", False),
        ("ann@example.test.evil.test", False),
        ("ann@sub.ann.example", False),
        ("x@notann.example", False),
        ("ann", False),
        ("@example.test", False),
    ],
)
def test_a_user_sends_as_himself(sender: str, may: bool) -> None:
    assert may_send_as(ANN, sender) is may


def test_a_user_name_that_is_an_address_is_his_own() -> None:
    assert may_send_as(Account("bob@example.test"), "bob@example.test")
    assert not may_send_as(Account("bob"), "bob@example.test")


def test_whoever_acts_as_another_sends_as_that_one_too() -> None:
    assert may_send_as(ANN, "bob@example.test", ["bob@example.test"])


@pytest.mark.parametrize(
    ("facts", "identity"),
    [
        ({"peer_names": ("mx.test", "ann@example.test"), "peer_subject": "CN=Other"}, "ann@example.test"),
        ({"peer_subject": "CN=ann,O=Example"}, "ann"),
        ({"peer_subject": "O=Example,CN=ann"}, "ann"),
        ({"peer_subject": "O=CN\\=root"}, ""),
        ({"peer_subject": "CN=ann", "peer_verified": False}, ""),
        ({"peer_subject": "CN=ann", "peer_error": "expired"}, ""),
        ({"peer_names": ("mx.test",)}, ""),
    ],
)
def test_a_certificate_names_a_user(facts: dict[str, object], identity: str) -> None:
    assert certified_identity(TlsFacts("TLSv1.3", "x", **{"peer_verified": True, **facts})) == identity  # type: ignore[arg-type]
