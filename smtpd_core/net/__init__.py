"""Sockets, readiness and time: listeners, reactor, connections, guard."""
