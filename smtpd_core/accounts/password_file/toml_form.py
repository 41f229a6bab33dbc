"""Our own form of a file of accounts.

    [users."ann@example.test"]
    password = "$argon2id$..."          one stored secret, or a list of several kinds
    display_name, email, addresses, may_act_as

Comments and other accounts stay as they are when one account is edited.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.password_file.form import Form, Refused, blocks
from smtpd_core.accounts.store import Account

_KEYS = ("password", "display_name", "email", "addresses", "may_act_as")


def _read_toml(text: str, file: str) -> Iterator[tuple[str, Entry]]:
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from None
    strange = set(whole) - {"users"}
    if strange or not isinstance(whole.get("users", {}), dict):
        raise ValueError(
            f'{file}: only tables [users."NAME"] are known here, not {", ".join(sorted(strange)) or "this"}'
        )
    for name, fields in whole.get("users", {}).items():
        where = f"{file}: users.{name}"
        yield where, _toml_entry(name, {"password": fields} if isinstance(fields, str) else fields, where)


def _toml_entry(name: str, fields: Any, where: str) -> Entry:
    if not isinstance(fields, dict) or set(fields) - set(_KEYS):
        raise ValueError(f"{where}: the keys of an account are {', '.join(_KEYS)}")
    return Entry(
        Account(
            name,
            _one(fields, "display_name", where),
            _one(fields, "email", where),
            _many(fields, "addresses", where),
            _many(fields, "may_act_as", where),
        ),
        _many(fields, "password", where),
    )


def _one(fields: dict[str, Any], key: str, where: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{where}.{key}: a string is wanted")
    return value


def _many(fields: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = fields.get(key, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) and one for one in values):
        raise ValueError(f"{where}.{key}: a string or a list of strings is wanted")
    return tuple(values)


def _toml_block(entry: Entry) -> str:
    who = entry.account
    pairs = (
        ("password", list(entry.secrets)),
        ("display_name", who.display_name),
        ("email", who.email),
        ("addresses", list(who.addresses)),
        ("may_act_as", list(who.may_act_as)),
    )
    lines = [f"[users.{_quoted(who.user_name)}]"]
    for key, value in pairs:
        if value:
            shown = value[0] if isinstance(value, list) and key == "password" and len(value) == 1 else value
            lines.append(f"{key} = {_quoted(shown)}")
    return "\n".join(lines) + "\n"


def _quoted(value: str | list[str]) -> str:
    """JSON's strings and lists of strings are TOML's, but for DEL, which must be escaped there."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_HEADER = re.compile(r"^[ \t]*\[.*$", re.M)


def _toml_span(text: str, name: str) -> tuple[int, int] | None:
    """Where the table of one account stands: from its header to the next header."""
    headers = [match.start() for match in _HEADER.finditer(text)] + [len(text)]
    for start, end in itertools.pairwise(headers):
        try:
            users = tomllib.loads(text[start : text.find("\n", start) + 1 or len(text)]).get("users")
        except tomllib.TOMLDecodeError:
            continue
        if isinstance(users, dict) and list(users) == [name]:
            return start, end
    return None


def _put_toml(text: str, entry: Entry, old: Entry | None) -> str:
    block = _toml_block(entry)
    span = _toml_span(text, old.account.user_name) if old else None
    if old is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        edited = text + gap + block
    elif span is None:
        raise _not_editable(entry)
    else:
        edited = text[: span[0]] + block + _tail(text[span[0] : span[1]]) + text[span[1] :]
    return _checked(text, edited, old, entry)


def _remove_toml(text: str, old: Entry) -> str:
    span = _toml_span(text, old.account.user_name)
    if span is None:
        raise _not_editable(old)
    return _checked(text, text[: span[0]] + text[span[1] :], old, None)


def _tail(block: str) -> str:
    """The comments and empty lines that end a block: they usually belong to what follows."""
    lines = block.splitlines(keepends=True)
    keep = len(lines)
    while keep > 1 and (not lines[keep - 1].strip() or lines[keep - 1].lstrip().startswith("#")):
        keep -= 1
    return "".join(lines[keep:])


def _checked(text: str, edited: str, old: Entry | None, new: Entry | None) -> str:
    """The edit must have changed this one account and nothing else, however the file is laid out."""
    wanted = [entry for _, entry in _read_toml(text, "") if old is None or entry != old]
    wanted += [new] if new else []
    try:
        found = [entry for _, entry in _read_toml(edited, "")]
    except ValueError:
        found = []
    if len(found) != len(wanted) or any(entry not in found for entry in wanted):
        raise _not_editable(new or old)
    return edited


def _not_editable(entry: Entry | None) -> ValueError:
    name = entry.account.user_name if entry else ""
    return ValueError(f"account {name!r} stands in the file in a way that can't be edited here; edit it by hand")


def _append_toml(text: str, entries: Sequence[Entry], refused: Refused) -> str:
    more = blocks(entries, _toml_block, refused)
    return "\n".join([*([text if text.endswith("\n") else f"{text}\n"] if text else []), *more])


TOML = Form(_read_toml, _put_toml, _remove_toml, _append_toml)
