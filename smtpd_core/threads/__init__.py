"""Every thread, lock and condition of the project; nothing else imports `threading` or `queue`."""

from smtpd_core.threads.loop import Condition, Lock, Loop, start_loop
from smtpd_core.threads.mailbox import Mailbox
from smtpd_core.threads.ticket import Ticket, resolve_all

__all__ = ["Condition", "Lock", "Loop", "Mailbox", "Ticket", "resolve_all", "start_loop"]
