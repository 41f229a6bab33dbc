"""Makes a load fit what the hop offers (SIZE, 8BITMIME, BINARYMIME, SMTPUTF8), or says that it can't be.

Content is looked at only where the hop lacks something that the sender declared. What a hop without 8BITMIME can't
take as it is gets a 7-bit transfer encoding, part by part (RFC 6152 3); signed and encrypted parts are left alone, and
then the message comes back, as it does where it is too large to be taken apart in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from relay.agents.seven_bit import Unchangeable, seven_bit
from relay.hop import Load
from relay.route import ascii_domain
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.client import number_in
from smtpd_core.wire.envelope import Recipient

# Messages up to this size are taken apart for conversion; it takes some times that in memory.
MAX_CONVERTED = 10 << 20


class Misfit(Exception):
    """The hop can't take this message. The answer is ours, in the hop's place."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(code, enhanced, text)


def fitted(load: Load, extensions: Mapping[str, str]) -> Load:
    """The load as this hop can take it. Raises Misfit."""
    if load.utf8:
        load = _for_utf8(load, "SMTPUTF8" in extensions)
    if load.body == "BINARYMIME":
        if not ("BINARYMIME" in extensions and "CHUNKING" in extensions):
            load = _converted(load, "binary content")
    elif load.body != "7BIT" and "8BITMIME" not in extensions:
        # Undeclared content may hold 8-bit bytes all the same; where there are none there is nothing to do.
        if _is_8bit(load):
            load = _converted(load, "8-bit content")
        elif load.body:
            load = replace(load, body="")
    by = load.parameters.by
    if by is not None and by.mode == "R" and "DELIVERBY" not in extensions:
        # A hop that does not know the time can't return the mail when it is over (RFC 2852 4.1.4.2).
        raise Misfit(550, "5.3.3", "the next hop does not offer DELIVERBY, which the sender requires")
    limit = number_in(extensions.get("SIZE", ""))
    if 0 < limit < load.size:
        raise Misfit(552, "5.3.4", f"message of {load.size} bytes, the next hop takes {limit}")
    return load


def _for_utf8(load: Load, is_offered: bool) -> Load:
    if is_offered:
        return load
    # Domains have an ASCII form; local parts and header fields have none (RFC 6531 3.2).
    sender = _downgraded(load.sender)
    recipients = tuple(_with_ascii_domain(one) for one in load.recipients)
    if sender is None or any(one is None for one in recipients):
        raise Misfit(550, "5.6.7", "an address needs SMTPUTF8, which the next hop does not offer")
    if not _has_ascii_header(load):
        raise Misfit(550, "5.6.7", "the header needs SMTPUTF8, which the next hop does not offer")
    return replace(load, sender=sender, recipients=tuple(one for one in recipients if one), utf8=False)


def _downgraded(address: str) -> str | None:
    if address.isascii():
        return address
    local, at, domain = address.rpartition("@")
    changed = f"{local}{at}{ascii_domain(domain)}"
    return changed if changed.isascii() else None


def _with_ascii_domain(recipient: Recipient) -> Recipient | None:
    address = _downgraded(recipient.address)
    return None if address is None else replace(recipient, address=address)


def _has_ascii_header(load: Load) -> bool:
    before = b""
    for piece in load.pieces(65_536):
        end = (before + piece).find(b"\r\n\r\n")
        if end >= 0:
            return (before + piece)[:end].isascii()
        if not piece.isascii():
            return False
        before = piece[-3:]
    return True


def _is_8bit(load: Load) -> bool:
    return not all(piece.isascii() for piece in load.pieces(65_536))


def _converted(load: Load, what: str) -> Load:
    if load.size > MAX_CONVERTED:
        raise Misfit(554, "5.6.3", f"the next hop takes no {what}, and this message is too large to be converted")
    try:
        content = seven_bit(b"".join(load.pieces(65_536)))
    except Unchangeable as error:
        raise Misfit(554, "5.6.3", f"the next hop takes no {what}, and {error}") from None
    return replace(load, size=len(content), pieces=_in_pieces(content), body="")


def _in_pieces(content: bytes) -> Callable[[int], Iterator[bytes]]:
    return lambda size: (content[at : at + size] for at in range(0, len(content), size))
