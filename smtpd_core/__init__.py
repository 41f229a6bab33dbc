"""A threaded SMTP server for Python: embedded, as a daemon, or as a test fixture."""

from typing import TYPE_CHECKING

from smtpd_core.face import loaded_later

if TYPE_CHECKING:
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
        WithheldError,
    )
    from smtpd_core.threads import Ticket
    from smtpd_core.wire.envelope import Envelope, MailParameters, Origin, Recipient
    from smtpd_core.wire.replies import Reply
else:
    __getattr__, __dir__ = loaded_later(
        __name__,
        {
            "smtpd_core.accounts": "Account AccountStore MemoryStore StoreUnavailable UserAccount",
            "smtpd_core.draft": "Draft",
            "smtpd_core.net": "Guard GuardSettings ListenerSettings Timeouts",
            "smtpd_core.server": (
                "Accept Handler Keeping Login Message Redirect Refuse Session SmtpServer Transaction WithheldError"
            ),
            "smtpd_core.threads": "Ticket",
            "smtpd_core.wire.envelope": "Envelope MailParameters Origin Recipient",
            "smtpd_core.wire.replies": "Reply",
        },
    )

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
    "WithheldError",
]
