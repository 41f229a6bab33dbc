"""Accounts in memory."""

from __future__ import annotations

import pytest

from smtpd_core.accounts import MemoryStore, UserAccount


def test_names_match_regardless_of_case_where_asked_for() -> None:
    people = [UserAccount("Ann", "secret")]
    assert MemoryStore(people).verify("ann", "secret") is None
    found = MemoryStore(people, case_insensitive=True).verify("aNN", "secret")
    assert found is not None and found.user_name == "Ann"


@pytest.mark.parametrize(
    ("people", "why"),
    [
        ([UserAccount("ann", "x"), UserAccount("ann", "y")], "twice"),
        ([UserAccount("ann smith", "x")], "can't be used"),
        ([UserAccount("ann", "")], "empty password"),
    ],
)
def test_accounts_that_can_not_be_are_refused_at_once(people: list[UserAccount], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        MemoryStore(people)


def test_names_that_differ_only_in_case_collide_where_case_does_not_count() -> None:
    people = [UserAccount("ann", "x"), UserAccount("Ann", "y")]
    MemoryStore(people)
    with pytest.raises(ValueError, match="twice"):
        MemoryStore(people, case_insensitive=True)


def test_the_password_does_not_show() -> None:
    assert "secret" not in repr(UserAccount("ann", "secret"))
