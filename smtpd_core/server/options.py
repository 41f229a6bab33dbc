"""Properties and events of the component as descriptors: each is described once, beside its name.

Reading a property gives its value; setting one checks it, and a running server either takes it over or refuses it.
Reading an event gives its slot, which is a decorator too.
Thread: any.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from certs.files import Pair
from smtpd_core.net import Guard, GuardSettings
from smtpd_core.server import hooks
from smtpd_core.wire.sasl.salts import LEAST_KEY

if TYPE_CHECKING:
    from smtpd_core.server.component import Component

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Takes(Enum):
    """When a change counts."""

    AT_START = "refused while the server runs"
    AT_ONCE = "at once"
    NEXT_CONNECTION = "for connections from then on"
    NEXT_WAIT = "for every wait that begins from then on"


AT_START, AT_ONCE = Takes.AT_START, Takes.AT_ONCE
NEXT_CONNECTION, NEXT_WAIT = Takes.NEXT_CONNECTION, Takes.NEXT_WAIT


class Option(Generic[T]):
    """One property: default, meaning, when a change counts, and a check that raises with what would be right."""

    def __init__(
        self,
        default: T,
        meaning: str,
        takes: Takes = NEXT_CONNECTION,
        *,
        check: Callable[[str, Any], T] | None = None,
    ) -> None:
        self.default = default
        self.meaning = meaning
        self.takes = takes
        self.check = check
        self.name = ""
        self.__doc__ = (
            f"{meaning} A change counts {takes.value}." if takes is not AT_START else f"{meaning} {takes.value}"
        )

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, server: None, owner: type) -> Option[T]: ...
    @overload
    def __get__(self, server: Component, owner: type) -> T: ...
    def __get__(self, server: Component | None, owner: type) -> Option[T] | T:
        if server is None:
            return self
        value: T = server._values.get(self.name, self.default)
        return value

    def __set__(self, server: Component, value: T) -> None:
        if self.check is not None:
            value = self.check(self.name, value)
        server._change(self, value)


class EventSlot:
    """What reading an event gives: `server.on_mail_from(f)` sets it, so it is a decorator; `.function` is set."""

    __slots__ = ("_server", "name")

    def __init__(self, server: Component, name: str) -> None:
        self._server = server
        self.name = name

    @property
    def function(self) -> Callable[..., Any] | None:
        return self._server._slots.get(self.name)

    def __call__(self, function: F) -> F:
        self._server._set_hook(self.name, function)
        return function

    def __bool__(self) -> bool:
        return self.function is not None

    def __repr__(self) -> str:
        return f"<{self.name}: {self.function!r}>"


class EventOption:
    """One event."""

    def __init__(self) -> None:
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        row = hooks.BY_NAME[name]
        self.__doc__ = f"{name}({', '.join(row.takes)}): {row.meaning}. {row.kind.value}"

    @overload
    def __get__(self, server: None, owner: type) -> EventOption: ...
    @overload
    def __get__(self, server: Component, owner: type) -> EventSlot: ...
    def __get__(self, server: Component | None, owner: type) -> EventOption | EventSlot:
        return self if server is None else EventSlot(server, self.name)

    def __set__(self, server: Component, function: Callable[..., Any] | None) -> None:
        server._set_hook(self.name, function.function if isinstance(function, EventSlot) else function)


def unknown_name(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"SmtpServer has no property or event {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


# Checks

# Ten years: more than any wait, less than what a lock can wait for.
_MOST_SECONDS = 315_360_000


def whole(least: int, most: int | None = None) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} = {value!r}: a whole number is due")
        if value < least or (most is not None and value > most):
            raise ValueError(f"{name} = {value}: {least} or more is due" + (f", at most {most}" if most else ""))
        return value

    return check


def seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} = {value!r}: a number of seconds is due")
    if not 0 <= value <= _MOST_SECONDS:  # which a NaN is not
        raise ValueError(f"{name} = {value}: 0 (never) or more is due, at most 10 years")
    return float(value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} = {value!r}: True or False is due")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} = {value!r}: text is due")
    return value


def one_of(*choices: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        spelt = value.replace("-", "_") if isinstance(value, str) else value
        if spelt not in choices:
            raise ValueError(f"{name} = {value!r}: one of {', '.join(repr(one) for one in choices if one)} is due")
        return str(spelt)

    return check


def a_guard(name: str, value: Any) -> GuardSettings | Guard | None:
    if value is not None and not isinstance(value, GuardSettings | Guard):
        raise TypeError(f"{name} = {value!r}: GuardSettings(...) or a Guard is due")
    return value


def a_debug_log(name: str, value: Any) -> bool | str | logging.Logger | None:
    if value is None or isinstance(value, bool | logging.Logger):
        return value
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} = {value!r}: True, a path or a logging.Logger is due")
    return os.fspath(value)


def sender_rule(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "enforce" if value else "off"
    return one_of("off", "warn", "enforce")(name, value)


def client_certificates(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "require" if value else "no"
    return one_of("no", "ask", "require")(name, value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} = {value!r}: a list of texts is due")
    given = tuple(value)
    if not all(isinstance(one, str) for one in given):
        raise TypeError(f"{name} = {value!r}: a list of texts is due")
    return given


def several(kind: type[T], due: str) -> Callable[[str, Any], tuple[T, ...]]:
    def check(name: str, value: Any) -> tuple[T, ...]:
        given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)
        if not isinstance(value, Iterable) or not all(isinstance(one, kind) for one in given):
            raise TypeError(f"{name} = {value!r}: {due} is due")
        return given

    return check


def one_or_none(*kinds: type, due: str) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is not None and not isinstance(value, kinds):
            raise TypeError(f"{name} = {value!r}: {due} is due")
        return value

    return check


def accounts(name: str, value: Any) -> Any:
    """A generator is read once, here; a list stays the program's."""
    return tuple(value) if isinstance(value, Iterator) else value


def a_salt_key(name: str, value: Any) -> bytes:
    """Its value is never quoted."""
    if not isinstance(value, bytes):
        raise TypeError(f"{name}: {type(value).__name__} is no bytes")
    if value and len(value) < LEAST_KEY:
        raise ValueError(f"{name}: {len(value)} octets; {LEAST_KEY} or more are due")
    return value


def a_keeping(name: str, value: Any) -> Any:
    lacks = [part for part in ("has_room", "holds", "keep") if not callable(getattr(value, part, None))]
    if value is not None and (lacks or isinstance(value, type)):
        why = "a class, not yet an object" if isinstance(value, type) else f"no method {', '.join(lacks)}"
        raise TypeError(f"{name} = {value!r}: {why}; relay.MailboxStore(path), relay.Outbox(path) or the like is due")
    return value


def a_directory(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} = {value!r}: the path of a directory is due")
    return os.fspath(value)


def a_certificate(name: str, value: Any) -> str | Pair:
    if isinstance(value, Pair):
        return value
    return a_path(name, value)


def a_path(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} = {value!r}: a path is due")
    return os.fspath(value)
