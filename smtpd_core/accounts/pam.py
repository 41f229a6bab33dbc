"""Accounts of the machine, by PAM (extra `pam`, library pamela). The process needs the rights that the modules need.

PAM itself makes a wrong password and an unknown user wait alike; a check may so hold its thread for seconds.
"""

from __future__ import annotations

import pwd

from smtpd_core.accounts.extras import needed
from smtpd_core.accounts.store import Account, unavailable
from smtpd_core.wire.sasl.prep import opaque_string, user_name

# Answers that mean "this user may not come in", as Linux-PAM and OpenPAM number them in common: PERM_DENIED, AUTH_ERR,
# CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED. All others are faults of the machine.
_REFUSALS = {
    "PAM_PERM_DENIED": 6,
    "PAM_AUTH_ERR": 7,
    "PAM_CRED_INSUFFICIENT": 8,
    "PAM_USER_UNKNOWN": 10,
    "PAM_MAXTRIES": 11,
    "PAM_NEW_AUTHTOK_REQD": 12,
    "PAM_ACCT_EXPIRED": 13,
}


class PamStore:
    """`service` names the file under /etc/pam.d. Raises ExtraMissing, or ValueError for a service that is no name."""

    kinds = frozenset({"password"})

    def __init__(self, service: str = "smtp", *, case_insensitive: bool = False) -> None:
        if not service.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"PAM service {service!r}: a name of letters, digits, - and _ is wanted")
        self._pam = needed("pamela", extra="pam", purpose="an account store by PAM")
        self.service = service
        self.case_insensitive = case_insensitive

    def verify(self, user: str, password: str) -> Account | None:
        try:
            key, secret = user_name(user, case_insensitive=self.case_insensitive), opaque_string(password)
        except ValueError:
            return None
        if len(key) > 255 or len(secret) > 1024:
            return None
        try:
            # Checked, and no more: pam_setcred would change the groups of this whole process.
            self._pam.authenticate(key, secret, service=self.service, resetcred=0)
        except self._pam.PAMError as error:
            if error.errno in _REFUSALS.values():
                return None
            raise unavailable(f"PAM service {self.service}: error {error.errno}") from None
        return Account(key)

    def secret(self, user: str, kind: str) -> object | None:
        return None

    def account(self, user: str) -> Account | None:
        """Whether the machine knows the name, for who may get mail; nothing is proven by it."""
        try:
            key = user_name(user, case_insensitive=self.case_insensitive)
            return Account(key) if pwd.getpwnam(key) else None
        except (ValueError, KeyError):
            return None

    def verify_token(self, user: str, token: str) -> Account | None:
        return None
