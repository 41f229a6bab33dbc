"""Accounts behind a function of the embedding program: it gets a name and a password and says who that is."""

from __future__ import annotations

from collections.abc import Callable

from smtpd_core.accounts.store import Account, StoreUnavailable, unavailable


class CallableStore:
    """`check(user, password)` returns an Account, a user name, True for the name as given, or None / False for no.

    What it raises counts as a failure of the back end, never as a wrong password; its text is not sent to anyone.
    Equal time for unknown users is up to the function. Thread: the function is called from any.
    """

    kinds = frozenset({"password"})

    def __init__(self, check: Callable[[str, str], Account | str | bool | None]) -> None:
        self._check = check

    def verify(self, user: str, password: str) -> Account | None:
        try:
            answer = self._check(user, password)
        except StoreUnavailable:
            raise
        except Exception as error:
            # The cause is not chained: a traceback of the function's locals could hold the password.
            raise unavailable(f"the account function raised {type(error).__name__}") from None
        if isinstance(answer, Account):
            return answer
        if isinstance(answer, str):
            return Account(answer) if answer else None
        return Account(user) if answer is True else None

    def secret(self, user: str, kind: str) -> object | None:
        return None

    def account(self, user: str) -> Account | None:
        return None

    def verify_token(self, user: str, token: str) -> Account | None:
        return None
