"""What a trusted peer tells about the client behind it: XCLIENT replaces the session's facts, XFORWARD adds to the log.

Thread: the session's turn. Not here: who is trusted (dialogue.py), the syntax (wire/commands.py).
"""

from __future__ import annotations

from smtpd_core.accounts import Account
from smtpd_core.server.session import Session
from smtpd_core.wire.events import ClientFacts

# A client whose address the peer does not know is a stranger; "" would be a client on a unix socket.
UNKNOWN = "0.0.0.0"


def believe(session: Session, event: ClientFacts) -> None:
    """Take the attributes over; an unavailable one came as ""."""
    told = event.attributes
    if event.verb != "XCLIENT":
        session.facts = {**(session.facts or {}), **told}
        return
    session.user = None
    session.transaction = None
    if "ADDR" in told:
        address = told["ADDR"]
        session.address = (address[5:] if address[:5].upper() == "IPV6:" else address) or UNKNOWN
    if "PORT" in told:
        session.port = int(told["PORT"] or 0)
    if told.get("LOGIN"):
        session.user = Account(told["LOGIN"])
