"""From a TOML file and the environment to Settings: every error at once, each with file, key and what would be right.

A value from the environment (SMTPD_CORE_LIMITS_MAX_ERRORS=5) wins over the file. Relative paths are left as they stand:
the daemon is started where they make sense.
Thread: any.
Not here: tables to settings (validation.py with pydantic, tables.py without), what can't be combined (sanity.py).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from smtpd_core.app.settings import Settings
from smtpd_core.app.tables import Fault, key_of
from smtpd_core.app.values import nearest

ENVIRONMENT = "SMTPD_CORE_"

# A configuration is a page; what is larger is some other file.
MAX_FILE = 4 * 1024 * 1024


class BadSettings(Exception):
    """What is wrong, one line for each fault: "FILE: KEY: reason"."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file. Raises BadSettings."""
    name = str(path)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            raw = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise BadSettings([f"{name}: {getattr(error, 'strerror', None) or error}"]) from None
    if len(raw) > MAX_FILE:
        raise BadSettings([f"{name}: larger than {MAX_FILE} bytes, so it is no configuration"])
    try:
        text = raw.decode("utf-8")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise BadSettings([f"{name}: not UTF-8 at byte {error.start}"]) from None
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise BadSettings([f"{name}: not TOML: {str(error) or type(error).__name__}"]) from None
    return from_table(table, name, environment or {})


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes into is empty: a reload that waited for a writer would hear no signal."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(descriptor, True)
    return descriptor


def from_table(table: Mapping[str, Any], name: str, environment: Mapping[str, str]) -> Settings:
    """Settings of a table that was read from `name`. Raises BadSettings with every fault."""
    given, unknown = _overrides(environment)
    settings, found = _read(_merge(table, given))
    faults = unknown + [f"{_source(path, given) or f'{name}: {key_of(path)}'}: {reason}" for path, reason in found]
    if faults:
        raise BadSettings(faults)
    return settings


def _read(table: Mapping[str, Any]) -> tuple[Settings, list[Fault]]:
    """By pydantic where it is installed. Its import takes longer than all else here: not for an empty table."""
    if not table:
        return Settings(), []
    try:
        from smtpd_core.app.validation import read
    except ImportError:
        from smtpd_core.app.tables import read
    return read(table)


# -- the environment


def variables(kind: type = Settings, path: tuple[str, ...] = ()) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Every variable of the environment: name to the setting's path and type. Listeners and domains have none."""
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    types = get_type_hints(kind)
    for one in fields(kind):
        here, kind_of = (*path, one.name), types[one.name]
        if is_dataclass(kind_of):
            found |= variables(kind_of, here)  # type: ignore[arg-type]
        elif get_origin(kind_of) is None or (get_origin(kind_of) is tuple and not is_dataclass(get_args(kind_of)[0])):
            found[ENVIRONMENT + "_".join(here).upper()] = (here, kind_of)
    return found


def _overrides(environment: Mapping[str, str]) -> tuple[dict[tuple[str, ...], tuple[str, object]], list[str]]:
    """What the environment says: path to variable and value; and what is wrong with the rest."""
    known = variables()
    given: dict[tuple[str, ...], tuple[str, object]] = {}
    faults: list[str] = []
    for name, text in sorted(environment.items()):
        if name in known and any("\ud800" <= c <= "\udfff" for c in text):
            faults.append(f"environment: {name}: not UTF-8")
        elif name in known:
            path, kind = known[name]
            given[path] = name, _from_text(text, kind)
        elif name.startswith(ENVIRONMENT):
            faults.append(f"environment: {name}: unknown setting{nearest(name, known)}")
    return given, faults


def _source(path: tuple[str | int, ...], given: Mapping[tuple[str, ...], tuple[str, object]]) -> str:
    """The variable that a fault comes from, "" where it comes from the file."""
    names = tuple(part.replace("-", "_") for part in path if isinstance(part, str))
    return f"environment: {given[names][0]}" if names in given else ""


def _merge(table: Mapping[str, Any], given: Mapping[tuple[str, ...], tuple[str, object]]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(table)
    for path, (_, value) in given.items():
        _put(merged, path, value)
    return merged


def _from_text(text: str, kind: Any) -> object:
    """Text as TOML would have given it; what does not fit is refused by the reader."""
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower(), text)
    if kind is int and text.isascii() and text.isdigit():
        return int(text)
    return text


def _put(table: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set a value deep in a table; the tables on the way are copied, and a key written with '-' is replaced."""
    for name in path[:-1]:
        key = next((key for key in table if key.replace("-", "_") == name), name)
        inner = table.get(key, {})
        if not isinstance(inner, Mapping):
            return  # the reader says what is wrong with it
        table[key] = dict(inner)
        table = table[key]
    for key in [key for key in table if key.replace("-", "_") == path[-1]]:
        del table[key]
    table[path[-1]] = value
