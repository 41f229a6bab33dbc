"""The hooks: one fixed list of names, and the slots that hold the program's functions.

Rule: an unknown `on_*` name, a coroutine function and one that can't take the hook's arguments are errors at once.
A slot is None or a Hook, so that an event without a hook costs one attribute test.
Thread: slots are set from any thread and read by every turn; a change counts from the next event on.
Not here: what a verdict means (verdicts.py), when a hook is called (dialogue.py).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from smtpd_core.threads import HookMeter, Share


class Kind(Enum):
    DECIDES = "its verdict counts"
    OBSERVES = "it can't decide; what it raises is reported and dropped"


class Row(NamedTuple):
    """One hook: whether it decides, its arguments by name, and what it is for."""

    name: str
    kind: Kind
    takes: tuple[str, ...]
    meaning: str


DECIDES, OBSERVES = Kind.DECIDES, Kind.OBSERVES

ROWS = (
    Row("on_start", OBSERVES, ("server",), "the server listens; in the thread that called start()"),
    Row("on_stop", OBSERVES, ("server",), "the server has stopped; in the thread that called stop()"),
    Row("on_accept_connection", DECIDES, ("session",), "a client connected; before the greeting"),
    Row("on_close_connection", OBSERVES, ("session",), "the connection is over; session.ended_because says why"),
    Row("on_read_connection", OBSERVES, ("session", "data"), "bytes came, TLS removed; secrets are in them"),
    Row("on_hello", DECIDES, ("session", "domain"), "EHLO, HELO or LHLO"),
    Row(
        "on_authenticate",
        DECIDES,
        ("session", "login"),
        "somebody logs in; may supply the account or leave it to the store",
    ),
    Row("on_mail_from", DECIDES, ("session", "sender", "parameters"), "MAIL; the null path is the empty string"),
    Row("on_recipient_to", DECIDES, ("session", "recipient"), "RCPT; recipient.address, .notify, .orcpt"),
    Row("on_message_received", DECIDES, ("session", "message"), "all content is here; the reply is not given yet"),
    Row("on_partial_message", OBSERVES, ("session", "message"), "the client vanished within the content"),
    Row("on_get_certificate", DECIDES, ("session", "server_name"), "a TLS handshake; the SNI name or the empty string"),
    Row("on_verify", DECIDES, ("session", "text"), "VRFY"),
    Row("on_expand", DECIDES, ("session", "text"), "EXPN"),
    Row("on_etrn", DECIDES, ("session", "text"), "ETRN"),
    Row("on_receive_command", OBSERVES, ("session", "command"), "a command line came, secrets masked"),
    Row("on_send_response", OBSERVES, ("session", "reply"), "a reply goes out, secrets masked"),
    Row("on_server_error", OBSERVES, ("session", "error"), "an unexpected exception; session may be None"),
)

NAMES = tuple(row.name for row in ROWS)
BY_NAME = {row.name: row for row in ROWS}


class Hook:
    """A function in its slot, with the meter that decides whether it is called inline."""

    __slots__ = ("function", "meter", "name")

    def __init__(self, name: str, function: Callable[..., Any], meter: HookMeter) -> None:
        self.name = name
        self.function = function
        self.meter = meter


class Slots:
    """One attribute per hook: None or a Hook. `login_share` bounds account look-ups to half of the threads."""

    __slots__ = (*NAMES, "budget", "login_share")

    on_start: Hook | None
    on_stop: Hook | None
    on_accept_connection: Hook | None
    on_close_connection: Hook | None
    on_read_connection: Hook | None
    on_hello: Hook | None
    on_authenticate: Hook | None
    on_mail_from: Hook | None
    on_recipient_to: Hook | None
    on_message_received: Hook | None
    on_partial_message: Hook | None
    on_get_certificate: Hook | None
    on_verify: Hook | None
    on_expand: Hook | None
    on_etrn: Hook | None
    on_receive_command: Hook | None
    on_send_response: Hook | None
    on_server_error: Hook | None

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.login_share = Share(0.5)
        for name in NAMES:
            setattr(self, name, None)

    def set(self, name: str, function: Callable[..., Any] | None) -> None:
        """Fill or empty a slot. AttributeError for an unknown name, TypeError for a function of the wrong shape."""
        row = BY_NAME.get(name)
        if row is None:
            raise AttributeError(no_such_hook(name))
        if function is None:
            setattr(self, name, None)
            return
        check(row, function)
        share = self.login_share if name == "on_authenticate" else None
        setattr(self, name, Hook(name, function, HookMeter(name, self.budget, share)))

    def get(self, name: str) -> Callable[..., Any] | None:
        hook: Hook | None = getattr(self, name)
        return hook.function if hook is not None else None

    def take_from(self, handler: object) -> None:
        """Fill the slots from an object's methods. Attributes that look like hooks and are none are errors."""
        found = 0
        for name in dir(handler):
            if name.startswith("on_"):
                if name not in BY_NAME:
                    raise AttributeError(f"handler {type(handler).__name__}: {no_such_hook(name)}")
                method = getattr(handler, name)
                if getattr(method, "_does_nothing", False):
                    found += 1  # an event that a subclass of Handler left alone costs nothing
                    continue
                self.set(name, method)
                found += 1
        if not found:
            raise TypeError(f"handler {type(handler).__name__} has none of the events: {', '.join(NAMES)}")


def no_such_hook(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, 1)
    return f"there is no event {name!r}" + (
        f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(NAMES)}"
    )


def check(row: Row, function: object) -> None:
    """Raises TypeError, with what would be right, for something that can't be this hook."""
    check_shape(row.name, row.takes, function)


def check_shape(name: str, takes: tuple[str, ...], function: object) -> None:
    """Raises TypeError for what is no plain function of these arguments."""
    shape = f"{name}({', '.join(takes)})"
    if not callable(function):
        raise TypeError(f"{name} = {function!r}: a function is due, called as {shape}")
    called = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        raise TypeError(
            f"{name}: a coroutine function is never awaited here; hooks are plain functions that may block"
            " (smtpd_core.compat.aiosmtpd runs handlers with coroutines)"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a built-in tells nothing about itself
    try:
        signature.bind(*takes)
    except TypeError as error:
        raise TypeError(f"{name}{signature}: it is called as {shape}: {error}") from None
