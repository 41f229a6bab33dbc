"""A reload: which of the new settings count, and how a running server takes them over.

Rule: all or nothing. Settings that can't be read, make no sense or can't be served are reported, and everything stays
as it was. Those that need a restart (settings.py says which, and why) are named and keep their old value.
Thread: main.
Not here: what is made of settings (build.py), signals (cmd_serve.py, several.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from certs.trouble import CertificateError
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app.load import BadSettings
from smtpd_core.app.logs import Logbook
from smtpd_core.app.settings import Listener, Settings
from smtpd_core.server import SmtpServer
from smtpd_core.server.options import EventSlot

if TYPE_CHECKING:
    from smtpd_core.app.build import Daemon

log = logging.getLogger(__name__)

# What makes settings unusable; each says what is wrong.
UNUSABLE = (BadSettings, OSError, ValueError, ExtraMissing, CertificateError)


def reload(daemon: Daemon, read: Callable[[], Settings], book: Logbook) -> bool:
    """What HUP asks for: settings, certificates, accounts and aliases read again, the log's file opened again.

    False where the new settings are of no use; the reason is logged."""
    book.reopen()
    try:
        left = daemon.reload(read())
    except UNUSABLE as error:
        tell_refused(error)
        return False
    settings = daemon.settings
    book.follow(settings.log)
    os.umask(int(settings.umask, 8))
    for one in left:
        log.warning("reload: %s needs a restart and keeps its old value: %s", one.key, one.reason)
    log.info("reloaded")
    return True


def tell_refused(error: BaseException) -> None:
    for line in str(error).splitlines():
        log.error("reload refused, everything stays as it was: %s", line)


@dataclass(frozen=True, slots=True)
class Restart:
    """One setting that needs a restart, and why."""

    key: str
    reason: str


def restarts(kind: type = Settings, path: str = "") -> Iterator[Restart]:
    """Every setting that needs a restart, in the order of the reference."""
    types = get_type_hints(kind)
    for one in fields(kind):
        key = f"{path}.{one.name}" if path else one.name
        inner = [what for what in (types[one.name], *get_args(types[one.name])) if is_dataclass(what)]
        if inner:
            yield from restarts(inner[0], key)  # type: ignore[arg-type]
        elif one.metadata["restart"]:
            yield Restart(key, one.metadata["restart"])


def left_behind(old: Settings, new: Settings) -> list[Restart]:
    """The settings that differ and need a restart."""
    return [one for one in restarts() if _value(old, one.key) != _value(new, one.key)]


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = [getattr(one, name) for one in value] if isinstance(value, tuple) else getattr(value, name)
    return value


def within_reach(old: Settings, new: Settings) -> Settings:
    """The new settings with the old values of what needs a restart. A listener is known by its address."""
    kept: Settings = _kept(old, new)
    by_address = {one.bind: one for one in new.listener}
    listeners: tuple[Listener, ...] = tuple(by_address.get(one.bind, one) for one in old.listener)
    return replace(kept, listener=listeners)


def _kept(old: Any, new: Any) -> Any:
    values = {
        one.name: _kept(getattr(old, one.name), getattr(new, one.name))
        for one in fields(old)
        if is_dataclass(getattr(old, one.name))
    }
    values |= {one.name: getattr(old, one.name) for one in fields(old) if one.metadata["restart"]}
    return replace(new, **values)


def take_over(server: SmtpServer, wanted: Mapping[str, Any]) -> None:
    """Set all these properties and events of a running server or, where one is refused, none.

    Some fit each other only in the end: what is refused is tried again as long as another one was taken.
    """
    before = {name: _now(server, name) for name in wanted}
    left = [name for name, value in wanted.items() if before[name] != value]
    changed = list(left)
    try:
        if "auth_mechanisms" in left and "user_accounts" in left:
            server.auth_mechanisms = ()  # whatever a store serves, until both are there
        while left:
            refused: dict[str, ValueError] = {}
            for name in left:
                try:
                    setattr(server, name, wanted[name])
                except ValueError as error:
                    refused[name] = error
            if len(refused) == len(left):
                raise refused[left[0]]
            left = list(refused)
    except BaseException:
        undone = {name: before[name] for name in changed}
        for _ in range(len(undone)):
            for name in list(undone):
                with suppress(ValueError):
                    setattr(server, name, undone[name])
                    del undone[name]
        raise


def _now(server: SmtpServer, name: str) -> Any:
    value = getattr(server, name)
    return value.function if isinstance(value, EventSlot) else value
