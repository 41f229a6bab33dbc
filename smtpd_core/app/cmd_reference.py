"""`reference`: every setting, made from settings.py; docs/reference.md is its output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from smtpd_core.app.figures import METRICS
from smtpd_core.app.load import variables
from smtpd_core.app.reloading import restarts
from smtpd_core.app.settings import BYTES, BYTES_PER_SECOND, SECONDS, Settings
from smtpd_core.app.values import say_duration, say_size


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as the reference tells it."""

    key: str
    default: str
    unit: str
    meaning: str
    values: tuple[str, ...]
    restart: str


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    print(as_json() if options.json else as_markdown(), end="")
    return 0


def sections(kind: type = Settings, title: str = "") -> Iterator[tuple[str, list[Entry]]]:
    """(header as it stands in a file, its settings), in the order of the classes."""
    here: list[Entry] = []
    inner: list[tuple[str, list[Entry]]] = []
    types = get_type_hints(kind)
    for one in fields(kind):
        what = types[one.name]
        plain = title.strip("[]")
        path = f"{plain}.{one.name}" if plain else one.name
        element = get_args(what)[-1] if get_origin(what) is not None and issubclass(get_origin(what), Mapping) else None
        if is_dataclass(what):
            inner += sections(what, f"[{path}]")  # type: ignore[arg-type]
        elif get_origin(what) is tuple and is_dataclass(get_args(what)[0]):
            inner += sections(get_args(what)[0], f"[[{path}]]")
        elif is_dataclass(element):
            inner += sections(element, f'[{path}."NAME"]')  # type: ignore[arg-type]
        else:
            here.append(_entry(one))
    yield title, here
    yield from inner


def _entry(one: Field[Any]) -> Entry:
    default = one.default
    if one.default_factory is not MISSING:
        default = one.default_factory()
    unit = one.metadata["unit"]
    return Entry(
        one.name, say(default, unit), unit, one.metadata["meaning"], one.metadata["one_of"], one.metadata["restart"]
    )


def say(value: object, unit: str = "") -> str:
    """A value as it would stand in a file."""
    if isinstance(value, tuple):
        return "[" + ", ".join(say(one, unit) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {say(one)}" for name, one in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if unit == SECONDS and isinstance(value, (int, float)):
        return f'"{say_duration(value)}"'
    if unit in (BYTES, BYTES_PER_SECOND) and isinstance(value, int):
        return f'"{say_size(value)}"'
    return json.dumps(value, ensure_ascii=False)


def as_json() -> str:
    table = {
        title or "(top)": [
            {
                "key": one.key,
                "default": one.default,
                "unit": one.unit,
                "meaning": one.meaning,
                "values": list(one.values),
                "needs_restart": bool(one.restart),
            }
            for one in entries
        ]
        for title, entries in sections()
    }
    return json.dumps(table, indent=2) + "\n"


def as_markdown() -> str:
    """The page docs/reference.md."""
    lines = [
        "# Reference of settings",
        "",
        'Made by `python -m smtpd_core reference`. Durations are seconds or text like `"5m"`, sizes bytes or text like',
        '`"50MiB"`; `-` and `_` are alike. Settings marked *restart* are read when the server starts, all others',
        "also at a reload (SIGHUP).",
    ]
    for title, entries in sections():
        lines += ["", f"## `{title}`" if title else "## At the top of the file", ""]
        lines += ["| Setting | Default | Meaning |", "|---|---|---|"]
        lines += [_row(one) for one in entries]
    lines += [
        "",
        "## What needs a restart",
        "",
        "A reload names a change of these in the log and keeps the old value.",
        "",
        "| Setting | Why |",
        "|---|---|",
        *(f"| `{one.key}` | {one.reason} |" for one in restarts()),
        "",
        "## Environment",
        "",
        "A variable wins over the file. Lists are separated by commas.",
        "",
        *(f"- `{name}`" for name in variables()),
        "",
        "## Metrics",
        "",
        "At `http://HOST:PORT/metrics` of `[metrics] bind`, in the text format of Prometheus.",
        "",
        "| Metric | Kind | Labels | Meaning |",
        "|---|---|---|---|",
        *(f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.meaning} |" for one in METRICS),
        "",
    ]
    return "\n".join(lines)


def _row(one: Entry) -> str:
    meaning = one.meaning
    if one.values:
        meaning += " (" + ", ".join(f"`{value}`" for value in one.values) + ")"
    if one.unit:
        meaning += f"; {one.unit}"
    if one.restart:
        meaning += "; *restart*"
    return f"| `{one.key}` | `{one.default}` | {meaning.replace('|', chr(92) + '|')} |"
