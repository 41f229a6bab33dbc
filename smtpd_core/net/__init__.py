"""Sockets, readiness and time: listeners, reactor, connections, guard."""

from smtpd_core.net.engine import Engine
from smtpd_core.net.guard import Guard, GuardSettings
from smtpd_core.net.settings import Door, ListenerSettings, Peer, Timeouts

__all__ = ["Door", "Engine", "Guard", "GuardSettings", "ListenerSettings", "Peer", "Timeouts"]
