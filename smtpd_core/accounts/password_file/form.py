"""A form of a file of accounts: how its text is read and edited without disturbing what else is in it.

Pure: text in, text out. Errors are ValueError with file and line or key, never with a password.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from smtpd_core.accounts.entry import Entry

Refused = Callable[[Entry, str], None]


@dataclass(frozen=True, slots=True)
class Form:
    """read(text, file name) gives (where, entry); put(text, entry, old entry or None) and remove(text, entry) edit.

    put() refuses with ValueError what the form has no room for; append(text, entries, refused) adds many new ones at
    once, and tells refused(entry, reason) of those.
    """

    read: Callable[[str, str], Iterator[tuple[str, Entry]]]
    put: Callable[[str, Entry, Entry | None], str]
    remove: Callable[[str, Entry], str]
    append: Callable[[str, Sequence[Entry], Refused], str]


def blocks(entries: Sequence[Entry], block: Callable[[Entry], str], refused: Refused) -> list[str]:
    """What there is to write of each; without those that are refused."""
    found = []
    for entry in entries:
        try:
            found.append(block(entry))
        except ValueError as error:
            refused(entry, str(error))
    return found
