"""What comes before the conversation has the word: the PROXY header, and the TLS handshake.

Thread: within a turn of the connection.
Not here: reading a header (proxy_protocol.py), TLS itself (certs).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from certs.trouble import TlsError
from smtpd_core.net import proxy_protocol
from smtpd_core.net.settings import Peer
from smtpd_core.net.states import GO_ON, HANDSHAKE, NEED_BYTES, NEED_SLOT, NEW, PROXY, TALK, WRITE, Outcome
from smtpd_core.threads import Turn

if TYPE_CHECKING:
    from smtpd_core.net.connection import Connection

log = logging.getLogger(__name__)


def go_on(connection: Connection, turn: Turn) -> Outcome:
    """The turn of a connection whose conversation has not begun, or hands over to TLS."""
    if connection.stage == NEW:
        return _begin(connection, turn)
    if connection.late or connection.half_closed:
        connection.why = connection.why or (
            f"{connection.late} timed out" if connection.late else "closed by the client"
        )
        connection.is_broken = True
        return connection.finish(turn)
    if connection.stage == PROXY:
        return _read_proxy_header(connection, turn)
    return _shake_hands(connection, turn)


def _begin(connection: Connection, turn: Turn) -> Outcome:
    settings = connection.door.settings
    if settings.proxy_protocol and not connection.peer.proxy:
        connection.stage = PROXY
        return NEED_BYTES
    connection.conversation = connection.house.open_conversation(connection.peer, settings, connection.session_id)
    if settings.tls == "implicit":
        start_tls(connection)
        if connection.prefix:
            feed(connection, connection.prefix)
            connection.prefix = b""
            return _shake_hands(connection, turn)
        return NEED_BYTES
    connection.stage = TALK
    if connection.prefix:
        connection.conversation.receive(connection.prefix)
        connection.prefix = b""
    elif settings.service == "mx" and not connection.peer.is_local:
        connection.read()  # early talkers are looked for once, when the greeting is due
    return connection.talk(turn, None)


def feed(connection: Connection, data: bytes) -> None:
    """Bytes that are not the conversation's."""
    if connection.stage == PROXY:
        connection.prefix += data
    elif connection.tls is not None:
        connection.tls.feed(data)


def _read_proxy_header(connection: Connection, turn: Turn) -> Outcome:
    try:
        found = proxy_protocol.parse(connection.prefix)
    except proxy_protocol.Malformed as error:
        log.warning("%s: %s: %s", connection.session_id, connection.peer, error)
        connection.why = str(error)
        connection.is_broken = True
        return connection.finish(turn)
    if found is None:
        return NEED_BYTES
    connection.prefix = connection.prefix[found.size :]
    proxy = connection.peer.address or "unix"
    if found.address:
        connection.peer = Peer(found.address, found.port, connection.door.settings, connection.peer.local, proxy)
    else:
        connection.peer.proxy = proxy
    refusal = connection.house.admit_source(connection)
    if refusal:
        connection.why = "refused"
        if not connection.send_raw(refusal):
            connection.is_broken = True
        return connection.finish(turn)
    connection.stage = NEW
    return _begin(connection, turn)


def start_tls(connection: Connection) -> None:
    """From now on what comes is a handshake."""
    door = connection.door
    assert connection.conversation is not None
    if door.open_tls_for is not None:
        connection.tls = door.open_tls_for(connection.conversation)
    elif door.open_tls is not None:
        connection.tls = door.open_tls()
    else:
        raise RuntimeError(f"listener {door.settings.bind} has no TLS to start")
    connection.stage = HANDSHAKE
    connection.phase = ""


def _shake_hands(connection: Connection, turn: Turn) -> Outcome:
    """One step. The one that answers the client's hello signs, which takes about a millisecond without the interpreter
    lock, so it is entered like a hook; where no slot is free it runs inline, unless a program's own hook chooses the
    certificate in it. The others are too short to be handed over."""
    tls, conversation = connection.tls, connection.conversation
    assert tls is not None and conversation is not None
    meter = connection.door.certificate_hook or connection.house.handshake_meter
    entered = not connection.hello_is_answered and turn.enter(meter)
    if not entered and not connection.hello_is_answered and connection.door.certificate_hook is not None:
        return NEED_SLOT
    try:
        is_done = tls.handshake()
    except TlsError as error:
        log.info("%s: TLS handshake with %s failed: %s", connection.session_id, connection.peer, error)
        connection.why = f"TLS handshake failed: {error}"
        connection.send_raw(tls.take_output())
        return connection.finish(turn)
    finally:
        if entered:
            turn.leave(meter)
    if is_done:
        connection.stage = TALK
        connection.phase = ""
        conversation.tls_is_up(tls.facts)
        # Where the client spoke at once, the last words of the handshake go out with the reply; else they wait for
        # no hook.
        if not connection.read_plaintext(tls) and not connection.send_raw(tls.take_output()) and connection.is_broken:
            return connection.finish(turn)
        return connection.talk(turn, None)
    output = tls.take_output()
    if output:
        connection.hello_is_answered = True
    if not connection.send_raw(output):
        connection.wish = NEED_BYTES
        return connection.finish(turn) if connection.is_broken else WRITE
    return GO_ON if connection.readable else NEED_BYTES
