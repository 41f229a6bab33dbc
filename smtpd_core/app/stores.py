"""From the text of [accounts] store to an account store.

    file:PATH        our TOML form (.toml), htpasswd or Dovecot's passwd-file
    sqlite:PATH      postgresql://...      mysql://...
    ldap://HOST[:PORT]/BASE?user={user}    ldap://HOST/uid={user},ou=people,dc=example,dc=test (no search)
    pam:             pam:SERVICE

Thread: main.
Not here: the stores themselves (smtpd_core.accounts).
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote, urlsplit

from smtpd_core.accounts import Account, AccountStore
from smtpd_core.accounts.entry import Entry
from smtpd_core.accounts.ldap import LdapSettings, LdapStore
from smtpd_core.accounts.pam import PamStore
from smtpd_core.accounts.password_file import PasswordFileStore, create
from smtpd_core.accounts.sql import SqlStore, mysql, postgres, sqlite


class EditableStore(AccountStore, Protocol):
    """A store that the command line may change."""

    def users(self) -> list[Account]: ...
    def add(self, entry: Entry) -> None: ...
    def set_secrets(self, user: str, secrets: tuple[str, ...]) -> None: ...
    def remove(self, user: str) -> None: ...


def open_store(text: str, *, case_insensitive: bool = False) -> AccountStore:
    """The store. ValueError: what is wrong with the text; OSError: the file; ExtraMissing: what to install."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(
            f"{text!r} names no store; expected file:PATH, sqlite:PATH, postgresql://..., ldap://... or pam:"
        )
    if scheme == "file":
        return PasswordFileStore(_path(rest, text), case_insensitive=case_insensitive)
    if scheme == "pam":
        return PamStore(rest or "smtp", case_insensitive=case_insensitive)
    if scheme in ("ldap", "ldaps"):
        return LdapStore(_ldap(text), case_insensitive=case_insensitive)
    return _sql(text, case_insensitive)


def open_editable(text: str, *, may_make: bool = False) -> EditableStore:
    """A store to change. `may_make`: an empty one where there is none yet. Raises as open_store."""
    scheme, _, rest = text.partition(":")
    if scheme == "file":
        if may_make:
            create(_path(rest, text))
        return PasswordFileStore(_path(rest, text))
    if scheme in ("sqlite", "postgresql", "postgres", "mysql"):
        store = _sql(text, False)
        if may_make:
            store.init()
        return store
    raise ValueError(f"{scheme}: accounts of this store are changed where they are kept, not from here")


def _sql(text: str, case_insensitive: bool) -> SqlStore:
    scheme, _, rest = text.partition(":")
    if scheme == "sqlite":
        database = sqlite(_path(rest, text))
    elif scheme in ("postgresql", "postgres"):
        database = postgres(text)
    elif scheme == "mysql":
        database = mysql(text)
    else:
        raise ValueError(f"{scheme}: no such store; there are file, sqlite, postgresql, mysql, ldap, ldaps and pam")
    return SqlStore(database, case_insensitive=case_insensitive)


def _path(rest: str, text: str) -> str:
    path = rest.removeprefix("//")
    if not path:
        raise ValueError(f"{text!r} names no file")
    return path


def _ldap(text: str) -> LdapSettings:
    """A path with {user} in it is the DN to bind as; else it is the base, and ?ATTRIBUTE={user} the filter."""
    parts = urlsplit(text)
    where, query = unquote(parts.path.lstrip("/")), unquote(parts.query)
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if "{user}" in where:
        return LdapSettings(url, bind_dn=where)
    return LdapSettings(
        url,
        base=where,
        filter=f"({query or 'uid={user}'})",
        service_dn=unquote(parts.username or ""),
        service_password=unquote(parts.password or ""),
    )
