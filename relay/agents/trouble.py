"""What goes wrong at a local mailbox, as an outcome: a full disk is not the message's fault, so all is temporary."""

from __future__ import annotations

import errno
import logging

from relay.mail import Outcome, Result, Stop

log = logging.getLogger(__name__)

# RFC 3463: 4.2.2 the mailbox is full, 4.3.1 the system's disk is, 4.3.0 anything else of ours.
_ENHANCED = {errno.EDQUOT: "4.2.2", errno.ENOSPC: "4.3.1"}


def local_trouble(stop: Stop, error: OSError, now: float) -> Outcome:
    """Deferred. The text for the sender holds no path of ours; the log does."""
    log.warning("delivery to %s: %s", stop.destination, error)
    enhanced = _ENHANCED.get(error.errno or 0, "4.3.0")
    scope = "recipient" if enhanced == "4.2.2" else "destination"
    what = error.strerror or type(error).__name__
    return Outcome(stop.number, Result.DEFERRED, 451, enhanced, f"mailbox trouble: {what}", at=now, scope=scope)
