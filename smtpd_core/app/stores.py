"""From [accounts] of the settings to the account store.

Not here: what a store's URL says (smtpd_core.accounts.opening), the stores themselves (smtpd_core.accounts).
"""

from __future__ import annotations

from smtpd_core.accounts import AccountStore
from smtpd_core.accounts.opening import Choices
from smtpd_core.accounts.opening import open_store as open_url
from smtpd_core.app.settings import Accounts


def choices_of(settings: Accounts) -> Choices:
    """What the settings say beside the URL."""
    return Choices(settings.case_insensitive, settings.query, settings.kinds)


def open_accounts(settings: Accounts) -> AccountStore | None:
    """The store, None where none is set. ValueError: what is wrong with the text or what to install; OSError."""
    return open_url(settings.store, choices_of(settings)) if settings.store else None


def open_store(text: str, *, case_insensitive: bool = False) -> AccountStore:
    """The store behind a URL by itself."""
    return open_url(text, Choices(case_insensitive))
