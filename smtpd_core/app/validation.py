"""From the tables of a file to Settings by pydantic: every fault with its path. The same rules as tables.py.

The dataclasses of settings.py are validated as they stand; what a single value may be is asked of values.py, and its
type is checked once more. Importing this needs pydantic (extra `daemon`).
Thread: any.
Not here: files and the environment (load.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetPydanticSchema, Strict, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from smtpd_core.app.settings import Settings
from smtpd_core.app.tables import GIVEN_TWICE, MAPPING_DUE, TABLE_DUE, Fault, Path, tables_due, unknown
from smtpd_core.app.values import reading, say


def read(table: Mapping[str, Any]) -> tuple[Settings, list[Fault]]:
    """The settings, and every fault; with faults the settings are of no use."""
    try:
        return _adapter().validate_python(table), []
    except ValidationError as error:
        return Settings(), [_fault(one, table) for one in error.errors(include_url=False)]


@cache
def _adapter() -> TypeAdapter[Settings]:
    return TypeAdapter(_section(Settings))


# -- what pydantic is told


def _section(kind: type[Any]) -> Any:
    """A dataclass of settings: its own fields and no others."""
    types = get_type_hints(kind)

    def schema(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = [
            core_schema.dataclass_field(
                one.name, _or_default(one, handler.generate_schema(_kind(one, types[one.name]))), kw_only=True
            )
            for one in fields(kind)
        ]
        arguments = core_schema.dataclass_args_schema(kind.__name__, inner, extra_behavior="forbid")
        return core_schema.dataclass_schema(kind, arguments, [one.name for one in fields(kind)], slots=True)

    return Annotated[kind, GetPydanticSchema(schema), BeforeValidator(_in_one_spelling(set(types)))]


def _or_default(one: Field[Any], schema: CoreSchema) -> CoreSchema:
    if one.default_factory is not MISSING:
        return core_schema.with_default_schema(schema, default_factory=one.default_factory)
    return core_schema.with_default_schema(schema, default=one.default)


def _kind(one: Field[Any], kind: Any) -> Any:
    """The type of a setting, with what is read as it."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _section(kind)  # type: ignore[arg-type]
    if origin is tuple:
        alone = _table_alone if is_dataclass(inner[0]) else _alone
        return Annotated[tuple[_kind(one, inner[0]), ...], BeforeValidator(alone)]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, _kind(one, inner[1])]  # type: ignore[misc]
    return Annotated[kind, Strict(), BeforeValidator(reading(one, kind))]


def _in_one_spelling(known: set[str]) -> Callable[[object], object]:
    """'-' and '_' are alike. What is no setting, or one that is there already, is marked with "-": it is refused, and
    told apart from the setting in pydantic's path."""

    def respell(table: object) -> object:
        if not isinstance(table, Mapping):
            return table
        found: dict[str, Any] = {}
        for given, value in table.items():
            name = given.replace("-", "_")
            found[name if name in known and name not in found else f"-{given}"] = value
        return found

    return respell


def _alone(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _table_alone(value: object) -> object:
    return [value] if isinstance(value, Mapping) else value


# -- what pydantic says


def _fault(error: ErrorDetails, table: Mapping[str, Any]) -> Fault:
    path, known = _as_given(error["loc"], table)
    value, kind = error["input"], error["type"]
    if kind == "unexpected_keyword_argument":
        given = str(path[-1])
        return path, GIVEN_TWICE if given.replace("-", "_") in known else unknown(given, known)
    if kind == "tuple_type":
        return path, tables_due(path, value)
    if kind in _DUE:
        return path, _DUE[kind].format(say(value))
    return path, str(error["ctx"]["error"]) if kind == "value_error" else error["msg"]


_DUE = {"dataclass_type": TABLE_DUE, "dict_type": MAPPING_DUE}


def _as_given(loc: Path, table: Any) -> tuple[Path, list[str]]:
    """pydantic's path as the file has it, and the settings that are known where it ends."""
    kind: Any = Settings
    known: list[str] = []
    path: list[str | int] = []
    for part in loc:
        if is_dataclass(kind):
            known = [one.name for one in fields(kind)]
            kind = get_type_hints(kind).get(str(part))
            part = _key_of(str(part), table)
        else:
            kind = get_args(kind)[-1 if isinstance(part, str) else 0]
        if isinstance(part, str) or isinstance(table, list):  # else one value that stands for a list of one
            table = table[part]
            path.append(part + 1 if isinstance(part, int) else part)
    return tuple(path), known


def _key_of(name: str, table: Mapping[str, Any]) -> str:
    return name[1:] if name.startswith("-") else next(key for key in table if key.replace("-", "_") == name)
