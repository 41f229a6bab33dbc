"""Whose dialogues the log shows: all, or those of some addresses, networks and users; secrets masked.

A session is shown from its first line on where its address is wanted, from its log-in on where its user is. What is
wanted may change while the server runs; sessions that are shown go on, and those that begin from then on follow.
Thread: filter() from any.
Not here: writing (logs.py), what is told of a dialogue (smtpd_core.server.observers).
"""

from __future__ import annotations

import logging
import re

from smtpd_core.app.settings import Log
from smtpd_core.net.guard import Networks

TRANSCRIPT = "smtpd_core.transcript"

_CONNECTED = re.compile(r"(\S+) -- connect from \[?([0-9A-Fa-f.:]+?)\]?:\d+ on ")
_CLOSED = re.compile(r"\S+ -- close\b")
_LOGGED_IN = re.compile(r"(\S+) -- user (.+)")


class OnlyOf(logging.Filter):
    """Lets the sessions of `wanted` through: addresses, networks (CIDR), and user names in any case."""

    def __init__(self, wanted: tuple[str, ...]) -> None:
        super().__init__()
        self.wanted = wanted
        networks = [text for text in wanted if _is_network(text)]
        self._networks = Networks(networks)
        self._users = {text.casefold() for text in wanted if text not in networks}
        self._sessions: set[str] = set()

    def follow(self, before: OnlyOf) -> None:
        """The sessions that are shown go on."""
        self._sessions = before._sessions

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        session = line.partition(" ")[0]
        if connected := _CONNECTED.match(line):
            if connected[2] in self._networks:
                self._sessions.add(session)
        elif (user := _LOGGED_IN.match(line)) and user[2].casefold() in self._users:
            self._sessions.add(session)
        shown = session in self._sessions
        if _CLOSED.match(line):
            self._sessions.discard(session)
        return shown


def _is_network(text: str) -> bool:
    try:
        Networks((text,))
    except ValueError:
        return False
    return True


def transcript_logger(settings: Log) -> logging.Logger | None:
    """Where dialogues are written, None where none is wanted."""
    if not settings.transcript and not settings.transcript_for:
        return None
    return logging.getLogger(TRANSCRIPT)


def choose_dialogues(settings: Log) -> None:
    """Of what is written there, show what is wanted."""
    logger = logging.getLogger(TRANSCRIPT)
    logger.setLevel(logging.DEBUG)
    before = next((one for one in logger.filters if isinstance(one, OnlyOf)), None)
    wanted = None if settings.transcript else OnlyOf(settings.transcript_for)
    if before is not None and wanted is not None:
        wanted.follow(before)
    if wanted is not None:
        logger.addFilter(wanted)
    if before is not None:
        logger.removeFilter(before)
