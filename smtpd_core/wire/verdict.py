"""What the core does once the floor above has decided about an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from smtpd_core.wire.replies import Reply

if TYPE_CHECKING:
    from smtpd_core.wire.server import ServerProtocol

Accepted = Callable[["ServerProtocol", Reply | None, Sequence[Reply] | None], None]
Refused = Callable[["ServerProtocol", Reply | None], None]
Supplied = Callable[["ServerProtocol", object], None]


class Verdict(NamedTuple):
    """The outcomes of one kind of event. `supplied` only where the event asks for a secret."""

    accepted: Accepted
    refused: Refused
    supplied: Supplied | None = None


def refused(default: Reply) -> Refused:
    """No move; the reply, or `default` where none was given."""

    def say(p: ServerProtocol, reply: Reply | None) -> None:
        p.say(reply or default)

    return say
