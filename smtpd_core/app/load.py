"""From a TOML file and the environment to Settings: every error at once, each with file, key and what would be right.

'-' and '_' are alike in keys and in named values. A value from the environment (SMTPD_CORE_LIMITS_MAX_ERRORS=5) wins
over the file. Relative paths are left as they stand: the daemon is started where they make sense.
Thread: any.
Not here: what can't be combined (sanity.py).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from smtpd_core.app.settings import BYTES, BYTES_PER_SECOND, SECONDS, Settings
from smtpd_core.app.values import duration, size

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
        with open(path, "rb") as file:
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


def from_table(table: Mapping[str, Any], name: str, environment: Mapping[str, str]) -> Settings:
    """Settings of a table that was read from `name`. Raises BadSettings with every fault."""
    faults: list[str] = []
    reader = _Reader(name, faults)
    settings: Settings = reader.section(Settings, _merge(table, environment, faults), "")
    if faults:
        raise BadSettings(faults)
    return settings


class _Reader:
    """Fills dataclasses from tables and notes faults instead of raising."""

    def __init__(self, name: str, faults: list[str]) -> None:
        self.name = name
        self.faults = faults

    def fault(self, key: str, reason: str) -> None:
        self.faults.append(f"{self.name}: {key}: {reason}")

    def section(self, kind: type[Any], table: object, key: str) -> Any:
        if not isinstance(table, Mapping):
            self.fault(key, f"expected a table of settings, not {_say(table)}")
            return kind()
        known = {one.name: one for one in fields(kind)}
        types = _types(kind)
        values: dict[str, Any] = {}
        for given, value in table.items():
            here = f"{key}.{given}" if key else given
            name = given.replace("-", "_")
            if name not in known:
                self.fault(here, "unknown setting" + nearest(given, known))
            elif name in values:
                self.fault(here, "given twice, once with '-' and once with '_'")
            else:
                values[name] = self.value(known[name], types[name], value, here)
        return kind(**{name: value for name, value in values.items() if value is not MISSING})

    def value(self, one: Field[Any], kind: Any, value: object, key: str) -> Any:
        """The value, or MISSING where there is none to be had."""
        origin, inner = get_origin(kind), get_args(kind)
        if is_dataclass(kind):
            return self.section(kind, value, key)  # type: ignore[arg-type]
        if origin is tuple and is_dataclass(inner[0]):
            if isinstance(value, Mapping):
                value = [value]
            if not isinstance(value, list):
                self.fault(key, f"expected [[{key}]] tables, not {_say(value)}")
                return MISSING
            return tuple(self.section(inner[0], each, f"{key}[{n}]") for n, each in enumerate(value, 1))  # type: ignore[arg-type]
        if origin is tuple:
            listed = value if isinstance(value, list) else [value]
            return self._all(self.scalar(one, inner[0], each, key) for each in listed)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                self.fault(key, f"expected a table, not {_say(value)}")
                return MISSING
            return {name: self.entry(one, inner[1], each, f'{key}."{name}"') for name, each in value.items()}
        return self.scalar(one, kind, value, key)

    def entry(self, one: Field[Any], kind: Any, value: object, key: str) -> Any:
        found = self.value(one, kind, value, key)
        return () if found is MISSING else found

    def _all(self, values: Iterator[Any]) -> Any:
        found = tuple(values)
        return MISSING if MISSING in found else found

    def scalar(self, one: Field[Any], kind: type, value: object, key: str) -> Any:
        unit, one_of = one.metadata["unit"], one.metadata["one_of"]
        try:
            if unit == SECONDS:
                return duration(value)
            if unit in (BYTES, BYTES_PER_SECOND):
                return size(value)
            if one_of:
                return choice(value, one_of)
            return _PLAIN[kind](value)
        except ValueError as error:
            self.fault(key, str(error) if not one.metadata["secret"] else "expected one line of text in quotes")
            return MISSING


def choice(value: object, one_of: tuple[str, ...]) -> str:
    """One of the names, '-' and '_' alike. ValueError with the nearest otherwise."""
    text = value.replace("_", "-").lower() if isinstance(value, str) else ""
    if text in one_of:
        return text
    raise ValueError(f"{_say(value)} is none of {', '.join(one_of)}{nearest(text, one_of)}")


def nearest(name: str, known: Any) -> str:
    """ "; did you mean X?", or nothing where nothing is near."""
    near = difflib.get_close_matches(name.replace("-", "_"), list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, not {_say(value)}")


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 31:
        return value
    raise ValueError(f"expected a whole number, 0 or more, not {_say(value)}")


def _text(value: object) -> str:
    if isinstance(value, str) and not any(c < " " or c == "\x7f" for c in value):
        return value
    raise ValueError(f"expected one line of text in quotes, not {_say(value)}")


_PLAIN: dict[type, Any] = {bool: _boolean, int: _number, str: _text}


def _say(value: object) -> str:
    if isinstance(value, Mapping):
        return "a table"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


# -- the environment


def variables(kind: type = Settings, path: tuple[str, ...] = ()) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Every variable of the environment: name to the setting's path and type. Listeners and domains have none."""
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for one in fields(kind):
        here, kind_of = (*path, one.name), _types(kind)[one.name]
        if is_dataclass(kind_of):
            found |= variables(kind_of, here)  # type: ignore[arg-type]
        elif get_origin(kind_of) is None or (get_origin(kind_of) is tuple and not is_dataclass(get_args(kind_of)[0])):
            found[ENVIRONMENT + "_".join(here).upper()] = (here, kind_of)
    return found


def _merge(table: Mapping[str, Any], environment: Mapping[str, str], faults: list[str]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(table)
    known = variables()
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT):
            continue
        if name not in known:
            faults.append(f"environment: {name}: unknown setting{nearest(name, known)}")
            continue
        path, kind = known[name]
        _put(merged, path, _from_text(text, kind))
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
