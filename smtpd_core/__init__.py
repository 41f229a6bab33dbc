"""A threaded SMTP server for Python: embedded, as a daemon, or as a test fixture."""

from smtpd_core.accounts import Account, AccountStore, MemoryStore, StoreUnavailable, UserAccount
from smtpd_core.draft import Draft
from smtpd_core.net import Guard, GuardSettings, ListenerSettings, Timeouts
from smtpd_core.server import (
    Accept,
    Handler,
    Keeping,
    Login,
    Message,
    Redirect,
    Refuse,
    Session,
    SmtpServer,
    Transaction,
)
from smtpd_core.threads import Ticket
from smtpd_core.wire.envelope import Envelope, MailParameters, Origin, Recipient
from smtpd_core.wire.replies import Reply

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "Account",
    "AccountStore",
    "Draft",
    "Envelope",
    "Guard",
    "GuardSettings",
    "Handler",
    "Keeping",
    "ListenerSettings",
    "Login",
    "MailParameters",
    "MemoryStore",
    "Message",
    "Origin",
    "Recipient",
    "Redirect",
    "Refuse",
    "Reply",
    "Session",
    "SmtpServer",
    "StoreUnavailable",
    "Ticket",
    "Timeouts",
    "Transaction",
    "UserAccount",
]
