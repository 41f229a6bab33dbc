"""AUTH (RFC 4954): base64 and the rules of the exchange; the mechanisms themselves are in sasl/.

No code here or there reads a socket or asks a store: a mechanism's question becomes NeedSecret, and supply() goes on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smtpd_core.wire import events, replies
from smtpd_core.wire.events import Event, Waiting
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Phase
from smtpd_core.wire.sasl.exchange import (
    NOT_TRIED,
    Ask,
    Challenge,
    Done,
    Exchange,
    Failure,
    Outcome,
    Surroundings,
)
from smtpd_core.wire.verdict import Verdict

if TYPE_CHECKING:
    from smtpd_core.wire.server import ServerProtocol

_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}\Z")  # RFC 4422 3.1


class Login:
    """The exchange under way."""

    __slots__ = ("exchange", "mechanism", "user")

    def __init__(self, mechanism: str, exchange: Exchange) -> None:
        self.mechanism = mechanism
        self.exchange = exchange
        self.user = ""


def auth(p: ServerProtocol, argument: str) -> Event | None:
    # 1 not offered here, 2 twice, 3 syntax, 4 unknown mechanism, 5 not without TLS, 6 initial response
    settings = p.settings
    p.forget_what_was_read()
    if not settings.mechanisms:
        return p.complain(replies.not_implemented_502)
    if p.identity:
        return p.complain(replies.logged_in_503)
    name, _, initial = argument.partition(" ")
    if not _MECHANISM.match(name):
        return p.complain(replies.auth_syntax_501)
    mechanism = settings.mechanism(name)
    if mechanism is None:
        return p.complain(replies.unknown_mechanism_504)
    offered = settings.mechanism_names(tls=p.tls_is_on, bound=bool(p.bindings), certified=bool(p.client_identity))
    if mechanism.name not in offered:
        return p.complain(replies.encryption_required_538 if not p.tls_is_on else replies.unknown_mechanism_504)
    initial = initial.strip(" ")
    response: bytes | None = None
    if initial == "=":
        response = b""  # RFC 4954 4: an initial response that is there and empty
    elif initial and (response := _decoded(initial)) is None:
        return p.complain(replies.bad_base64_501)
    if response is not None and mechanism.server_first:
        return p.complain(replies.no_initial_response_501)
    around = Surroundings(
        hostname=settings.hostname,
        salt_key=settings.salt_key,
        bindings=p.bindings,
        client_identity=p.client_identity,
        binding_offered=any(one.endswith("-PLUS") for one in offered),
    )
    p.login = Login(mechanism.name, mechanism.start(around))
    p.phase = Phase.LOGIN
    return _after(p, p.login.exchange.first(response))


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None


def read_response(p: ServerProtocol) -> Event | Waiting | None:
    """One line of the client's in the exchange."""
    line = p.take_response()
    if not isinstance(line, bytes):
        return line
    if line == b"*":
        return _end(p, replies.cancelled_501)
    try:
        response = _decoded(line.decode("ascii"))
    except UnicodeDecodeError:
        response = None
    if response is None:
        return _end(p, replies.bad_base64_501)
    assert p.login is not None
    return _after(p, p.login.exchange.respond(response))


def _after(p: ServerProtocol, outcome: Outcome) -> Event | None:
    """What the mechanism said becomes a reply or an event."""
    login = p.login
    assert login is not None
    if isinstance(outcome, Challenge):
        p.say(Reply(334, "", base64.b64encode(outcome.data).decode("ascii")) if outcome.data else _EMPTY_334)
        p.reading = read_response
        return None
    if isinstance(outcome, Ask):
        login.user = outcome.user
        p.verdict = _SECRET
        return events.NeedSecret(login.mechanism, outcome.user, outcome.kind, outcome.detail)
    if isinstance(outcome, Done):
        p.pending = outcome.identity
        p.verdict = _DONE
        return events.Authenticated(login.mechanism, outcome.identity, outcome.acts_as)
    if outcome.reply is not None:
        return _end(p, outcome.reply)
    p.verdict = _FAILED
    return events.AuthFailed(login.mechanism, outcome.user or login.user)


_EMPTY_334 = Reply(334, "", "")


def _close(p: ServerProtocol) -> None:
    p.login = None
    p.phase = Phase.READY
    p.read_commands()


def _end(p: ServerProtocol, reply: Reply) -> Event | None:
    _close(p)
    return p.complain(reply)


def _supplied(p: ServerProtocol, answer: object) -> None:
    assert p.login is not None
    event = _after(p, Failure() if answer is NOT_TRIED else p.login.exchange.supply(answer))
    if event is not None:
        p.notice = event


def _unavailable(p: ServerProtocol, reply: Reply | None) -> None:
    _close(p)
    p.say(reply or replies.login_unavailable_454)


def _accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    p.identity = p.pending
    _close(p)
    p.say(reply or replies.authenticated_235)


def _refused(p: ServerProtocol, reply: Reply | None) -> None:
    _close(p)
    p.complain(reply or replies.login_failed_535)


def _cannot_accept(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    raise ValueError("this event wants refuse() or supply(), not accept()")


_SECRET = Verdict(_cannot_accept, _unavailable, _supplied)
_DONE = Verdict(_accepted, _refused)
_FAILED = Verdict(_cannot_accept, _refused)


def too_long(p: ServerProtocol) -> Event | None:
    """A response over its limit ends the exchange (RFC 4954 4)."""
    return _end(p, replies.response_too_long_500)


def bad_line(p: ServerProtocol) -> Event | None:
    """NUL, bare CR or bare LF in a response ends the exchange."""
    return _end(p, replies.bad_line_500)
