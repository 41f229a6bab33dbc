"""Accounts of the machine, with the real PAM: a service of the test's own, whose users a script knows."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smtpd_core.accounts.pam import PamStore
from smtpd_core.accounts.store import Account, StoreUnavailable

pamela = pytest.importorskip("pamela")


def test_a_stranger_is_refused_by_the_real_pam() -> None:
    try:
        assert PamStore("smtpd-core-test-other").verify("nobody-of-that-name", "x") is None
    except StoreUnavailable:
        pass  # a machine without a fallback service says that it can't tell


SERVICES = Path("/etc/pam.d")
# As pam_exec runs it: the name in the environment, the password on its standard input, ended by NUL.
SCRIPT = """\
#!/bin/sh
[ "$PAM_USER" = ann ] && [ "$(tr -d '\\000')" = "corr\xe8ct horse" ]
"""
# pam_exec says "system error" where its command fails, so the refusal is pam_deny's.
SERVICE = """\
auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {script}
auth requisite pam_deny.so
auth required pam_permit.so
account required {account}
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Writes a service and says its name."""
    if not os.access(SERVICES, os.W_OK):
        pytest.skip("only root can make a service of PAM")
    script = tmp_path / "check"
    script.write_text(SCRIPT)
    script.chmod(0o700)
    made = []

    def make(account: str = "pam_permit.so") -> str:
        path = SERVICES / f"smtpd-core-test-{uuid.uuid4().hex[:12]}"
        path.write_text(SERVICE.format(script=script, account=account))
        made.append(path)
        return path.name

    yield make
    for path in made:
        path.unlink()


def test_a_user_of_the_machine_logs_in(service: Callable[..., str]) -> None:
    groups, store = os.getgroups(), PamStore(service())
    assert store.verify("ann", "corr\xe8ct horse") == Account("ann")
    assert os.getgroups() == groups, "a check changes nothing of the process"
    for user, password in (("ann", "wrong"), ("ann", "correct horse"), ("bob", "corr\xe8ct horse"), ("ANN", "x")):
        assert store.verify(user, password) is None
    assert PamStore(store.service, case_insensitive=True).verify("ANN", "corr\xe8ct horse") == Account("ann")


def test_the_right_password_of_an_account_that_is_shut_is_refused(service: Callable[..., str]) -> None:
    assert PamStore(service("pam_deny.so")).verify("ann", "corr\xe8ct horse") is None


def test_a_check_leaves_no_descriptor_behind(service: Callable[..., str]) -> None:
    store = PamStore(service())
    store.verify("ann", "wrong")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        store.verify("ann", "wrong")
    assert len(os.listdir("/proc/self/fd")) == before


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
