"""Who may log in: stores behind one contract."""

from smtpd_core.accounts.memory import MemoryStore, UserAccount
from smtpd_core.accounts.store import Account, AccountStore, StoreUnavailable

__all__ = ["Account", "AccountStore", "MemoryStore", "StoreUnavailable", "UserAccount"]
