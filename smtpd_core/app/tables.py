"""From the tables of a file to Settings with nothing but the standard library: the same rules as validation.py.

'-' and '_' are alike in keys. One value stands for a list of one. A fault is noted and reading goes on, so that every
fault is named at once.
Thread: any.
Not here: what single values may be (values.py), files and the environment (load.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from smtpd_core.app.settings import Settings
from smtpd_core.app.values import nearest, reading, say

Path = tuple[str | int, ...]
"""Where a value stands: keys as the file has them, and places in lists, from 1."""

Fault = tuple[Path, str]

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")

TABLE_DUE, MAPPING_DUE = "expected a table of settings, not {}", "expected a table, not {}"
GIVEN_TWICE = "given twice, once with '-' and once with '_'"


def read(table: Mapping[str, Any]) -> tuple[Settings, list[Fault]]:
    """The settings, and every fault; with faults the settings are of no use."""
    reader = _Reader()
    settings: Settings = reader.section(Settings, table, ())
    return settings, reader.faults


def key_of(path: Path) -> str:
    """A path as a file has it: listener[2].auth, domains."our.test".users."""
    key = ""
    for part in path:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            name = part if _BARE.match(part) else json.dumps(part, ensure_ascii=False)
            key += f".{name}" if key else name
    return key


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said about a key that is no setting."""
    return "unknown setting" + nearest(name, known)


def tables_due(path: Path, value: object) -> str:
    """What is said where [[tables]] belong."""
    return f"expected [[{'.'.join(part for part in path if isinstance(part, str))}]] tables, not {say(value)}"


class _Reader:
    """Fills dataclasses from tables and notes faults instead of raising."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def section(self, kind: type[Any], table: object, path: Path) -> Any:
        if not isinstance(table, Mapping):
            self.faults.append((path, TABLE_DUE.format(say(table))))
            return kind()
        known = {one.name: one for one in fields(kind)}
        types = get_type_hints(kind)
        values: dict[str, Any] = {}
        for given, value in table.items():
            name = given.replace("-", "_")
            if name not in known:
                self.faults.append(((*path, given), unknown(given, known)))
            elif name in values:
                self.faults.append(((*path, given), GIVEN_TWICE))
            else:
                values[name] = self.value(known[name], types[name], value, (*path, given))
        return kind(**{name: value for name, value in values.items() if value is not MISSING})

    def value(self, one: Field[Any], kind: Any, value: object, path: Path) -> Any:
        """The value, or MISSING where there is none to be had."""
        origin, inner = get_origin(kind), get_args(kind)
        if is_dataclass(kind):
            return self.section(kind, value, path)  # type: ignore[arg-type]
        if origin is tuple:
            return self.several(one, inner[0], value, path)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                self.faults.append((path, MAPPING_DUE.format(say(value))))
                return MISSING
            return {name: self.value(one, inner[1], each, (*path, name)) for name, each in value.items()}
        try:
            return reading(one, kind)(value)
        except ValueError as error:
            self.faults.append((path, str(error)))
            return MISSING

    def several(self, one: Field[Any], kind: Any, value: object, path: Path) -> Any:
        if isinstance(value, list):
            return tuple(self.value(one, kind, each, (*path, n)) for n, each in enumerate(value, 1))
        if is_dataclass(kind) and not isinstance(value, Mapping):
            self.faults.append((path, tables_due(path, value)))
            return MISSING
        return (self.value(one, kind, value, path),)
