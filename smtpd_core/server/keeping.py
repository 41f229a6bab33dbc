"""The contract of whatever keeps accepted mail: relay.Outbox, relay.MailboxStore, or a program's own.

The server knows nothing else of the floors above it. A keeping may also have a life (see Living): then the server that
uses it starts it, where nobody did before, and stops what it started.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from smtpd_core.draft import Draft
from smtpd_core.threads import Ticket
from smtpd_core.wire.envelope import Envelope
from smtpd_core.wire.replies import Reply


@runtime_checkable
class Living(Protocol):
    """A keeping with threads or files of its own."""

    def start(self) -> bool:
        """Be ready to keep. False where it runs already, so that its owner stops it. What it raises, the server's
        start() raises."""

    def stop(self, timeout: float) -> bool:
        """Finish what was handed in; True where all was done in time."""


class Keeping(Protocol):
    """Keeps messages. All methods may be called from any thread, and none of them blocks for long."""

    drafts: str | None
    """The directory in which large drafts are made, so that keep() can link instead of copy; None for anywhere."""

    def has_room(self) -> Reply | None:
        """Asked at MAIL: None, or the 452 4.3.1 that says why not now. Cheap: it is called for every message."""

    def holds(self, address: str) -> bool:
        """Whether this recipient's mail is for this keeping. With a store and an outbox the store is asked first."""

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        """Keep the message. The ticket is resolved without outcome once it will survive a crash, else with the reason
        (OSError for disk trouble, which the client sees as 452 4.3.1). A str as its value is what the 250 names instead
        of the draft's id: the id of an earlier copy, or the id with a durability below the usual. The draft belongs to
        the keeping from now on."""


@runtime_checkable
class Withdrawing(Protocol):
    """A keeping that can take back what it kept a moment ago, since another one could not keep its part: the client
    hears 45x and sends the whole message again."""

    def withdraw(self, envelope: Envelope, id: str) -> None:
        """Remove the message with this envelope and draft id, as far as nobody has it yet. Must not block for long."""


def drafts_of(keeping: Keeping) -> str | None:
    """Where its large drafts are made; a program's own keeping may do without the attribute."""
    return getattr(keeping, "drafts", None)
