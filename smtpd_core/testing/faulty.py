"""A server on which faults are played: real dialogues, with their verdicts, output and handshakes bent by a plan.

Thread: as SmtpServer and Dialogue.
Not here: what is bent in the protocol (script.py), what a fault is (fault.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from certs.side import TlsSide
from smtpd_core.net.conversation import Conversation, Pause, Turn, WaitFor, Wish
from smtpd_core.net.listeners import Listener
from smtpd_core.net.settings import Door, ListenerSettings, Peer
from smtpd_core.server.dialogue import Dialogue
from smtpd_core.server.house import House
from smtpd_core.server.server import SmtpServer
from smtpd_core.testing.certificates import Certificates
from smtpd_core.testing.fault import HANDSHAKE
from smtpd_core.testing.faults import Faults
from smtpd_core.testing.handshakes import Cut, Rubbish, Stalled
from smtpd_core.testing.script import STALLED, FaultyProtocol, Script


class FaultyDialogue(Dialogue):
    """Plays the script before the dialogue goes on. `ended(session_id)` hears of the session's end."""

    __slots__ = ("_after", "_certificates", "_ended", "script")

    def __init__(
        self,
        house: House,
        peer: Peer,
        listener: ListenerSettings,
        session_id: str,
        faults: Faults,
        certificates: Certificates | None = None,
        ended: Callable[[str], None] = lambda session_id: None,
    ) -> None:
        self.script = script = Script(faults)
        super().__init__(house, peer, listener, session_id, lambda settings: FaultyProtocol(settings, script))
        script.inner = self.witness
        self.protocol.observer = script
        self._after: Wish | WaitFor | Pause | None = None
        self._certificates = certificates
        self._ended = ended

    def open_tls(self, opens: Callable[[], TlsSide]) -> TlsSide:
        """The TLS of this connection: what the server `opens`, unless the plan has other handshakes for it."""
        fault = self.script.faults.take(HANDSHAKE, self.script.facts())
        if fault is None:
            return opens()
        if fault.is_silent:
            return Stalled()
        if fault.raw is not None:
            return Rubbish(fault.raw)
        if fault.cut_after is not None:
            return Cut(opens(), fault.cut_after) if fault.cut_after else Rubbish(b"")
        assert self._certificates is not None
        return self._certificates.stream(fault.certificate_name)

    def closed(self, turn: Turn, why: str) -> Wish | None:
        wish = super().closed(turn, why)
        if wish is None:
            self._ended(self.session.id)
        return wish

    def receive(self, data: bytes) -> None:
        if not self.script.is_over:
            super().receive(data)

    def end_of_input(self, error: BaseException | None) -> None:
        if self.script.is_over:
            self.script.pieces = deque([None])
        super().end_of_input(error)

    def overdue(self, what: str) -> None:
        if self.script.is_over:
            self.script.pieces = deque([None])
        else:
            super().overdue(what)

    def advance(self, turn: Turn) -> Wish | WaitFor | Pause:
        script = self.script
        if not script.pieces:
            wish = super().advance(turn)
            if not script.pieces:
                return wish
            script.pieces.append(self.protocol.take_output())
            self._after = wish
        while script.pieces:
            piece = script.pieces.popleft()
            if piece is None:
                script.pieces.clear()
                return Wish.CLOSE
            if isinstance(piece, bytes):
                script.ready += piece
            elif piece == STALLED:
                script.pieces.appendleft(piece)
                return Wish.NEED_BYTES
            else:
                return Pause(piece) if piece else Wish.GO_ON
        after, self._after = self._after, None
        # Bytes may have come while the script was played: the dialogue looks at them before it is parked.
        return Wish.GO_ON if after is None or after is Wish.NEED_BYTES else after

    def take_output(self) -> bytes:
        script = self.script
        if script.ready:
            ready, script.ready = script.ready, b""
            return ready
        return b"" if script.pieces else super().take_output()


class FaultyServer(SmtpServer):
    """SmtpServer whose sessions misbehave as `faults` say. Without `certificates` none of them can be of a certificate:
    ValueError."""

    def __init__(self, faults: Faults, certificates: Certificates | None = None, **properties: Any) -> None:
        if certificates is None and any(one.certificate_name for one in faults.plan):
            raise ValueError(
                "a fault of the certificate is for TestServer, whose authority a client can trust; serve shows what"
                " tls.certificate says, such as expired.pem of `python -m certs samples FOLDER`"
            )
        self._faults = faults
        self._certificates = certificates
        super().__init__(**properties)

    def _start(self, bound: Sequence[Listener]) -> None:
        for listener in bound:
            listener.door = _bent(listener.door)
        super()._start(bound)

    def _doors(self, listeners: list[ListenerSettings]) -> list[Door]:
        return [_bent(one) for one in super()._doors(listeners)]

    def _open(self, peer: Peer, listener: ListenerSettings, session_id: str) -> Dialogue:
        return FaultyDialogue(self._house, peer, listener, session_id, self._faults, self._certificates)


def _bent(door: Door) -> Door:
    """The same door, where each dialogue is asked for its TLS."""
    if not door.has_tls:
        return door

    def opens(conversation: Conversation) -> TlsSide:
        return door.open_tls_for(conversation) if door.open_tls_for is not None else door.open_tls()  # type: ignore[misc]

    def open_tls_for(conversation: Conversation) -> TlsSide:
        if isinstance(conversation, FaultyDialogue):
            return conversation.open_tls(lambda: opens(conversation))
        return opens(conversation)

    return replace(door, open_tls=None, open_tls_for=open_tls_for)
