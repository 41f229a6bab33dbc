"""What the server hands accepted mail to, with the log line that a message begins its story with.

Thread: any.
"""

from __future__ import annotations

import logging

from relay.outbox import Outbox
from smtpd_core.draft import Draft
from smtpd_core.threads import Ticket
from smtpd_core.wire.envelope import Envelope
from smtpd_core.wire.replies import Reply

log = logging.getLogger(__name__)


class Logged:
    """An outbox that says what it was handed. Satisfies server/keeping.py."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.drafts = outbox.drafts

    def has_room(self) -> Reply | None:
        return self._outbox.has_room()

    def holds(self, address: str) -> bool:
        return True

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        if log.isEnabledFor(logging.INFO):
            origin = envelope.origin
            log.info(
                "m-%s: %s from <%s> to %s, %d bytes, by %s %s%s",
                draft.id,
                origin.session,
                envelope.sender,
                _some(envelope),
                draft.size,
                origin.protocol,
                origin.address or "unix",
                f" as {origin.user}" if origin.user else "",
            )
        return self._outbox.keep(envelope, draft)


def _some(envelope: Envelope) -> str:
    """The first recipients; a list of a thousand is no line for a log."""
    names = [one.address for one in envelope.recipients[:5]]
    more = len(envelope.recipients) - len(names)
    return ", ".join(f"<{name}>" for name in names) + (f" and {more} more" if more else "")
