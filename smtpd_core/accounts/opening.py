"""From a store's URL to the store: what [accounts] store, `user --store` and embedding programs write.

    file:users.toml                      our own form; any other suffix: lines as htpasswd and passwd-file have them
    sqlite:users.db                      our own table, or `query`
    postgresql://USER:PW@HOST/DATABASE   the same (extra postgres); mysql://... (extra mysql); instead of :PW in the
                                         URL, ?password_file=PATH
    ldap://HOST/uid={user},ou=people,dc=example,dc=test                      (extra ldap) bind as that DN
    ldap://HOST/BASE??sub?(uid={user})?bindname=DN,x-password-file=PATH      search, then bind (RFC 4516)
    pam: or pam:SERVICE                  (extra pam)
    introspect:https://... jwks:https://...   OAuth tokens (extra oauth)
    file:users.toml | ldap://...         a chain, asked in order

Mistakes are ValueError: what, where, what would be right; never with a password in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.password_file import PasswordFileStore, create
from smtpd_core.accounts.sql import Database, SqlStore, mysql, postgres, sqlite
from smtpd_core.accounts.store import AccountStore, EditableStore


@dataclass(frozen=True, slots=True)
class Choices:
    """What a URL has no room for. `query` and `kinds` are for tables of other programs (sql/store.py)."""

    case_insensitive: bool = False
    query: str = ""
    kinds: tuple[str, ...] = ()


def open_store(url: str, choices: Choices | None = None) -> AccountStore:
    """The store behind a URL, or a chain of those between `|`. Raises ValueError or OSError."""
    choices = choices or Choices()
    stores: list[AccountStore] = []
    for one in url.split("|"):
        stores.append(_one(one.strip(), choices, stores))
    return stores[0] if len(stores) == 1 else ChainStore(stores)


def open_editable(url: str, choices: Choices | None = None, *, may_make: bool = False) -> EditableStore:
    """A store to change; `may_make` makes an empty one where there is none yet. Raises ValueError or OSError."""
    choices = choices or Choices()
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if "|" in url:
        raise ValueError("a chain of stores is changed store by store")
    if scheme in _SCHEMES and scheme not in ("file", "sqlite", "postgresql", "postgres", "mysql"):
        raise ValueError(f"accounts of {scheme}: are changed where they are kept, not from here")
    if may_make and scheme == "file" and rest:
        create(rest.partition("?")[0])
    if may_make and scheme == "sqlite" and rest:
        create(rest)
    store = open_store(url, choices)
    if may_make and isinstance(store, SqlStore):
        store.init()
    assert isinstance(store, (PasswordFileStore, SqlStore))
    return store


def _one(url: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    scheme, colon, rest = url.partition(":")
    opener = _SCHEMES.get(scheme.lower())
    if not colon or opener is None:
        raise ValueError(f"an account store begins with one of {', '.join(name + ':' for name in _SCHEMES)}")
    if choices.query and not scheme.lower().startswith(("sqlite", "postgres", "mysql")):
        raise ValueError(f"a query is for databases; {scheme}: is none")
    return opener(url, rest, choices, before)


def _options(text: str, known: set[str], scheme: str) -> dict[str, str]:
    options = dict(parse_qsl(text, keep_blank_values=True))
    strange = set(options) - known
    if strange:
        raise ValueError(f"{scheme}: has the options {', '.join(sorted(known))}, not {', '.join(sorted(strange))}")
    return options


def _yes(text: str | None) -> bool | None:
    if text is None:
        return None
    if text not in ("yes", "no"):
        raise ValueError("renew is yes or no")
    return text == "yes"


def _file(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    path, _, options = rest.partition("?")
    if not path:
        raise ValueError("file: is followed by a path, as file:users.toml")
    renew = _yes(_options(options, {"renew"}, "file").get("renew"))
    return PasswordFileStore(path, case_insensitive=choices.case_insensitive, renew=renew)


def _sqlite(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    if not rest:
        raise ValueError("sqlite: is followed by a path, as sqlite:users.db")
    if not Path(rest).exists():
        raise FileNotFoundError(2, "no such database; `user add` makes it", rest)
    return sql_store(sqlite(rest), choices)


def sql_store(database: Database, choices: Choices) -> SqlStore:
    """The store in a database."""
    return SqlStore(database, query=choices.query, kinds=choices.kinds, case_insensitive=choices.case_insensitive)


def _postgres(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    return sql_store(postgres(*_without_password_file(url)), choices)


def _mysql(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    return sql_store(mysql(*_without_password_file(url)), choices)


def _without_password_file(url: str) -> tuple[str, str]:
    """The URL for the driver, and the password that our own option `password_file` names, or ""."""
    address, _, query = url.partition("?")
    pairs = query.split("&")
    others = [pair for pair in pairs if not pair.startswith("password_file=")]
    files = [unquote(pair.partition("=")[2]) for pair in pairs if pair not in others]
    return "?".join(filter(None, (address, "&".join(others)))), first_line(files[0]) if files else ""


def shows_password(url: str) -> bool:
    """Whether a password stands in the URL, or in one of those of a chain."""
    for one in url.split("|"):
        _, _, rest = one.strip().partition("://")
        login, at, _ = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
        if (at and ":" in login) or re.search("[?&]password=", rest):
            return True
    return False


_LDAP_EXTENSIONS = {
    "bindname": "service_dn",
    "x-starttls": "start_tls",
    "x-ca-file": "ca_file",
    "x-name": "name",
    "x-display-name": "display_name",
    "x-email": "email",
    "x-act-as": "act_as",
}


def _ldap(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    """ldap://HOST:PORT/BASE?attributes?scope?filter?extensions (RFC 4516 2); attributes are not read."""
    from smtpd_core.accounts.ldap import LdapSettings, LdapStore

    scheme, host, path, query, _ = urlsplit(url.replace("#", "%23"))
    _, scope, wanted, extensions = [*query.split("?"), "", "", "", ""][:4]
    found: dict[str, str] = {}
    password = ""
    for pair in filter(None, extensions.split(",")):
        name, _, value = pair.partition("=")
        name, value = name.lower().lstrip("!"), unquote(value)
        if name == "x-password-file":
            password = first_line(value)
        elif name in _LDAP_EXTENSIONS:
            found[_LDAP_EXTENSIONS[name]] = value
        else:
            raise ValueError(
                f"ldap: has the extensions {', '.join(_LDAP_EXTENSIONS)}, x-password-file, not {name[:40]}"
            )
    start_tls = found.pop("start_tls", "no") not in ("no", "0")
    if "@" in host:
        raise ValueError("ldap: the login of the service is given as bindname=DN,x-password-file=PATH")
    place = unquote(path.lstrip("/"))
    if "{user}" in place:
        return LdapStore(LdapSettings(f"{scheme}://{host}", bind_dn=place, start_tls=start_tls, **found))
    settings = LdapSettings(
        f"{scheme}://{host}",
        base=place,
        filter=unquote(wanted) or "(uid={user})",
        scope=scope or "sub",
        service_password=password,
        start_tls=start_tls,
        **found,
    )
    return LdapStore(settings, case_insensitive=True)


def _pam(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    from smtpd_core.accounts.pam import PamStore

    return PamStore(rest or "smtp", case_insensitive=choices.case_insensitive)


_TOKEN_OPTIONS = {
    "client_id", "client_secret_file", "ca_file", "issuer", "audience", "scope", "user_claim", "algorithms", "look_up",
}  # fmt: skip


def _token(url: str, rest: str, choices: Choices, before: list[AccountStore]) -> AccountStore:
    """The options are taken out of the address; what is left of its query goes to the authority."""
    from smtpd_core.accounts.oauth import Authority, Introspection, JwtSettings, LocalJwt, TokenRules, TokenStore

    parts = urlsplit(rest)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    found = {key: value for key, value in pairs if key in _TOKEN_OPTIONS}
    address = urlunsplit(parts._replace(query=urlencode([pair for pair in pairs if pair[0] not in _TOKEN_OPTIONS])))
    if parts.username or parts.password:
        raise ValueError("a login to the authority is given as client_id and client_secret_file")
    authority: Authority
    if url.lower().startswith("introspect:"):
        secret = first_line(found["client_secret_file"]) if "client_secret_file" in found else ""
        authority = Introspection(address, found.get("client_id", ""), secret, ca_file=found.get("ca_file", ""))
    else:
        if not (found.get("audience") or found.get("scope")):
            raise ValueError(
                "jwks: needs audience=NAME or scope=NAME; else a token for any other program would do here too"
            )
        settings = JwtSettings(
            address, found.get("issuer", ""), found.get("audience", ""), ca_file=found.get("ca_file", "")
        )
        if found.get("algorithms"):
            names = tuple(found["algorithms"].split(","))
            settings = JwtSettings(address, settings.issuer, settings.audience, names, settings.ca_file)
        authority = LocalJwt(settings)
    claims = tuple(filter(None, found.get("user_claim", "").split(",")))
    rules = TokenRules(issuer=found.get("issuer", ""), audience=found.get("audience", ""), scope=found.get("scope", ""))
    if claims:
        rules = TokenRules(claims, rules.issuer, rules.audience, rules.scope)
    looked_up = ChainStore(list(before)).account if _yes(found.get("look_up")) and before else None
    return TokenStore(authority, rules, looked_up, case_insensitive=choices.case_insensitive)


def first_line(path: str) -> str:
    """A secret from a file: its first line. Raises OSError or ValueError."""
    with open(path, encoding="utf-8") as file:
        line = file.readline(4096).rstrip("\r\n")
    if not line:
        raise ValueError(f"{path}: the first line should hold a password, and is empty")
    return line


_Opener = Callable[[str, str, Choices, list[AccountStore]], AccountStore]
_SCHEMES: dict[str, _Opener] = {
    "file": _file,
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
    "mysql": _mysql,
    "ldap": _ldap,
    "ldaps": _ldap,
    "pam": _pam,
    "introspect": _token,
    "jwks": _token,
}
