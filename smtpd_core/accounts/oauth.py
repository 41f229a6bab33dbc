"""Bearer tokens (XOAUTH2, OAUTHBEARER), extra `oauth`: asked of the authority (RFC 7662), or checked here as JWT.

A token stands for a user by one of its claims; where the client names a user too, the two must agree. Tokens are never
logged and never part of an error. An authority that does not answer makes the store unavailable, not the token wrong.
Thread: any. Keys of a JWT's authority are fetched when first needed and again when a token names an unknown one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from smtpd_core.accounts.extras import needed
from smtpd_core.accounts.store import Account, StoreUnavailable, unavailable
from smtpd_core.threads import Lock
from smtpd_core.wire.sasl.prep import user_name

# Seconds for the authority to answer, bytes that its answer may have, and seconds between two fetches of its keys.
TIMEOUT = 5.0
MAX_ANSWER = 256 * 1024
KEYS_AT_MOST_EVERY = 30.0
# Seconds after which the keys are asked for again: one that the authority took back is not believed for ever.
KEYS_ARE_OLD_AFTER = 3600.0
# A token longer than this is no token; the protocol's own limit for a response is near.
MAX_TOKEN = 12_288


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a good token says. `user_claims` are looked at in order; `scope` and `audience` are demanded where given."""

    user_claims: tuple[str, ...] = ("email", "preferred_username", "username", "sub")
    issuer: str = ""
    audience: str = ""
    scope: str = ""


class Authority(Protocol):
    """Says what a token claims: None for a token that is not good, StoreUnavailable where that can't be known."""

    def claims(self, token: str) -> Mapping[str, Any] | None: ...


class TokenStore:
    """`accounts`: where the user of a good token is looked up; without it every good token has an account."""

    kinds = frozenset({"token"})

    def __init__(
        self,
        authority: Authority,
        rules: TokenRules | None = None,
        accounts: Callable[[str], Account | None] | None = None,
        *,
        case_insensitive: bool = False,
    ) -> None:
        self._authority = authority
        self._rules = rules or TokenRules()
        self._accounts = accounts
        self.case_insensitive = case_insensitive

    def verify(self, user: str, password: str) -> Account | None:
        return None

    def secret(self, user: str, kind: str) -> object | None:
        return None

    def account(self, user: str) -> Account | None:
        return None

    def verify_token(self, user: str, token: str) -> Account | None:
        if not token or len(token) > MAX_TOKEN or not token.isascii():
            return None
        claims = self._authority.claims(token)
        if claims is None or not self._is_good(claims):
            return None
        known = [claims.get(name) for name in self._rules.user_claims if name != "email" or _email_is_proven(claims)]
        who = next((one for one in known if one and isinstance(one, str)), "")
        try:
            key = user_name(who, case_insensitive=self.case_insensitive)
            if user and user_name(user, case_insensitive=self.case_insensitive) != key:
                return None
        except ValueError:
            return None
        if self._accounts is not None:
            return self._accounts(key)
        email = claims.get("email") if _email_is_proven(claims) else ""
        return Account(key, str(claims.get("name") or ""), str(email or ""))

    def _is_good(self, claims: Mapping[str, Any]) -> bool:
        """Time, issuer, audience, scope. PyJWT checked some of them already; a second look costs nothing."""
        now, rules = time.time(), self._rules
        if _number(claims.get("exp"), now + 1) <= now or _number(claims.get("nbf"), now) > now + 60:
            return False
        if rules.issuer and claims.get("iss") != rules.issuer:
            return False
        if rules.audience and rules.audience not in _listed(claims.get("aud")):
            return False
        return not rules.scope or rules.scope in _listed(claims.get("scope"))


def _email_is_proven(claims: Mapping[str, Any]) -> bool:
    """An address that its user wrote there himself proves nothing; some authorities write the truth as a string."""
    return claims.get("email_verified", True) in (True, "true")


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _listed(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [str(one) for one in value] if isinstance(value, list) else []


class Introspection:
    """The authority is asked about each token (RFC 7662). `client_id` and `client_secret` are how we log in to it."""

    def __init__(self, url: str, client_id: str = "", client_secret: str = "", *, ca_file: str = "") -> None:
        self._fetch = _Fetcher(url, ca_file)
        self._client = (client_id, client_secret)

    def claims(self, token: str) -> Mapping[str, Any] | None:
        body = urlencode({"token": token, "token_type_hint": "access_token"})
        told = self._fetch.json("POST", body, self._client)
        return told if told.get("active") is True else None


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """`algorithms` are those that the authority signs with; "none" and shared secrets are never among them."""

    jwks_url: str
    issuer: str = ""
    audience: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA", "PS256")
    ca_file: str = ""
    leeway: float = field(default=30.0)

    def __post_init__(self) -> None:
        if any(name.upper() == "NONE" or name.upper().startswith("HS") for name in self.algorithms):
            raise ValueError("tokens are checked with public keys; the algorithms none and HS... can't be")


class LocalJwt:
    """Signatures are checked here with the authority's published keys (RFC 7517)."""

    def __init__(self, settings: JwtSettings) -> None:
        self._jwt = needed("jwt", extra="oauth", purpose="checking JWT")
        self._settings = settings
        self._fetch = _Fetcher(settings.jwks_url, settings.ca_file)
        self._lock = Lock()
        self._keys: dict[str, Any] = {}
        self._fetched = float("-inf")
        self._is_fetching = False

    def claims(self, token: str) -> Mapping[str, Any] | None:
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return None
        if header.get("alg") not in self._settings.algorithms:
            return None
        key = self._key(str(header.get("kid") or ""))
        if key is None:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self._settings.algorithms),
                issuer=self._settings.issuer or None,
                audience=self._settings.audience or None,
                leeway=self._settings.leeway,
                options={"require": ["exp"], "verify_aud": bool(self._settings.audience)},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return claims

    def _key(self, kid: str) -> Any:
        """A key that is not known may be new; a stranger's made-up names don't make us ask more than now and then.

        Old keys stay good while the authority does not answer.
        """
        known = self._known(kid)
        is_old = time.monotonic() - self._fetched > KEYS_ARE_OLD_AFTER
        if (known is None or is_old) and self._may_fetch():
            try:
                told = self._jwt.PyJWKSet.from_dict(self._fetch.json("GET"))
                self._keys = {str(key.key_id or ""): key for key in told.keys}
            except self._jwt.PyJWTError:
                if known is None:
                    raise unavailable("the authority's keys can't be read") from None
                return known
            except StoreUnavailable:
                if known is None:
                    raise
                return known
            finally:
                self._is_fetching = False
            known = self._known(kid)
        if known is None and (self._is_fetching or not self._keys):
            raise unavailable("the authority's keys are not here yet")
        return known

    def _known(self, kid: str) -> Any:
        keys = self._keys
        if not kid and len(keys) == 1:
            return next(iter(keys.values()))
        return keys.get(kid)

    def _may_fetch(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._is_fetching or now - self._fetched < KEYS_AT_MOST_EVERY:
                return False
            self._fetched = now
            self._is_fetching = True
            return True


class _Fetcher:
    """One address of the authority, over HTTPS; plain HTTP only on this machine."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        ):
            raise ValueError(f"{parts.scheme}://{parts.hostname}: tokens and keys travel over https only")
        self._http = needed("urllib3", extra="oauth", purpose="asking an OAuth authority")
        self._url = url
        self._shown = f"{parts.scheme}://{parts.hostname}{parts.path}"
        options = {"ca_certs": ca_file} if ca_file else {}
        self._pool = self._http.PoolManager(maxsize=16, timeout=TIMEOUT, retries=False, **options)

    def json(self, method: str, body: str = "", login: tuple[str, str] = ("", "")) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if login[0]:
            headers.update(self._http.make_headers(basic_auth=":".join(login)))
        try:
            answer = self._pool.request(
                method, self._url, body=body or None, headers=headers, redirect=False, preload_content=False
            )
            try:
                content = answer.read(MAX_ANSWER + 1)
            finally:
                answer.release_conn()
        except self._http.exceptions.HTTPError as error:
            raise unavailable(f"{self._shown}: {type(error).__name__}") from None
        if answer.status != 200 or len(content) > MAX_ANSWER:
            raise unavailable(f"{self._shown}: HTTP status {answer.status}, {len(content)} bytes")
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise unavailable(f"{self._shown}: the answer is not a JSON object")
        return told
