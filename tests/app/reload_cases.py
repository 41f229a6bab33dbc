"""What each setting changes of a running daemon, as a client or the relay sees it: the table of test_reload.py."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtpd_core.app.settings import Route, TlsHost
from tests.app.running import Running


@dataclass(frozen=True)
class Case:
    """`seen(running)` is `before`; once the setting is `value` it is `after`. `given` is set from the start."""

    key: str
    value: Any
    seen: Callable[[Running], Any]
    before: Any
    after: Any
    given: tuple[tuple[str, Any], ...] = ()


STORE, STAFF = "file:{place}/users.toml", ("accounts.store", "file:{place}/users.toml")
OFFERED = ("listener.auth", "offered")
NOBODY_IS_EXEMPT = ("guard.exempt", ())
RELAYS = ("relay.enabled", True)
HUB = ("relay.smarthost", "127.0.0.1:2526")
MINE = (("tls.certificate", "{place}/first.pem"), ("tls.key", "{place}/first.key"))
MIME = b"Subject: x\r\n\r\n"
QUERY = "SELECT name AS user_name, secret AS password FROM staff WHERE name = :user"

CASES = (
    Case(
        "hostname",
        "new.our.test",
        lambda r: r.features() and r.ask("HELO probe.test") and hello(r),
        "mx.our.test",
        "new.our.test",
    ),
    Case("threads.min", 1, lambda r: r.daemon.server.engine.pool._books.minimum, 2, 1),
    Case("threads.max", 9, lambda r: r.daemon.server.engine.pool._books.maximum, 32, 9),
    Case("listener.service", "lmtp", lambda r: r.ask("LHLO probe.test"), [500], [250]),
    Case("listener.tls", "none", lambda r: "starttls" in r.features(), True, False),
    Case("listener.auth", "offered", lambda r: "auth" in r.features(tls=True), False, True, (STAFF,)),
    Case(
        "listener.proxy_protocol",
        True,
        lambda r: r.greeting(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" if r.daemon.settings.listener[0].proxy_protocol else b""
        ),
        b"220",
        b"220",
    ),
    Case(
        "listener.proxy_from",
        ("192.0.2.0/24",),
        lambda r: r.greeting(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        b"220",
        b"554",
        (("listener.proxy_protocol", True),),
    ),
    Case("listener.xclient_from", ("127.0.0.0/8",), lambda r: "xclient" in r.features(), False, True),
    Case("listener.without", ("CHUNKING",), lambda r: "chunking" in r.features(), True, False),
    Case(
        "listener.mechanisms",
        ("LOGIN",),
        lambda r: r.features(tls=True)["auth"].split() == ["LOGIN"],
        False,
        True,
        (STAFF, OFFERED),
    ),
    Case("listener.durability", "memory", lambda r: kept_how(r), "synced", "memory"),
    Case("limits.max_message_size", 1_000_000, lambda r: r.features()["size"], str(50 << 20), "1000000"),
    Case("limits.max_recipients", 100, lambda r: r.features()["limits"].split()[0], "RCPTMAX=1000", "RCPTMAX=100"),
    Case("limits.max_connections", 2, lambda r: r.greeted_together(3), [b"220"] * 3, [b"220", b"220", b"421"]),
    Case(
        "limits.max_connections_per_source",
        2,
        lambda r: r.greeted_together(3),
        [b"220"] * 3,
        [b"220", b"220", b"421"],
        (NOBODY_IS_EXEMPT,),
    ),
    Case("limits.max_errors", 2, lambda r: r.ask("X", "X", "X"), [500, 500, 500], [500, 500, 421]),
    Case("limits.max_received", 2, lambda r: r.data(b"Received: x\r\n" * 4 + MIME), 250, 554),
    Case("limits.minimum_rate", 7, lambda r: r.timeouts.minimum_rate, 1024, 7),
    Case("limits.rate_window", 7.0, lambda r: r.timeouts.rate_window, 60.0, 7.0),
    Case("limits.hook_budget", 7.0, lambda r: {meter.budget for meter in r.daemon.server.meters}, {30.0}, {7.0}),
    Case("limits.without", ("CHUNKING",), lambda r: "chunking" in r.features(), True, False),
    Case("limits.bare_lf", "normalise", lambda r: r.data(MIME + b"a\nb"), 550, 250),
    Case("limits.bare_lf_in_chunks", "normalise", lambda r: r.data(MIME + b"a\nb\r\n", "BDAT"), 550, 250),
    Case("limits.keep_nul", True, lambda r: r.data(MIME + b"a\0b"), 550, 250),
    Case("limits.strict_lines", True, lambda r: r.data(MIME + b"x" * 2000) // 100, 2, 5),
    *(
        Case(f"limits.timeouts.{name}", 7.0, lambda r, name=name: getattr(r.timeouts, name), default, 7.0)
        for name, default in (("handshake", 60.0), ("command", 300.0), ("data", 180.0), ("login", 120.0))
    ),
    Case("limits.timeouts.greeting", 7.0, lambda r: r.daemon.server.timeouts.greeting, 300.0, 7.0),
    Case("limits.timeouts.session", 7.0, lambda r: r.timeouts.session, 86_400.0, 7.0),
    Case("limits.timeouts.hook_wait", 7.0, lambda r: r.timeouts.hook_wait, 30.0, 7.0),
    Case("limits.timeouts.stop", 7.0, lambda r: r.daemon.settings.limits.timeouts.stop, 30.0, 7.0),
    Case("guard.allow", ("127.0.0.0/8",), lambda r: r.greeting(), b"554", b"220", (("guard.block", ("127.0.0.0/8",)),)),
    Case("guard.block", ("127.0.0.0/8",), lambda r: r.greeting(), b"220", b"554"),
    Case("guard.allow_only", True, lambda r: r.greeting(), b"220", b"554"),
    Case(
        "guard.exempt",
        (),
        lambda r: r.greeted_together(3),
        [b"220"] * 3,
        [b"220", b"220", b"421"],
        (("limits.max_connections_per_source", 2),),
    ),
    Case(
        "guard.max_per_prefix",
        2,
        lambda r: r.greeted_together(3),
        [b"220"] * 3,
        [b"220", b"220", b"421"],
        (NOBODY_IS_EXEMPT,),
    ),
    Case(
        "guard.connections_per_period",
        1,
        lambda r: [r.greeting(), r.greeting()],
        [b"220"] * 2,
        [b"220", b"421"],
        (NOBODY_IS_EXEMPT,),
    ),
    Case("guard.messages_per_period", 1, lambda r: [mail(r), mail(r)], [250, 250], [250, 451], (NOBODY_IS_EXEMPT,)),
    Case("guard.period", 7.0, lambda r: r.guard.period, 60.0, 7.0),
    Case("guard.login_delay", 0.0, lambda r: r.guard.login_delay, 1.0, 0.0),
    Case("guard.lock_out_after", 3, lambda r: r.guard.lock_out_after, 10, 3),
    Case("guard.lock_out_period", 7.0, lambda r: r.guard.lock_out_period, 900.0, 7.0),
    Case(
        "tls.certificate",
        "{place}/both.pem",
        lambda r: r.certificate(),
        ("mx.our.test",),
        ("mx.our.test", "both.our.test"),
        (("tls.certificate", "{place}/alone.pem"),),
    ),
    Case(
        "tls.key",
        "{place}/first.key",
        lambda r: r.certificate(),
        ("mx.our.test",),
        ("mx.our.test",),
        (("tls.certificate", "{place}/alone.pem"),),
    ),
    Case("tls.minimum", "1.3", lambda r: r.tls_version(ssl.TLSVersion.TLSv1_2), "TLSv1.2", "refused"),
    Case("tls.password_file", "{place}/phrase", lambda r: r.certificate(), ("mx.our.test",), ("mx.our.test",), MINE),
    Case(
        "tls.host",
        (TlsHost("web.our.test", "{place}/web.pem", "{place}/web.key"),),
        lambda r: r.certificate("web.our.test"),
        ("mx.our.test",),
        ("web.our.test",),
        MINE,
    ),
    Case(
        "tls.clients",
        "ask",
        lambda r: "EXTERNAL" in r.daemon.server._house.offer.dialects[r.daemon.listeners[0].door.settings].mechanisms,
        False,
        True,
        (STAFF, OFFERED, ("tls.client_ca", "{place}/first.pem")),
    ),
    Case(
        "tls.client_ca",
        "{place}/web.pem",
        lambda r: Path(r.daemon.renewal.contexts.clients.ca_file).name,
        "first.pem",
        "web.pem",
        (("tls.clients", "ask"), ("tls.client_ca", "{place}/first.pem")),
    ),
    Case(
        "tls.client_crl",
        "{place}/crl.pem",
        lambda r: Path(r.daemon.renewal.contexts.clients.crl_file).name,
        "",
        "crl.pem",
        (("tls.clients", "ask"), ("tls.client_ca", "{place}/ca.pem")),
    ),
    Case(
        "accounts.store",
        "sqlite:{place}/users.db",
        lambda r: [r.login("ann@our.test"), r.login("joe")],
        [235, 535],
        [535, 235],
        (STAFF, OFFERED, ("guard.login_delay", 0.0)),
    ),
    Case(
        "accounts.case_insensitive",
        True,
        lambda r: r.login("ANN@our.test"),
        535,
        235,
        (STAFF, OFFERED, ("guard.login_delay", 0.0)),
    ),
    Case(
        "accounts.query",
        QUERY,
        lambda r: r.login("kim", "clear"),
        535,
        235,
        (
            ("accounts.store", "sqlite:{place}/users.db"),
            OFFERED,
            ("accounts.kinds", ("cleartext",)),
            ("accounts.query", QUERY.replace("name =", "'x' || name =")),
            ("guard.login_delay", 0.0),
        ),
    ),
    Case(
        "accounts.kinds",
        ("cleartext",),
        lambda r: "CRAM-MD5" in r.features(tls=True)["auth"],
        False,
        True,
        (
            ("accounts.store", "sqlite:{place}/users.db"),
            OFFERED,
            ("accounts.query", QUERY),
            ("accounts.kinds", ("password",)),
        ),
    ),
    Case(
        "accounts.mechanisms",
        ("LOGIN",),
        lambda r: r.features(tls=True)["auth"].split() == ["LOGIN"],
        False,
        True,
        (STAFF, OFFERED),
    ),
    Case("accounts.ntlm_version_1", True, lambda r: r.daemon.server.ntlm_version_1, False, True, (STAFF, OFFERED)),
    Case(
        "accounts.sender_rule",
        "enforce",
        lambda r: r.sends_as("eve@far.test"),
        250,
        553,
        (STAFF, OFFERED, ("listener.service", "submission")),
    ),
    Case(
        "accounts.cleartext_without_tls",
        True,
        lambda r: "auth" in r.features() and "PLAIN" in r.features()["auth"],
        False,
        True,
        (STAFF, OFFERED),
    ),
    Case(
        "domains.deliver",
        "lmtp:127.0.0.1:24",
        lambda r: r.destination("ann@our.test").partition(":")[0],
        "maildir",
        "lmtp",
    ),
    Case("domains.users", ("ann", "bob"), lambda r: r.rcpt("bob@our.test"), 550, 250),
    Case("domains.aliases", {"info": ("ann",)}, lambda r: r.rcpt("info@our.test"), 550, 250),
    Case("domains.aliases_file", "{place}/aliases", lambda r: r.rcpt("desk@our.test"), 550, 250),
    Case("domains.catch_all", "ann", lambda r: r.stops("who@our.test"), ["who@our.test"], ["ann@our.test"]),
    Case("domains.plus", "-", lambda r: [r.rcpt("ann+x@our.test"), r.rcpt("ann-x@our.test")], [250, 550], [550, 250]),
    Case("spool.limit", 60 << 20, lambda r: r.daemon.outbox._spool._room.limit, 4 << 30, 60 << 20),
    Case("spool.free_floor", 1 << 50, lambda r: mail(r), 250, 452),
    Case("spool.resends", "all", lambda r: twice(r), 2, 1),
    Case("spool.resend_window", 7.0, lambda r: r.daemon.outbox._resends.window, 300.0, 7.0),
    Case(
        "relay.enabled",
        True,
        lambda r: [r.rcpt("eve@far.test"), "etrn" in r.features()],
        [550, False],
        [250, True],
        (("relay.allow_networks", ("127.0.0.0/8",)),),
    ),
    Case("relay.allow_networks", ("127.0.0.0/8",), lambda r: r.rcpt("eve@far.test"), 550, 250, (RELAYS,)),
    Case("relay.dns_server", "127.0.0.1:5353", lambda r: r.relaying.dns_server, "", "127.0.0.1:5353", (RELAYS,)),
    Case("relay.port", 26, lambda r: r.relaying.port, 25, 26, (RELAYS,)),
    Case(
        "relay.smarthost",
        "127.0.0.1:2526",
        lambda r: r.destination("eve@far.test"),
        "mx:far.test",
        "smtp:127.0.0.1:2526",
        (RELAYS,),
    ),
    Case(
        "relay.smarthost_user",
        "me",
        lambda r: user_at_hub(r),
        "",
        "me",
        (RELAYS, HUB, ("relay.smarthost_tls", "require"), ("relay.smarthost_password_file", "{place}/phrase")),
    ),
    Case(
        "relay.smarthost_password_file",
        "{place}/other",
        lambda r: r.relaying.ways["smtp:127.0.0.1:2526"].credentials.password,
        "phrase",
        "other",
        (
            RELAYS,
            HUB,
            ("relay.smarthost_tls", "require"),
            ("relay.smarthost_user", "me"),
            ("relay.smarthost_password_file", "{place}/phrase"),
        ),
    ),
    Case(
        "relay.smarthost_tls",
        "none",
        lambda r: r.relaying.ways["smtp:127.0.0.1:2526"].tls.level.name,
        "REQUIRE",
        "NONE",
        (RELAYS, HUB, ("relay.smarthost_tls", "require")),
    ),
    Case(
        "relay.smarthost_token_file",
        "{place}/other",
        lambda r: r.relaying.ways["smtp:127.0.0.1:2526"].credentials().token,
        "phrase",
        "other",
        (
            RELAYS,
            HUB,
            ("relay.smarthost_tls", "require"),
            ("relay.smarthost_user", "me"),
            ("relay.smarthost_token_file", "{place}/phrase"),
        ),
    ),
    Case("relay.ipv6_first", False, lambda r: r.relaying.ipv6_first, True, False, (RELAYS,)),
    Case("relay.ca_file", "{place}/ca.pem", lambda r: Path(r.relaying.tls.ca_file).name, "", "ca.pem", (RELAYS,)),
    Case(
        "relay.certificate",
        "{place}/both.pem",
        lambda r: r.relaying.tls.pair.hosts,
        ["mx.our.test"],
        ["mx.our.test", "both.our.test"],
        (RELAYS, ("relay.certificate", "{place}/alone.pem")),
    ),
    Case(
        "relay.key",
        "{place}/first.key",
        lambda r: r.relaying.tls.pair.hosts,
        ["mx.our.test"],
        ["mx.our.test"],
        (RELAYS, ("relay.certificate", "{place}/alone.pem")),
    ),
    Case("relay.retry", (7.0,), lambda r: r.relaying.retry.schedule[0], 300.0, 7.0, (RELAYS,)),
    Case("relay.expire", 7.0, lambda r: r.relaying.retry.expire, 432_000.0, 7.0, (RELAYS,)),
    Case("relay.delay_warning", 7.0, lambda r: r.relaying.retry.delay_warning, 14_400.0, 7.0, (RELAYS,)),
    Case(
        "relay.concurrency", 3, lambda r: r.daemon.outbox._customs.terms_of("mx:far.test").concurrency, 20, 3, (RELAYS,)
    ),
    Case("relay.connect_timeout", 7.0, lambda r: r.relaying.times.connect, 30.0, 7.0, (RELAYS,)),
    Case("relay.timeout", 7.0, lambda r: r.relaying.times.mail, 300.0, 7.0, (RELAYS,)),
    Case(
        "relay.route",
        {"far.test": Route(smarthost="127.0.0.1:2527")},
        lambda r: r.destination("eve@far.test"),
        "mx:far.test",
        "smtp:127.0.0.1:2527",
        (RELAYS,),
    ),
)


def hello(running: Running) -> str:
    with running.client() as client:
        return client.ehlo_resp.decode().split()[0]  # type: ignore[union-attr]


def mail(running: Running) -> int:
    with running.client() as client:
        return client.mail("eve@far.test")[0]


def kept_how(running: Running) -> str:
    with running.client() as client:
        client.mail("eve@far.test")
        client.rcpt("ann@our.test")
        said = client.data(b"Subject: x\r\n\r\n")[1].decode()
    return "memory" if "(memory)" in said else "synced"


def twice(running: Running) -> int:
    """How many ids a message has that is sent twice."""
    ids = set()
    for _ in range(2):
        with running.client() as client:
            client.mail("eve@far.test")
            client.rcpt("ann@our.test")
            ids.add(client.data(b"Message-ID: <1@far.test>\r\nSubject: x\r\n\r\n")[1])
    return len(ids)


def user_at_hub(running: Running) -> str:
    way = running.relaying.ways["smtp:127.0.0.1:2526"]
    return way.credentials.user if way.credentials is not None else ""
