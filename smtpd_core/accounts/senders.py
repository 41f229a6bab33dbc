"""Which sender addresses a logged-in user may use, on submission (RFC 6409 6.1). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from smtpd_core.accounts.store import Account


class SenderRule(Enum):
    """The setting: who cares about senders that are not the user's."""

    OFF = "off"
    WARN = "warn"  # let it pass and write a line into the log
    ENFORCE = "enforce"  # 553 5.7.1


def may_send_as(account: Account, sender: str, more: Iterable[str] = ()) -> bool:
    """Whether the account may use this reverse-path.

    Its own are its user name where that is an address, `email`, `addresses` ("@example.test" is the whole domain), and
    `more` (those of whom it acts as). The domain compares regardless of case, the local part too, since that is how
    mail is delivered nearly everywhere; "ann+detail@" belongs to whom "ann@" belongs. The null path is everybody's.
    """
    if not sender:
        return True
    local, at, domain = sender.rpartition("@")
    if not at:
        return False
    domain = domain.lower()
    asked = {f"{local.lower()}@{domain}", f"{local.partition('+')[0].lower()}@{domain}", f"@{domain}"}
    own = {account.email, *account.addresses, *more}
    if "@" in account.user_name:
        own.add(account.user_name)
    return bool(asked & {address.lower() for address in own if "@" in address})
