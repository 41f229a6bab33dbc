"""Accounts in a file."""

from smtpd_core.accounts.password_file.store import PasswordFileStore, create

__all__ = ["PasswordFileStore", "create"]
