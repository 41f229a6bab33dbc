"""Every thread, lock and condition of the project; nothing else imports `threading` or `queue`."""

from smtpd_core.threads.books import Post
from smtpd_core.threads.crew import Crew
from smtpd_core.threads.forks import abandon_in_children
from smtpd_core.threads.log_writer import LogWriter
from smtpd_core.threads.loop import Condition, Lock, Loop, start_loop
from smtpd_core.threads.mailbox import Mailbox, PollMailbox
from smtpd_core.threads.meter import HookMeter, Share
from smtpd_core.threads.pool import ThreadPool, Turn
from smtpd_core.threads.ticket import Ticket, resolve_all

__all__ = [
    "Condition",
    "Crew",
    "HookMeter",
    "Lock",
    "LogWriter",
    "Loop",
    "Mailbox",
    "PollMailbox",
    "Post",
    "Share",
    "ThreadPool",
    "Ticket",
    "Turn",
    "abandon_in_children",
    "resolve_all",
    "start_loop",
]
