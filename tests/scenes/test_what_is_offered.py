"""AUTH in the reply to EHLO follows the accounts while the server runs: never what can't work, and soon what can."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from smtpd_core import SmtpServer, UserAccount
from smtpd_core.accounts import Account, AccountStore, MemoryStore, StoreUnavailable, hashing
from smtpd_core.accounts.callable import CallableStore
from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.entry import Entry, stored_forms
from smtpd_core.accounts.oauth import TokenStore
from smtpd_core.accounts.opening import open_editable, open_store
from smtpd_core.accounts.sql import store as sql
from smtpd_core.accounts.store import EditableStore
from smtpd_core.net import GuardSettings
from smtpd_core.server import offer
from tests.server.people import Line

HASHED, BOTH = ("password",), ("password", "scram-sha-256")


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "ARGON2_MEMORY_KIB", 64)
    monkeypatch.setattr(hashing, "SCRYPT_LOG_N", 6)


@pytest.fixture
def serve() -> Iterator[Callable[..., SmtpServer]]:
    running = []

    def start(store: AccountStore, **more: object) -> SmtpServer:
        more.setdefault("guard", GuardSettings(login_delay=0.0))
        server = SmtpServer(port=0, user_accounts=store, clear_text_without_tls=True, **more)
        running.append(server.start())
        return server

    yield start
    for server in running:
        server.stop(5)


def offered(client: smtplib.SMTP) -> set[str]:
    client.ehlo()
    return set(client.esmtp_features.get("auth", "").split())


def until(happens: Callable[[], bool]) -> None:
    """Within moments: a file at the very next EHLO, a database a hundred times as long after a look as that took."""
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entry(name: str, kinds: Iterable[str]) -> Entry:
    return Entry(Account(name), stored_forms(f"password of {name}", kinds))


def another_process(url: str) -> EditableStore:
    """As `user add` has the store: not the object that the server has."""
    return open_editable(url, may_make=True)


@pytest.fixture(params=["file:{}/users.toml", "file:{}/passwd", "sqlite:{}/users.db"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param.format(tmp_path))


def test_a_session_is_offered_what_the_accounts_can_use_at_its_ehlo(serve: Callable[..., SmtpServer], url: str) -> None:
    one_secret_each = url.endswith("passwd")
    rich = ("cleartext",) if one_secret_each else BOTH
    people = another_process(url)
    people.add(entry("ann", HASHED))
    server = serve(open_store(url))
    with smtplib.SMTP(*server.address) as client:
        assert offered(client) == {"PLAIN", "LOGIN"}
        people.set_secrets("ann", stored_forms("password of ann", rich))
        until(lambda: "SCRAM-SHA-256" in offered(client))  # the first verifier was added
        people.add(entry("bob", HASHED))
        until(lambda: offered(client) == {"PLAIN", "LOGIN"})  # bob could not use SCRAM
        people.remove("bob")
        until(lambda: "SCRAM-SHA-256" in offered(client))
        client.login("ann", "password of ann")
        assert offered(client) == set(), "nobody logs in twice"


def test_what_is_not_offered_any_more_is_not_taken_either(serve: Callable[..., SmtpServer], tmp_path: Path) -> None:
    url = f"file:{tmp_path}/users.toml"
    people = another_process(url)
    people.add(entry("ann", BOTH))
    server = serve(open_store(url))
    with smtplib.SMTP(*server.address) as client:
        assert "SCRAM-SHA-256" in offered(client)
        people.set_secrets("ann", stored_forms("x", HASHED))
        assert "SCRAM-SHA-256" not in offered(client)
        assert client.docmd("AUTH", "SCRAM-SHA-256")[0] == 504


def test_a_mechanism_that_was_named_goes_when_nobody_could_use_it_but_not_the_last_one(
    serve: Callable[..., SmtpServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"file:{tmp_path}/users.toml"
    people = another_process(url)
    people.add(entry("ann", BOTH))
    several = serve(open_store(url), auth_mechanisms=("SCRAM-SHA-256", "PLAIN"))
    only = serve(open_store(url), auth_mechanisms=("SCRAM-SHA-256",))
    people.add(entry("bob", HASHED))
    with smtplib.SMTP(*several.address) as client:
        assert offered(client) == {"PLAIN"}
    with smtplib.SMTP(*only.address) as client:
        assert offered(client) == {"SCRAM-SHA-256"}, "ann can still log in with it"
    assert "AUTH goes on to offer SCRAM-SHA-256" in caplog.text
    people.remove("bob")
    for server, names in ((several, {"SCRAM-SHA-256", "PLAIN"}), (only, {"SCRAM-SHA-256"})):
        with smtplib.SMTP(*server.address) as client:
            offered(client)  # the look that a session before left unfinished is made good
            assert offered(client) == names


def test_a_log_in_of_one_who_lacks_what_is_offered_ends_the_offer(
    serve: Callable[..., SmtpServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where looking at all accounts takes so long that it is done seldom."""
    monkeypatch.setattr(sql, "LOOK_COSTS_AT_MOST", 1e9)
    url = f"sqlite:{tmp_path}/users.db"
    people = another_process(url)
    people.add(entry("ann", BOTH))
    server = serve(open_store(url))
    people.add(entry("bob", HASHED))
    with smtplib.SMTP(*server.address) as client:
        assert "SCRAM-SHA-256" in offered(client), "as far as was seen"
        client.login("bob", "password of bob")
    with smtplib.SMTP(*server.address) as client:
        assert offered(client) == {"PLAIN", "LOGIN"}


def test_a_chain_follows_its_stores(serve: Callable[..., SmtpServer], tmp_path: Path) -> None:
    url = f"file:{tmp_path}/users.toml"
    people = another_process(url)
    people.add(entry("ann", HASHED))
    tokens = TokenStore(CallableStore(lambda user, password: None))  # type: ignore[arg-type]
    server = serve(ChainStore([open_store(url), tokens]))
    with smtplib.SMTP(*server.address) as client:
        assert offered(client) == {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}
        people.set_secrets("ann", stored_forms("x", BOTH))
        assert offered(client) == {"SCRAM-SHA-256", "PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}


class Changing(MemoryStore):
    """Says what it serves only after a while, and counts how often it is asked."""

    version = 0
    asked = 0
    serves = frozenset({"password"})
    gate: threading.Event | None = None
    is_down = False

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        self.asked += 1
        if self.is_down:
            raise StoreUnavailable("down")
        if self.gate is not None:
            assert self.gate.wait(20)
        return self.serves


def test_the_store_is_asked_once_for_each_change(serve: Callable[..., SmtpServer]) -> None:
    store = Changing([UserAccount("ann", "x")])
    server = serve(store)
    before = store.asked
    with smtplib.SMTP(*server.address) as client:
        for _ in range(100):
            assert offered(client) == {"PLAIN", "LOGIN"}
        assert store.asked == before
        store.serves, store.version = frozenset({"password", "cleartext"}), 1
        for _ in range(100):
            assert offered(client) == {"CRAM-MD5", "PLAIN", "LOGIN"}
        assert store.asked == before + 1


def test_a_store_that_takes_its_time_delays_nobody_else(serve: Callable[..., SmtpServer]) -> None:
    store = Changing([UserAccount("ann", "x")])
    server = serve(store, max_thread_count=2)
    gate = store.gate = threading.Event()
    store.version = 1
    first, asked = Line(server.address), store.asked
    first.say("EHLO probe")
    deadline = time.monotonic() + 20
    while store.asked == asked and time.monotonic() < deadline:
        time.sleep(0.001)
    with smtplib.SMTP(*server.address, timeout=5) as bystander:
        assert offered(bystander) == {"PLAIN", "LOGIN"}, "EHLO too, with what is known"
        assert bystander.noop()[0] == 250
    gate.set()
    assert first.hear().startswith("250")
    first.close()


def test_a_store_that_is_down_changes_nothing(serve: Callable[..., SmtpServer]) -> None:
    store = Changing([UserAccount("ann", "x")])
    server = serve(store)
    with smtplib.SMTP(*server.address) as client:
        assert offered(client) == {"PLAIN", "LOGIN"}
        store.is_down, store.version = True, 1
        assert offered(client) == {"PLAIN", "LOGIN"}
        store.is_down, store.serves, store.version = False, frozenset({"cleartext"}), 2
        assert offered(client) == {"CRAM-MD5"}


def test_a_store_that_did_not_answer_is_asked_again_though_its_version_stays(
    serve: Callable[..., SmtpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Changing([UserAccount("ann", "x")])
    server = serve(store)
    with smtplib.SMTP(*server.address) as client:
        store.is_down, store.serves, store.version = True, frozenset({"cleartext"}), 1
        offered(client)
        before, store.is_down = store.asked, False
        assert offered(client) == {"PLAIN", "LOGIN"} and store.asked == before, "not at each EHLO"
        monkeypatch.setattr(offer, "ASK_AGAIN_AFTER", 0.001)
        store.is_down, store.version = True, 2
        offered(client)
        store.is_down = False
        until(lambda: offered(client) == {"CRAM-MD5"})


def test_settings_that_change_while_the_store_is_asked_stay(serve: Callable[..., SmtpServer]) -> None:
    store = Changing([UserAccount("ann", "x")])
    server = serve(store)
    gate = store.gate = threading.Event()
    store.version = 1
    first, asked = Line(server.address), store.asked
    first.say("EHLO probe")
    until(lambda: store.asked > asked)
    store.gate = None
    server.max_data_size = 12_345
    gate.set()
    assert first.hear().startswith("250")
    first.close()
    with smtplib.SMTP(*server.address) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "12345"


class Slow(Changing):
    """A log-in takes until the gate is open."""

    def __init__(self) -> None:
        super().__init__([UserAccount("ann", "x")])
        self.inside = threading.Semaphore(0)
        self.opens = threading.Event()

    def verify(self, user: str, password: str) -> Account | None:
        self.inside.release()
        assert self.opens.wait(20)
        return super().verify(user, password)


def test_who_says_ehlo_does_not_stand_in_line_behind_log_ins(serve: Callable[..., SmtpServer]) -> None:
    store = Slow()
    server = serve(store, max_thread_count=2)  # of which log-ins have one
    busy = Line(server.address)
    busy.say("EHLO probe")
    busy.hear()
    busy.say("AUTH PLAIN AGFubgB4")
    assert store.inside.acquire(timeout=20)
    store.serves, store.version = frozenset({"cleartext"}), 1
    with smtplib.SMTP(*server.address, timeout=5) as bystander:
        assert offered(bystander) == {"PLAIN", "LOGIN"}
        store.opens.set()
        until(lambda: offered(bystander) == {"CRAM-MD5"})
    busy.close()


def test_a_store_that_can_not_tell_its_version_is_reported_without_its_words(
    serve: Callable[..., SmtpServer], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryStore):
        is_broken = False

        @property
        def version(self) -> int:
            if self.is_broken:
                raise RuntimeError("hunter2")
            return 1

    store = Broken([UserAccount("ann", "x")])
    server = serve(store)
    store.is_broken = True
    with smtplib.SMTP(*server.address) as client:
        for _ in range(3):
            assert "PLAIN" in offered(client)
    assert caplog.text.count("the account store failed: RuntimeError") == 1 and "hunter2" not in caplog.text
