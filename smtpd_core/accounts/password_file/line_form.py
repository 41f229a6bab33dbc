"""Lines, as htpasswd and Dovecot's passwd-file have them.

    ann:$2y$05$...
    bob:{SSHA}...:1000:1000:Bob Builder:/home/bob::email=b@x.test

The fields after the password are uid, gid, full name, home, shell and extra fields; of the extra fields email,
addresses and may_act_as are ours, `nologin` is honoured, and `allow_nets`, which can't be, shuts the account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.password_file.form import Form, Refused, blocks
from smtpd_core.accounts.store import Account


def _read_lines(text: str, file: str) -> Iterator[tuple[str, Entry]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            yield f"{file}:{number}", _line_entry(line.rstrip("\r"), f"{file}:{number}")


def _line_entry(line: str, where: str) -> Entry:
    fields = line.split(":", 7)
    if len(fields) < 2 or not fields[0]:
        raise ValueError(f"{where}: a line reads USER:HASH, or USER:HASH:UID:GID:NAME:HOME:SHELL:EXTRA")
    fields += [""] * (8 - len(fields))
    extra = dict(_extra_fields(fields[7]))
    may_log_in = not ({"nologin", "allow_nets"} & set(extra)) and fields[1] not in ("*", "!", "!!", "x")
    return Entry(
        Account(
            fields[0],
            fields[4].partition(",")[0],
            extra.get("email", ""),
            tuple(filter(None, extra.get("addresses", "").split(","))),
            tuple(filter(None, extra.get("may_act_as", "").split(","))),
            may_log_in,
        ),
        (fields[1],) if fields[1] and may_log_in else (),
    )


def _extra_fields(text: str) -> Iterator[tuple[str, str]]:
    for field in text.split():
        key, _, value = field.partition("=")
        yield key, value


def _line_of(entry: Entry, before: str) -> str:
    """The line of an entry; fields of the old line that are not ours stay as they were."""
    who = entry.account
    if len(entry.secrets) > 1:
        raise ValueError("a line has room for one secret; several kinds need the TOML form, or the clear password")
    given = (*who.addresses, *who.may_act_as, who.email)
    if any(re.search(r"[\s:,]", value) for value in given) or re.search(r"[:\n\r,]", who.display_name):
        raise ValueError("a line has no room for addresses or names with colons, commas or spaces; use the TOML form")
    if any(c in who.user_name for c in ":#") or any(c in "".join(entry.secrets) for c in ":\n"):
        raise ValueError("a user name or hash with a colon can't stand in a line; use the TOML form")
    old = before.split(":", 7)
    ours = {"email": who.email, "addresses": ",".join(who.addresses), "may_act_as": ",".join(who.may_act_as)}
    fields = old + [""] * (8 - len(old))
    others = [field for field in fields[7].split() if field.partition("=")[0] not in ours]
    fields[0], fields[1] = who.user_name, "".join(entry.secrets)
    if fields[4].partition(",")[0] != who.display_name:
        fields[4] = who.display_name
    fields[7] = " ".join(others + [f"{key}={value}" for key, value in ours.items() if value])
    least = max(len(old), 2)
    while len(fields) > least and not fields[-1]:
        fields.pop()
    return ":".join(fields)


def _lines_with(text: str, name: str, line: str | None) -> str:
    """The text with the line of `name` replaced by `line`, or removed; appended where there is none."""
    lines = text.split("\n")
    at = next((n for n, one in enumerate(lines) if one.partition(":")[0] == name and not one.startswith("#")), None)
    if at is None:
        end = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{end}{line}\n"
    lines[at : at + 1] = [] if line is None else [line]
    return "\n".join(lines)


def _put_line(text: str, entry: Entry, old: Entry | None) -> str:
    name = old.account.user_name if old else entry.account.user_name
    before = next((line for line in text.split("\n") if old and line.partition(":")[0] == name), "")
    return _lines_with(text, name, _line_of(entry, before.rstrip("\r")))


def _remove_line(text: str, old: Entry) -> str:
    return _lines_with(text, old.account.user_name, None)


def _append_lines(text: str, entries: Sequence[Entry], refused: Refused) -> str:
    end = "" if not text or text.endswith("\n") else "\n"
    return text + end + "".join(f"{line}\n" for line in blocks(entries, lambda one: _line_of(one, ""), refused))


LINES = Form(_read_lines, _put_line, _remove_line, _append_lines)
