"""The testing kit: a server for integration tests, with or without pytest."""

from typing import TYPE_CHECKING

from smtpd_core.face import loaded_later

if TYPE_CHECKING:
    from smtpd_core.testing.clock import VirtualClock
    from smtpd_core.testing.faults import Fault, Faults
    from smtpd_core.testing.inbox import Inbox
    from smtpd_core.testing.letter import Letter
    from smtpd_core.testing.server import TestServer
else:
    __getattr__, __dir__ = loaded_later(
        __name__,
        {
            "smtpd_core.testing.clock": "VirtualClock",
            "smtpd_core.testing.faults": "Fault Faults",
            "smtpd_core.testing.inbox": "Inbox",
            "smtpd_core.testing.letter": "Letter",
            "smtpd_core.testing.server": "TestServer",
        },
    )

__all__ = ["Fault", "Faults", "Inbox", "Letter", "TestServer", "VirtualClock"]
