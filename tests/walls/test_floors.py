"""The floors of the house: a module imports from its own floor or from below, and each effect has one importer."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Room: what it may import of the project besides itself. The first prefix that fits a module rules it.
FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("smtpd_core.app", ("smtpd_core", "relay", "certs")),
    ("smtpd_core.__main__", ("smtpd_core", "relay", "certs")),
    ("smtpd_core.testing", ("smtpd_core", "relay", "certs")),
    ("smtpd_core.compat", ("smtpd_core", "relay", "certs")),
    (
        "smtpd_core.server",
        (
            "smtpd_core.net",
            "smtpd_core.accounts",
            "smtpd_core.wire",
            "smtpd_core.threads",
            "smtpd_core.draft",
            "certs",
        ),
    ),
    ("smtpd_core.net", ("smtpd_core.accounts", "smtpd_core.wire", "smtpd_core.threads", "smtpd_core.draft", "certs")),
    ("smtpd_core.accounts", ("smtpd_core.wire", "smtpd_core.threads", "certs")),
    ("smtpd_core.wire", ()),
    ("smtpd_core.threads", ()),
    ("smtpd_core.draft", ()),
    ("relay", ("smtpd_core.wire", "smtpd_core.threads", "smtpd_core.draft", "certs")),
    ("certs", ()),
)

# The package's face gathers the public names of floor 3 and below.
FACE = (
    "smtpd_core.server",
    "smtpd_core.net",
    "smtpd_core.accounts",
    "smtpd_core.wire",
    "smtpd_core.threads",
    "smtpd_core.draft",
)

# Effect: the modules (prefixes) that may import it.
SINGLE_IMPORTERS: dict[str, tuple[str, ...]] = {
    "threading": ("smtpd_core.threads",),
    "_thread": ("smtpd_core.threads",),
    "queue": ("smtpd_core.threads",),
    "concurrent": ("smtpd_core.threads",),
    "logging.handlers": ("smtpd_core.threads",),
    "select": ("smtpd_core.net.poller",),
    "selectors": ("smtpd_core.net.poller",),
    "socket": ("smtpd_core.net", "relay.link", "relay.control", "smtpd_core.testing"),
    "OpenSSL": ("certs",),
    "dns": ("relay.mx",),
    "sqlite3": ("smtpd_core.accounts.sql", "relay.queue_*"),
    "psycopg": ("smtpd_core.accounts.sql", "relay.queue_*"),
    "tomllib": ("smtpd_core.app.load", "smtpd_core.accounts.password_file"),
    "pydantic": ("smtpd_core.app.validation",),
    "pydantic_core": ("smtpd_core.app.validation",),
    "prometheus_client": ("smtpd_core.app.exposition",),
    "rich": ("smtpd_core.app.terminal",),
    "shtab": ("smtpd_core.app.cmd_completion",),
    "asyncio": ("smtpd_core.compat.aiosmtpd",),
}


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("smtpd_core", "relay", "certs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def imports() -> tuple[Import, ...]:
    found = []
    for module, path in modules():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                found += [Import(module, name.name, node.lineno) for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = node.module or ""
                if node.level:
                    base = package.split(".")[: len(package.split(".")) - node.level + 1]
                    origin = ".".join(base + ([origin] if origin else []))
                found += [Import(module, f"{origin}.{name.name}", node.lineno) for name in node.names]
    return tuple(found)


def within(name: str, prefix: str) -> bool:
    if prefix.endswith("*"):
        return name.startswith(prefix[:-1])
    return name == prefix or name.startswith(prefix + ".")


def test_a_module_imports_from_its_own_floor_or_below() -> None:
    wrong = []
    for one in imports():
        if not any(within(one.imported, package) for package in ("smtpd_core", "relay", "certs")):
            continue
        room, allowed = next(
            ((room, allowed) for room, allowed in FLOORS if within(one.importer, room)), ("smtpd_core", FACE)
        )
        if not any(within(one.imported, prefix) for prefix in (room, *allowed)):
            wrong.append(str(one))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("effect", SINGLE_IMPORTERS)
def test_an_effect_has_one_importer(effect: str) -> None:
    wrong = [
        str(one)
        for one in imports()
        if within(one.imported, effect)
        and not any(within(one.importer, importer) for importer in SINGLE_IMPORTERS[effect])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_protocol_core_is_standard_library_only() -> None:
    wrong = [
        str(one)
        for one in imports()
        if within(one.importer, "smtpd_core.wire")
        and not within(one.imported, "smtpd_core.wire")
        and one.imported.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


def test_relay_is_met_only_in_the_rooms_of_floor_4() -> None:
    upper = ("smtpd_core.app", "smtpd_core.__main__", "smtpd_core.testing", "smtpd_core.compat")
    wrong = [
        str(one)
        for one in imports()
        if within(one.imported, "relay")
        and not within(one.importer, "relay")
        and not any(within(one.importer, room) for room in upper)
    ]
    assert not wrong, "\n".join(wrong)
