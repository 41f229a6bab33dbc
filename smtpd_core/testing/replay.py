"""Play the client's side of a recorded session against a server, and compare how it answers.

Rules: a password leaves only by a mechanism, under TLS or to loopback; what was said under TLS is not said without it;
content is sent only after a 354. Where the server does otherwise, that is shown and the session ends.
Thread: one at a time.
Not here: reading what was recorded (recorded.py).
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from smtpd_core.testing.probe import PATIENCE, Broken, Probe, Target, is_loopback
from smtpd_core.testing.recorded import Recorded, Step
from smtpd_core.wire.sasl.client import CLEAR_TEXT, Credentials, SaslError, mechanism

# Challenges in one log-in. No mechanism has more than three.
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Played:
    """How a step went: the last lines of the replies, and `why` the session ends there."""

    step: Step
    replies: tuple[str, ...] = ()
    why: str = ""

    @property
    def is_same(self) -> bool:
        return not self.why and self.step.codes == tuple(one[:3] for one in self.replies)


class _Ends(Exception):
    """The session can't go on; the text says why."""


def replay(
    session: Recorded,
    host: str,
    port: int,
    context: ssl.SSLContext,
    credentials: Credentials | None = None,
    *,
    implicit_tls: bool | None = None,
    patience: float = PATIENCE,
) -> Iterator[Played]:
    """Each step as it went. `implicit_tls` None is as recorded. OSError where there is no connection, or no TLS."""
    implicit = session.implicit_tls if implicit_tls is None else implicit_tls
    with Target(host, port, patience=patience).probe() as probe:
        if implicit:
            probe.start_tls(context)
        last = ""
        for step in session.steps:
            said: list[str] = []
            why = ""
            try:
                if step.is_content and last[:3] != "354":
                    raise _Ends("not sent: the server does not wait for content")
                if step.mechanism:
                    said.append(_log_in(probe, step.mechanism, credentials))
                else:
                    probe.send(step.octets)
                    said += _replies(probe, len(step.replies))
                if step.is_starttls:
                    _go_under_tls(probe, step, said, context)
            except (_Ends, Broken, SaslError) as end:
                why = str(end)
            yield Played(step, tuple(said), why)
            if why:
                return
            last = said[-1] if said else ""


def _replies(probe: Probe, count: int) -> Iterator[str]:
    for _ in range(count):
        lines = probe.reply()
        if not lines:
            raise _Ends("the server closed the connection")
        yield lines[-1]


def _go_under_tls(probe: Probe, step: Step, said: list[str], context: ssl.SSLContext) -> None:
    if said and said[-1].startswith("220"):
        probe.start_tls(context)
    elif step.codes == ("220",):
        raise _Ends("what follows was said under TLS")


def _log_in(probe: Probe, name: str, credentials: Credentials | None) -> str:
    """The last line of the server's answer to a whole log-in."""
    if credentials is None:
        raise _Ends("the log-in was masked; a name and a password are needed to play it")
    if name in CLEAR_TEXT and not probe.tls_is_up and not is_loopback(probe.target.host, probe.target.port):
        raise _Ends(f"a password is not sent in clear text beyond loopback ({name} without TLS)")
    player = mechanism(name, credentials)
    first = player.first()
    probe.send(f"AUTH {name}".encode() + (b"" if first is None else b" " + (base64.b64encode(first) or b"=")) + b"\r\n")
    for _ in range(_ROUNDS):
        line = next(_replies(probe, 1))
        if not line.startswith("334"):
            return line
        try:
            challenge = base64.b64decode(line[4:].strip(), validate=True)
        except binascii.Error:
            raise _Ends(f"the challenge is not base64: {line[:60]}") from None
        probe.send(base64.b64encode(player.respond(challenge)) + b"\r\n")
    raise _Ends(f"{_ROUNDS} challenges, and the log-in goes on")
