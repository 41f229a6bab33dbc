"""The embeddable server: SmtpServer, its events, what hooks see and return."""

from smtpd_core.server.handler import Handler
from smtpd_core.server.keeping import Keeping
from smtpd_core.server.login import Login
from smtpd_core.server.message import Message
from smtpd_core.server.server import SmtpServer
from smtpd_core.server.session import Session, Transaction
from smtpd_core.server.verdicts import Accept, Redirect, Refuse
from smtpd_core.server.withheld import WithheldError

__all__ = [
    "Accept",
    "Handler",
    "Keeping",
    "Login",
    "Message",
    "Redirect",
    "Refuse",
    "Session",
    "SmtpServer",
    "Transaction",
    "WithheldError",
]
