"""What a trusted peer tells about the client behind it: XCLIENT replaces the session's facts, XFORWARD adds to the log.

Thread: the session's turn. Not here: who is trusted (dialogue.py), the syntax (wire/commands.py).
"""

from __future__ import annotations

from smtpd_core.accounts import Account
from smtpd_core.server.session import Session
from smtpd_core.wire.events import ClientFacts


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
        session.address = address[5:] if address[:5].upper() == "IPV6:" else address
    if told.get("PORT", "").isdigit():
        session.port = int(told["PORT"])
    if told.get("LOGIN"):
        session.user = Account(told["LOGIN"])
