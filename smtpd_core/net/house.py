"""What all connections of a reactor share.

Thread: any; after start only `timeouts` is exchanged, as a whole, and the guard has its own lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpd_core.net.conversation import Conversation
from smtpd_core.net.guard import Guard
from smtpd_core.net.settings import ListenerSettings, Peer, Timeouts
from smtpd_core.threads import HookMeter

if TYPE_CHECKING:
    from smtpd_core.net.connection import Connection

OpenConversation = Callable[[Peer, ListenerSettings, str], Conversation]


class House:
    """What all connections of a reactor share. Thread: any."""

    __slots__ = ("batch_size", "guard", "handshake_meter", "open_conversation", "timeouts")

    def __init__(
        self, open_conversation: OpenConversation, timeouts: Timeouts, guard: Guard, batch_size: int = 65_536
    ) -> None:
        self.open_conversation = open_conversation
        self.timeouts = timeouts
        self.guard = guard
        self.batch_size = batch_size
        self.handshake_meter = HookMeter("tls handshake")

    def admit_source(self, connection: Connection) -> bytes | None:
        """The source rules for a client behind a proxy, once its header said who it is. None lets it in."""
        refusal = self.guard.admit_source(connection.peer.address, time.monotonic())
        if refusal is None:
            connection.counted_as = connection.peer.address
        return refusal
