"""A form of a file of accounts: how its text is read and edited without disturbing what else is in it.

Pure: text in, text out. Errors are ValueError with file and line or key, never with a password.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smtpd_core.accounts.entry import Entry


@dataclass(frozen=True, slots=True)
class Form:
    """read(text, file name) gives (where, entry); put(text, entry, old entry or None) and remove(text, entry) edit.

    put() refuses with ValueError what the form has no room for.
    """

    read: Callable[[str, str], Iterator[tuple[str, Entry]]]
    put: Callable[[str, Entry, Entry | None], str]
    remove: Callable[[str, Entry], str]
