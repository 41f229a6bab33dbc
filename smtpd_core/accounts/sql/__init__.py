"""Accounts in a database: SQLite in the core, PostgreSQL and MySQL with their extras."""

from smtpd_core.accounts.sql.connect import Database, mysql, postgres, sqlite
from smtpd_core.accounts.sql.store import SqlStore

__all__ = ["Database", "SqlStore", "mysql", "postgres", "sqlite"]
