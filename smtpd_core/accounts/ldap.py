"""Accounts in an LDAP directory (extra `ldap`, library bonsai): bind as the user, or search for the user and then bind.

The directory checks the password; nothing of it is kept here, and the password travels to it, so `ldaps://` or
STARTTLS is wanted unless the directory is on the same machine. A user who does not exist costs a bind like any other.
Thread: any. Each check has a connection of its own; the service's connections are kept for the next search.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from smtpd_core.accounts.extras import needed
from smtpd_core.accounts.store import Account, unavailable
from smtpd_core.wire.sasl.prep import opaque_string, user_name

T = TypeVar("T")

# Seconds for any one step with the directory.
TIMEOUT = 5.0
MAX_IDLE = 8


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """`url` is ldap://HOST:PORT or ldaps://...; give `bind_dn` or `base`.

    `bind_dn`: who a user is, as "uid={user},ou=people,dc=example,dc=test"; no search, and no addresses known.
    `base`, `filter`: where and how a user is searched; as `service_dn` with `service_password`, or anonymously.
    `name`, `display_name`, `email`, `act_as`: the attributes that hold them. All values of `email` may be sent as.
    `ca_file`: the authorities that may vouch for the directory; the system's by default.
    """

    url: str
    bind_dn: str = ""
    base: str = ""
    filter: str = "(uid={user})"
    scope: str = "sub"  # sub, one, base
    service_dn: str = ""
    service_password: str = field(default="", repr=False)
    start_tls: bool = False
    ca_file: str = ""
    name: str = "uid"
    display_name: str = "cn"
    email: str = "mail"
    act_as: str = ""

    def __post_init__(self) -> None:
        if bool(self.bind_dn) == bool(self.base):
            raise ValueError("an LDAP store needs a DN pattern to bind as, or a base to search in, and not both")
        if "{user}" not in (self.bind_dn or self.filter):
            raise ValueError("the DN pattern or filter of an LDAP store says where {user} goes")
        if self.scope not in ("sub", "one", "base"):
            raise ValueError("the scope of a search is sub, one or base")
        if self.start_tls and self.url.startswith("ldaps:"):
            raise ValueError("ldaps has TLS from the start; STARTTLS belongs to ldap://")


class LdapStore:
    """Raises ExtraMissing where bonsai is not installed. The directory is met at the first log-in, not before."""

    def __init__(self, settings: LdapSettings, *, case_insensitive: bool = True) -> None:
        self._ldap = needed("bonsai", extra="ldap", purpose="an account store in LDAP")
        self._errors = needed("bonsai.errors", extra="ldap", purpose="an account store in LDAP")
        self.settings = settings
        self.case_insensitive = case_insensitive
        self.kinds = frozenset({"password", "certificate"} if settings.base else {"password"})
        self._idle: list[Any] = []
        self._process = os.getpid()

    def verify(self, user: str, password: str) -> Account | None:
        try:
            key, secret = user_name(user), opaque_string(password)
        except ValueError:
            return None
        if len(key) > 255 or len(secret) > 1024:
            return None
        # An empty password would be an unauthenticated bind, which directories grant (RFC 4513 5.1.2): opaque_string
        # refuses it above.
        if self.settings.bind_dn:
            dn = self.settings.bind_dn.replace("{user}", self._ldap.escape_attribute_value(key))
            return Account(key) if self._binds(dn, secret) else None
        found = self._search(key)
        if found is None:
            self._binds(f"cn=nobody,{self.settings.base}", secret)
            return None
        return self._account(found, key) if self._binds(str(found.dn), secret) else None

    def secret(self, user: str, kind: str) -> object | None:
        return None

    def account(self, user: str) -> Account | None:
        if not self.settings.base:
            return None
        try:
            key = user_name(user)
        except ValueError:
            return None
        found = self._search(key) if len(key) <= 255 else None
        return self._account(found, key) if found is not None else None

    def verify_token(self, user: str, token: str) -> Account | None:
        return None

    # The directory ------------------------------------------------------------------------------------------------

    def _client(self, dn: str, password: str) -> Any:
        client = self._ldap.LDAPClient(self.settings.url, self.settings.start_tls)
        if self.settings.ca_file:
            client.set_ca_cert(self.settings.ca_file)
        client.set_cert_policy("demand")
        if dn:
            client.set_credentials("SIMPLE", user=dn, password=password)
        return client

    def _binds(self, dn: str, password: str) -> bool:
        def bind() -> bool:
            try:
                self._connected(dn, password).close()
            except (self._errors.AuthenticationError, self._errors.InsufficientAccess, self._errors.NoSuchObjectError):
                return False
            return True

        return self._asked(bind)

    def _search(self, user: str) -> Any:
        """The one entry of a user, or None. Two entries for one name are a fault of the directory, not a choice."""
        wanted = self.settings.filter.replace("{user}", self._ldap.escape_filter_exp(user))
        attributes = [
            name
            for name in (self.settings.name, self.settings.display_name, self.settings.email, self.settings.act_as)
            if name
        ]
        scope = {
            "sub": self._ldap.LDAPSearchScope.SUB,
            "one": self._ldap.LDAPSearchScope.ONE,
            "base": self._ldap.LDAPSearchScope.BASE,
        }[self.settings.scope]

        def search() -> list[Any]:
            connection, fresh = self._service()
            try:
                found = connection.search(self.settings.base, scope, wanted, attributes, timeout=TIMEOUT, sizelimit=2)
            except self._errors.LDAPError:
                connection.close()
                if fresh:
                    raise
                connection, _ = self._service(fresh=True)  # it had been idle and was closed meanwhile
                found = connection.search(self.settings.base, scope, wanted, attributes, timeout=TIMEOUT, sizelimit=2)
            if len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
            else:
                connection.close()
            return list(found)

        found = self._asked(search)
        if len(found) > 1:
            raise unavailable(f"{self.settings.url}: the filter finds {len(found)} entries for one user")
        entry = found[0] if found else None
        # Directories match regardless of case; where case counts here, the name must be the directory's own.
        if entry is not None and not self.case_insensitive and user not in map(str, entry.get(self.settings.name, [])):
            return None
        return entry

    def _service(self, fresh: bool = False) -> tuple[Any, bool]:
        if os.getpid() != self._process:
            self._idle, self._process = [], os.getpid()  # a connection does not survive a fork
        try:
            if not fresh:
                return self._idle.pop(), False
        except IndexError:
            pass
        return self._connected(self.settings.service_dn, self.settings.service_password), True

    def _connected(self, dn: str, password: str) -> Any:
        """A connection that is lost while it is made is tried once more: directories restart, busy ones drop some."""
        try:
            return self._client(dn, password).connect(timeout=TIMEOUT)
        except self._errors.ConnectionError:
            return self._client(dn, password).connect(timeout=TIMEOUT)

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except self._errors.LDAPError as error:
            raise unavailable(f"{self.settings.url}: {type(error).__name__}") from None

    def _account(self, entry: Any, user: str) -> Account:
        addresses = _values(entry, self.settings.email)
        return Account(
            next(iter(_values(entry, self.settings.name)), user),
            next(iter(_values(entry, self.settings.display_name)), ""),
            addresses[0] if addresses else "",
            addresses[1:],
            _values(entry, self.settings.act_as),
        )


def _values(entry: Any, attribute: str) -> tuple[str, ...]:
    values: Iterable[Any] = entry.get(attribute, ()) if attribute else ()
    return tuple(str(value) for value in values)
