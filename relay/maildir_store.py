"""A keeping without a queue: messages go straight into Maildirs, and count as kept once they are synced there.

For programs and small servers whose mail all stays here. Satisfies smtpd_core.server.keeping without importing it.
Thread: keep() from any; deliveries run on a crew of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from relay.agents.maildir import MaildirAgent
from relay.mail import Envelope, Parcel, Result, Stop
from relay.route import mailbox
from smtpd_core.draft import Draft
from smtpd_core.threads import Crew, Ticket
from smtpd_core.wire.replies import Reply


class MailboxStore:
    """`path` may hold {user} and {domain}; without them all mail goes into one Maildir.

    `domains` are those whose mail it holds, None for every domain.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        domains: tuple[str, ...] | None = None,
        hostname: str = "localhost",
        writers: int = 8,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        fixed = self.path.partition("{")[0]
        # A draft's file is copied into the Maildir, from the same disk.
        self.drafts: str | None = fixed.rstrip("/") if "{" not in self.path else os.path.dirname(fixed)
        os.makedirs(self.drafts or "/", mode=0o700, exist_ok=True)
        self._domains = None if domains is None else frozenset(domain.lower() for domain in domains)
        self._agent = MaildirAgent(hostname)
        self._writers = writers
        self._clock = clock
        self._crew = Crew("mailbox", writers)
        self._is_stopped = False

    def has_room(self) -> Reply | None:
        """The disk itself tells, when it is full: keep() then resolves with the OSError."""
        return None

    def holds(self, address: str) -> bool:
        return self._domains is None or mailbox(address)[1] in self._domains

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        ticket = Ticket()
        if not self._crew.submit(partial(self._write, envelope, draft, ticket)):
            draft.close()
            ticket.resolve(OSError("the mailbox store is closed"))
        return ticket

    def _write(self, envelope: Envelope, draft: Draft, ticket: Ticket) -> None:
        if not ticket.take():
            draft.close()
            return
        outcome: OSError | None = None
        try:
            parcel = self._parcel(envelope, draft.id, draft.trace, draft.size)
            for one in self._agent.deliver(parcel, draft.open, self._clock()):
                if one.result is not Result.DELIVERED:
                    outcome = OSError(one.text)
            if outcome is not None:  # the client sends it again, to all recipients
                self._agent.withdraw(parcel)
        except OSError as error:
            outcome = error
        finally:
            draft.close()
            ticket.resolve(outcome)

    def withdraw(self, envelope: Envelope, id: str) -> None:
        """Take a message back that was kept a moment ago, as far as no reader has it yet."""
        self._agent.withdraw(self._parcel(envelope, id, b"", 0))

    def _parcel(self, envelope: Envelope, id: str, trace: bytes, size: int) -> Parcel:
        destination = f"maildir:{self.path}"
        stops = tuple(Stop(number, one, destination) for number, one in enumerate(envelope.recipients))
        return Parcel(id, envelope, trace, size, destination, stops, 0)

    def start(self) -> bool:
        """Be ready again after a stop(); a new store is. False where it was ready."""
        if not self._is_stopped:
            return False
        self._crew = Crew("mailbox", self._writers)
        self._is_stopped = False
        return True

    def stop(self, timeout: float = 10.0) -> bool:
        """Finish what is under way."""
        self._is_stopped = True
        return self._crew.stop(timeout)
