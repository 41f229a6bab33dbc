"""The words between a connection and its reactor: who owns it, how far it is, what its turn wants.

Not here: the conversation's own wishes (conversation.py).
"""

from __future__ import annotations

import socket
from enum import Enum

from smtpd_core.net.conversation import Pause, WaitFor, Wish

# With it a socket needs no call that makes it non-blocking; where it is missing the reactor makes that call.
DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
SEND = DONT_WAIT | getattr(socket, "MSG_NOSIGNAL", 0)

NEED_BYTES, GO_ON, NEED_SLOT = Wish.NEED_BYTES, Wish.GO_ON, Wish.NEED_SLOT
UPGRADE, CLOSE = Wish.UPGRADE, Wish.CLOSE


class After(Enum):
    """What a turn wants besides the conversation's wishes."""

    WRITE = "output waits for room in the socket"
    CLOSED = "the conversation is over: close the socket"
    LINGER = "the same, but the client may still be sending: let it read the last reply first"


WRITE, CLOSED, LINGER = After.WRITE, After.CLOSED, After.LINGER
Outcome = Wish | WaitFor | Pause | After

# Owners of a connection; changed by the leader only.
READY, PARKED, PAUSED, IN_TURN, WAITING, ON_TICKET, LINGERING, GONE = range(8)

# Stages before the conversation has the word.
TALK, NEW, PROXY, HANDSHAKE = range(4)
