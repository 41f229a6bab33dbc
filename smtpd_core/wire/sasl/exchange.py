"""What a mechanism of the server says after each step: a challenge, a question to the store, or the end.

Mechanism.start() makes an Exchange; first(), then respond() for each answer of the client, and supply() for the answer
to an Ask. Kinds of Ask and what supply() gets (the server's Dialogue brings it from the account store):

    "password"                 detail is the password; the answer is the identity as the store spells it, or None
    "cleartext"                the answer is the password (str) or None
    "scram-sha-1", "-256"      the answer is a ScramVerifier or None
    "nt-hash"                  the answer is 16 bytes or None
    "token"                    detail is the token; the answer is the identity or None
    "certificate"              the answer is the identity or None

None means an unknown user or a wrong secret: the mechanism goes on with a fake where it must, and fails at its end.
NOT_TRIED ends the exchange at once, whatever the mechanism: nothing was asked, and nothing is to be seen of the user.
An exchange never raises for what the client sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from smtpd_core.wire.replies import Reply, bad_exchange_501


@dataclass(frozen=True, slots=True)
class Challenge:
    """Say 334 with this, base64 to be done."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Ask:
    """The store must answer before the exchange goes on."""

    user: str
    kind: str
    detail: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Done:
    """`identity` logged in; `acts_as` is the authorisation identity it asked for, "" for its own."""

    identity: str
    acts_as: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Wrong secret or unknown user: 535. With `reply`: the client broke the mechanism's grammar."""

    user: str = ""
    reply: Reply | None = None


NOT_TRIED = object()

Outcome = Challenge | Ask | Done | Failure

MALFORMED = Failure(reply=bad_exchange_501)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an exchange may need of its connection. `bindings` as in TlsFacts; `salt_key` makes steady salts."""

    hostname: str = "localhost"
    salt_key: bytes = field(default=b"", repr=False)
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    client_identity: str = ""
    binding_offered: bool = False  # whether a -PLUS mechanism was announced on this connection


class Exchange(Protocol):
    """One AUTH command under way."""

    def first(self, initial: bytes | None) -> Outcome:
        """The initial response, or None where there was none."""

    def respond(self, response: bytes) -> Outcome:
        """The client's answer to a Challenge."""

    def supply(self, answer: object) -> Outcome:
        """The store's answer to an Ask."""
