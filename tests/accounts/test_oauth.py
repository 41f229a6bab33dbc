"""Bearer tokens, against a small authority on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from smtpd_core.accounts import oauth
from smtpd_core.accounts.oauth import Introspection, JwtSettings, LocalJwt, TokenRules, TokenStore
from smtpd_core.accounts.store import Account, StoreUnavailable

GOOD = {"active": True, "username": "ann", "email": "ann@example.test", "scope": "mail other", "aud": ["smtp"]}


class FixedAuthority(ThreadingHTTPServer):
    """Answers POST with what it knows of the token, GET with its keys."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.tokens: dict[str, Any] = {"good": GOOD}
        self.keys: dict[str, Any] = {"keys": []}
        self.asked: list[str] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/oauth"


class _Answers(BaseHTTPRequestHandler):
    server: FixedAuthority

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append(self.headers.get("Authorization", ""))
        self._say(self.server.tokens.get(form["token"][0], {"active": False}))

    def do_GET(self) -> None:
        self.server.asked.append("keys")
        self._say(self.server.keys)

    def _say(self, what: Any) -> None:
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def authority() -> Iterator[FixedAuthority]:
    pytest.importorskip("urllib3")
    server = FixedAuthority()
    runs = threading.Thread(target=server.serve_forever, args=(0.01,))
    runs.start()
    yield server
    server.shutdown()
    runs.join()
    server.server_close()


def test_the_authority_says_whose_token_it_is(authority: FixedAuthority) -> None:
    store = TokenStore(Introspection(authority.url, "smtp", "secret"))
    assert store.verify_token("", "good") == Account("ann@example.test", "", "ann@example.test")
    assert store.verify_token("ann@example.test", "good")
    assert store.verify_token("bob@example.test", "good") is None
    assert store.verify_token("ann@example.test", "unknown") is None
    assert authority.asked[0] == "Basic c210cDpzZWNyZXQ="


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"active": "true"}, {}),
        ({"exp": time.time() - 10}, {}),
        ({"nbf": time.time() + 3600}, {}),
        ({"aud": "web"}, {"audience": "smtp"}),
        ({"scope": "mailbox"}, {"scope": "mail"}),
        ({"iss": "https://evil.test"}, {"issuer": "https://id.test"}),
        ({"email": "a b", "username": "a b"}, {}),
        ({"email": "", "username": ""}, {}),
    ],
)
def test_a_token_that_breaks_a_rule_is_no_good(
    authority: FixedAuthority, change: dict[str, Any], rules: dict[str, str]
) -> None:
    authority.tokens["good"] = {**GOOD, **change}
    assert TokenStore(Introspection(authority.url), TokenRules(**rules)).verify_token("", "good") is None


@pytest.mark.parametrize("token", ["", "x" * 20_000, "\xe9"])
def test_what_can_be_no_token_is_not_asked_about(authority: FixedAuthority, token: str) -> None:
    assert TokenStore(Introspection(authority.url)).verify_token("ann", token) is None
    assert authority.asked == []


def test_an_authority_that_fails_makes_no_token_wrong(authority: FixedAuthority) -> None:
    store = TokenStore(Introspection(authority.url, "smtp", "hunter2"))
    for status, answer in ((500, {}), (302, {}), (200, b"[]"), (200, b"<html>"), (200, b"x" * 300_000)):
        authority.status, authority.tokens["good"] = status, answer
        with pytest.raises(StoreUnavailable) as caught:
            store.verify_token("ann", "good")
        assert "good" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_the_user_of_a_token_can_be_looked_up_in_another_store(authority: FixedAuthority) -> None:
    people = {"ann@example.test": Account("ann", "Ann", "ann@example.test", ("@x.test",))}
    store = TokenStore(Introspection(authority.url), accounts=people.get)
    assert store.verify_token("", "good") == people["ann@example.test"]
    people.clear()
    assert store.verify_token("", "good") is None


def test_an_address_that_nobody_verified_is_neither_the_user_nor_his_address(authority: FixedAuthority) -> None:
    store = TokenStore(Introspection(authority.url))
    authority.tokens["good"] = {**GOOD, "email": "boss@example.test", "email_verified": False}
    assert store.verify_token("", "good") == Account("ann") and store.verify_token("boss@example.test", "good") is None
    for proven in (True, "true"):
        authority.tokens["good"] = {**GOOD, "email_verified": proven}
        assert store.verify_token("", "good") == Account("ann@example.test", "", "ann@example.test")


@pytest.mark.parametrize("claim", [["ann"], {"name": "ann"}, 17, True])
def test_a_claim_that_is_no_text_names_nobody(authority: FixedAuthority, claim: object) -> None:
    authority.tokens["good"] = {"active": True, "sub": claim}
    assert TokenStore(Introspection(authority.url)).verify_token("", "good") is None


def test_tokens_and_keys_travel_over_https_only() -> None:
    pytest.importorskip("urllib3")
    with pytest.raises(ValueError, match="https"):
        Introspection("http://id.example.test/introspect")
    with pytest.raises(ValueError, match="public keys"):
        JwtSettings("https://id.example.test/keys", algorithms=("HS256",))


class Signer:
    """The authority's pair of keys."""

    def __init__(self, kid: str) -> None:
        jwt = pytest.importorskip("jwt")
        from cryptography.hazmat.primitives.asymmetric import ec

        self.jwt, self.kid, self.key = jwt, kid, ec.generate_private_key(ec.SECP256R1())
        self.public = {
            **jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).to_jwk(self.key.public_key(), as_dict=True),
            "kid": kid,
            "use": "sig",
        }

    def token(self, **claims: Any) -> str:
        body = {"sub": "ann", "exp": time.time() + 60, "iss": "https://id.test", "aud": "smtp", **claims}
        return str(self.jwt.encode(body, self.key, "ES256", {"kid": self.kid}))


def test_a_jwt_is_checked_here_with_the_published_keys(authority: FixedAuthority) -> None:
    signer = Signer("one")
    authority.keys = {"keys": [signer.public]}
    store = TokenStore(LocalJwt(JwtSettings(authority.url, issuer="https://id.test", audience="smtp")))
    assert store.verify_token("ann", signer.token()) == Account("ann")
    assert store.verify_token("", signer.token(sub="bob")) == Account("bob")
    assert authority.asked == ["keys"]
    for bad in (
        signer.token(exp=time.time() - 100),
        signer.token(aud="web"),
        signer.token(iss="https://evil.test"),
        signer.token()[:-4] + "AAAA",
        Signer("one").token(),
        Signer("unknown").token(),
        signer.jwt.encode({"sub": "ann", "exp": time.time() + 60}, None, "none"),
        signer.jwt.encode({"sub": "ann", "exp": time.time() + 60}, "x" * 32, "HS256", {"kid": "one"}),
        "not.a.jwt",
        "good",
    ):
        assert store.verify_token("ann", bad) is None
    assert authority.asked == ["keys"]


def test_without_the_keys_no_token_is_called_wrong(authority: FixedAuthority) -> None:
    authority.status = 503
    store = TokenStore(LocalJwt(JwtSettings(authority.url)))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.verify_token("ann", Signer("one").token())
    assert authority.asked == ["keys"]


def test_a_key_that_the_authority_took_back_is_not_believed_for_ever(
    authority: FixedAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Signer("old"), Signer("new")
    authority.keys = {"keys": [old.public]}
    store = TokenStore(LocalJwt(JwtSettings(authority.url, audience="smtp")))
    assert store.verify_token("ann", old.token())
    monkeypatch.setattr(oauth, "KEYS_ARE_OLD_AFTER", -1.0)
    monkeypatch.setattr(oauth, "KEYS_AT_MOST_EVERY", -1.0)
    authority.status = 503
    assert store.verify_token("ann", old.token()), "an authority that does not answer takes nothing back"
    authority.status, authority.keys = 200, {"keys": [new.public]}
    assert store.verify_token("ann", old.token()) is None and store.verify_token("ann", new.token())
