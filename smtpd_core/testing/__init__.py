"""The testing kit: a server for integration tests, with or without pytest."""

from smtpd_core.testing.clock import VirtualClock
from smtpd_core.testing.faults import Fault, Faults
from smtpd_core.testing.inbox import Inbox
from smtpd_core.testing.letter import Letter
from smtpd_core.testing.server import TestServer

__all__ = ["Fault", "Faults", "Inbox", "Letter", "TestServer", "VirtualClock"]
