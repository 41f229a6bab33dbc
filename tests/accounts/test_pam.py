"""Accounts of the machine. PAM itself is not set up by a test; what it answers is."""

from __future__ import annotations

import pytest

from smtpd_core.accounts.pam import PamStore
from smtpd_core.accounts.store import StoreUnavailable

pamela = pytest.importorskip("pamela")


def test_a_stranger_is_refused_by_the_real_pam() -> None:
    try:
        assert PamStore("smtpd-core-test-other").verify("nobody-of-that-name", "x") is None
    except StoreUnavailable:
        pass  # a machine without a fallback service says that it can't tell


@pytest.mark.parametrize(
    ("code", "wrong"), [(7, True), (10, True), (13, True), (6, True), (9, False), (4, False), (3, False)]
)
def test_only_refusals_are_wrong_passwords(monkeypatch: pytest.MonkeyPatch, code: int, wrong: bool) -> None:
    def answer(*_: object, **__: object) -> None:
        raise pamela.PAMError("no", code)

    monkeypatch.setattr(pamela, "authenticate", answer)
    if wrong:
        assert PamStore().verify("ann", "x") is None
    else:
        with pytest.raises(StoreUnavailable):
            PamStore().verify("ann", "x")


def test_names_and_passwords_that_can_not_be_never_reach_pam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pamela, "authenticate", lambda *_, **__: True)
    for user, password in (("", "x"), ("ann", ""), ("ann\0", "x"), ("ann", "x\0y"), ("a b", "x")):
        assert PamStore().verify(user, password) is None
    assert PamStore().verify("ann", "x") is not None
    with pytest.raises(ValueError):
        PamStore("../etc/passwd")
