"""Final delivery: what it adds on top of a message, and the look for mail that was delivered to the same mailbox
before.

Maildir, mbox and commands write Return-Path and Delivered-To (RFC 5321 4.4; RFC 9228) above the trace; the content
below stays as it is. Whoever forwards from a mailbox (a command, a program that reads a Maildir) sends that line along,
and so mail that goes in a circle shows itself when it is back: it is returned then, before anything is delivered.
Behind LMTP the mailbox's own software writes its line and judges it. An alias writes none: its copies have not been
delivered, and one that names itself, or that two ways lead to, is no circle. What aliases of several hosts do in a
circle ends by the count of Received lines.
Thread: any courier.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import BinaryIO

from relay.agents.agent import Agent, OpenBody, outcome
from relay.bounce import MAX_HEADERS, headers_of
from relay.mail import Outcome, Parcel, Result, Stop

# The server lets none of these into an envelope; an embedding program may, and a header line may not be cut by one.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DELIVERED_TO = re.compile(rb"(?im)^delivered-to:[ \t]*(?:\r\n[ \t]+)?<?([^\r\n>]*)")


def headers(parcel: Parcel, stop: Stop) -> bytes:
    """What is added on top for this recipient."""
    lines = f"Return-Path: <{parcel.envelope.sender}>", f"Delivered-To: {stop.recipient.address}"
    return "".join(f"{_CONTROL.sub('?', line)}\r\n" for line in lines).encode("utf-8", "replace")


class OncePerMailbox:
    """An agent that gets no mail which was delivered to the same address before."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        body = open_body()
        try:
            head = body.read(MAX_HEADERS)
            body.seek(0)
            before = _delivered_to(head)
            back = [stop for stop in parcel.stops if before and _folded(stop) in before]
            rest = tuple(stop for stop in parcel.stops if stop not in back)
            text = "this mail was delivered here before: it goes in a circle"
            outcomes = [outcome(s, Result.FAILED, now, code=554, enhanced="5.4.6", text=text) for s in back]
            if rest:
                parcel = replace(parcel, stops=rest) if back else parcel
                outcomes += self._agent.deliver(parcel, _Opened(body, open_body), now)
            return sorted(outcomes, key=lambda one: one.number)
        finally:
            body.close()

    def close(self) -> None:
        self._agent.close()


class _Opened:
    """The first who opens gets what is open already: the queue is asked once for a message with one recipient."""

    def __init__(self, body: BinaryIO, open_body: OpenBody) -> None:
        self._body: BinaryIO | None = body
        self._open = open_body

    def __call__(self) -> BinaryIO:
        body, self._body = self._body, None
        return body if body is not None else self._open()


def _delivered_to(head: bytes) -> set[str]:
    found = _DELIVERED_TO.findall(headers_of(head))
    return {address.decode("utf-8", "replace").strip().lower() for address in found}


def _folded(stop: Stop) -> str:
    return stop.recipient.address.lower()
