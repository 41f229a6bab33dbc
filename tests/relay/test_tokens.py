"""Bearer tokens out (XOAUTH2 and OAUTHBEARER) over verified TLS to this server, by every client that we have; and what
the settings of the daemon make of logins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from relay import Outbox, Relaying, Routes, SmtpRelay, TlsLevel, TlsPolicy, Way
from relay.relaying import Customs
from smtpd_core.accounts.oauth import TokenStore
from smtpd_core.app.load import load
from smtpd_core.app.relaying import relaying_of
from smtpd_core.app.routing import Routing
from smtpd_core.app.sanity import faults
from smtpd_core.server import SmtpServer
from smtpd_core.wire.sasl.client import Credentials
from tests.relay.test_outbox import Told, wait_until
from tests.relay.test_real_hops import pair_of
from tests.support.peer import ScriptedPeer

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg"
LETTER = b"Subject: hello\r\n\r\nhello\r\n"


class OneToken:
    """An authority that knows one token."""

    def claims(self, token: str) -> dict[str, str] | None:
        return {"sub": "ann"} if token == TOKEN else None


@dataclass
class Hop:
    port: int
    ca_file: str
    users: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return f"localhost:{self.port}"


@pytest.fixture(params=["XOAUTH2", "OAUTHBEARER"])
def hop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hop]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with SmtpServer(
        port=0,
        local_binding="127.0.0.1",
        certificate=pair_of(ca, tmp_path, "localhost"),
        use_tls="explicit_allow",
        use_auth="required",
        auth_mechanisms=(request.param,),
        user_accounts=TokenStore(OneToken()),
    ) as server:
        hop = Hop(server.address[1], str(tmp_path / "ca.pem"))
        server.on_message_received = lambda session, letter: hop.users.append(session.user_name)
        yield hop


def test_a_route_logs_in_with_a_token_that_is_renewed_meanwhile(hop: Hop, tmp_path: Path) -> None:
    """Its file is read at each log-in; what is deferred for an old token goes with the new one."""
    told = Told()
    tokens = ["expired", TOKEN]
    destination = f"smtp:{hop.text}"
    way = Way(tls=TlsPolicy(TlsLevel.VERIFY, hop.ca_file), credentials=lambda: Credentials("ann", token=tokens.pop(0)))
    relaying = Relaying(hello="relay.test", ways={destination: way})
    with Outbox(tmp_path / "s", stops=Routes(default=destination).stops, relaying=relaying, on_outcome=told) as outbox:
        outbox.send(LETTER, "ann@x.test", ["a@b.test"])
        assert told.wait(1) == [("a@b.test", "deferred")]
        wait_until(lambda: outbox.try_now("b.test") == 1)
        assert told.wait(2) == [("a@b.test", "deferred"), ("a@b.test", "relayed")]
    assert hop.users == ["ann"]


@pytest.mark.parametrize("token", [TOKEN, "another"])
def test_direct_sending_logs_in_with_a_token(hop: Hop, token: str) -> None:
    policy = TlsPolicy(TlsLevel.VERIFY, hop.ca_file)
    relay = SmtpRelay(smarthost=hop.text, user_name="ann", token=token, tls=policy, timeout=20)
    (status,) = relay.send(LETTER, "ann@x.test", ["a@b.test"])
    assert status.is_sent == (token == TOKEN), status
    assert hop.users == (["ann"] if status.is_sent else [])
    if not status.is_sent:
        assert (status.response_code, status.is_temporary) == (535, True)


def send(hop: Hop, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smtpd_core", "send", "--server", hop.text, "--user", "ann", "--to", "a@b.test",
         "--from", "ann@x.test", "--verbose", *options, "-"],
        input=LETTER.decode(), capture_output=True, text=True, env=os.environ | {"SMTPD_TOKEN": token}, timeout=60,
    )  # fmt: skip


def test_the_command_sends_with_a_token_to_the_real_server_only(hop: Hop) -> None:
    good = send(hop, "--ca-file", hop.ca_file)
    assert good.returncode == 0, good.stderr
    assert hop.users == ["ann"] and TOKEN not in good.stdout + good.stderr
    assert send(hop, "--ca-file", hop.ca_file, token="another").returncode == 1
    # No authority of this system has signed its certificate, and nobody said that this does not matter.
    refused = send(hop)
    assert refused.returncode == 1 and "certificate" in refused.stderr
    assert "AUTH" not in refused.stderr.partition("STARTTLS\n")[2]
    assert hop.users == ["ann"]
    # Less has to be asked for.
    assert send(hop, "--tls", "require").returncode == 0
    assert send(hop, "--ca-file", "/no/such.pem").returncode != 0


def test_a_server_that_takes_no_tls_gets_no_login() -> None:
    script = "S: 220 p\nC: EHLO\nS: 250-p\nS: 250 AUTH XOAUTH2 PLAIN\n-- hang"
    with ScriptedPeer(script) as peer:
        for options in ([], ["--tls", "opportunistic"]):
            done = send(Hop(peer.port, ""), *options)
            assert done.returncode == 1
        assert not any("AUTH" in command for command in peer.commands)


SETTINGS = """
hostname = "relay.test"
state = "{folder}/state"
listener = [{{ bind = "127.0.0.1:0", service = "mx" }}]
[relay]
enabled = true
allow_networks = ["127.0.0.0/8"]
{relay}
"""


def loaded(tmp_path: Path, relay: str):  # type: ignore[no-untyped-def]
    (tmp_path / "smtpd.toml").write_text(SETTINGS.format(folder=tmp_path, relay=relay))
    return load(tmp_path / "smtpd.toml")


def test_a_route_of_the_settings_logs_in_with_its_token_file(hop: Hop, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = loaded(
        tmp_path,
        f'[relay.route."b.test"]\nsmarthost = "{hop.text}"\nuser = "ann"\ntoken_file = "{tmp_path}/token"\n'
        f'ca_file = "{hop.ca_file}"',
    )
    assert faults(settings) == []
    told = Told()
    routes = Routing(settings).routes
    with Outbox(tmp_path / "s", stops=routes.stops, relaying=relaying_of(settings), on_outcome=told) as outbox:
        outbox.send(LETTER, "ann@x.test", ["a@b.test"])
        assert told.wait(1) == [("a@b.test", "relayed")]
    assert hop.users == ["ann"]


ROUTE = '[relay.route."a.test"]\n'
LOGIN = 'user = "ann"\npassword_file = "{file}"\n'


@pytest.mark.parametrize(
    ("relay", "destination", "fact"),
    [
        ("", "mx:a.test", lambda way: way is None),
        (f"{ROUTE}port = 26", "mx:a.test", lambda way: way.port == 26),
        (f'{ROUTE}tls = "require"', "mx:a.test", lambda way: way.tls.level is TlsLevel.REQUIRE),
        (f"{ROUTE}concurrency = 3\nmessages_per_minute = 60", "mx:a.test", lambda way: way.concurrency == 3),
        (f'{ROUTE}smarthost = "h.test:25"\n{LOGIN}', "smtp:h.test:25", lambda way: way.tls is None),
        (f'{ROUTE}smarthost = "h.test:25"\n{LOGIN}tls = "require"', "smtp:h.test:25",
         lambda way: way.tls.level is TlsLevel.REQUIRE),
        (f'{ROUTE}smarthost = "127.0.0.1:25"\n{LOGIN}tls = "none"', "smtp:127.0.0.1:25",
         lambda way: way.clear_login_allowed),
        ('[relay.route.".a.test"]\nport = 26', "mx:.a.test", lambda way: way.port == 26),
        ('smarthost = "h.test:25, i.test:26"\nsmarthost_user = "ann"\nsmarthost_password_file = "{file}"',
         "smtp:h.test:25,i.test:26", lambda way: way.credentials.password == "sesame" and way.tls is None),
    ],
)  # fmt: skip
def test_what_a_route_of_the_settings_means(
    tmp_path: Path, relay: str, destination: str, fact: Callable[[Way | None], bool]
) -> None:
    (tmp_path / "password").write_text("sesame\n")
    settings = loaded(tmp_path, relay.replace("{file}", str(tmp_path / "password")))
    assert faults(settings) == []
    assert fact(relaying_of(settings).ways.get(destination))


def test_a_route_for_all_below_a_domain_goes_to_each_domains_own_servers(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[relay.route.".a.test"]\nport = 26\nconcurrency = 2')
    assert Routing(settings).routes.destination("x@b.a.test") == "mx:b.a.test"
    customs = Customs(relaying_of(settings))
    assert (customs.port_of("mx:b.a.test"), customs.port_of("mx:a.test")) == (26, 25)
    assert customs.terms_of("mx:c.b.a.test").concurrency == 2


@pytest.mark.parametrize(
    ("relay", "said"),
    [
        (f'{ROUTE}smarthost = "h.test:25"\nuser = "ann"', 'relay.route."a.test".password_file: missing'),
        (f"{ROUTE}{LOGIN}", 'relay.route."a.test".user: a login needs a smart host'),
        (f'{ROUTE}smarthost = "h.test:25"\n{LOGIN}tls = "opportunistic"', "a password is sent only over require"),
        (f'{ROUTE}smarthost = "h.test:25"\n{LOGIN}tls = "none"', "clear text to this machine only"),
        (f'{ROUTE}smarthost = "h.test:25"\n{LOGIN}token_file = "{{file}}"', "a password or a token, not both"),
        (f'{ROUTE}ca_file = "/no/such"', 'relay.route."a.test".ca_file: /no/such: no such file'),
        (f'{ROUTE}key = "{{file}}"', 'relay.route."a.test".key: given without its certificate'),
        (f'{ROUTE}smarthost = "h.test:25"\ntls = "require"\n[relay.route."b.test"]\nsmarthost = "h.test:25"',
         "talks to h.test:25 in another way than"),
        (f'smarthost = "h.test:25"\n{ROUTE}tls = "require"', 'relay.route."a.test": talks to h.test:25 in another way'),
        (f'smarthost = "h.test:25"\n{ROUTE}{LOGIN}', 'relay.route."a.test": talks to h.test:25 in another way'),
        ('smarthost = "h.test:25"\nsmarthost_user = "ann"', "relay.smarthost_password_file: missing"),
        ("connections = 0", "relay.connections: expected 1 to 1024"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused_with_its_key(tmp_path: Path, relay: str, said: str) -> None:
    (tmp_path / "password").write_text("sesame\n")
    settings = loaded(tmp_path, relay.replace("{file}", str(tmp_path / "password")))
    assert any(said in fault for fault in faults(settings)), faults(settings)


def test_a_clear_text_login_is_for_this_machine_and_verifies_everywhere_else() -> None:
    customs = Customs(Relaying())
    way = Way(credentials=Credentials("ann", "x"), clear_login_allowed=True)
    levels = {
        where: customs.manners(way, where).tls for where in ("smtp:127.0.0.1:25,[::1]:26", "smtp:h.test:25", "mx:")
    }
    assert list(levels.values()) == [TlsLevel.OPPORTUNISTIC, TlsLevel.VERIFY, TlsLevel.VERIFY]


def test_credentials_are_never_for_whoever_dns_says_is_a_domains_server() -> None:
    """A direct send showed its password to every recipient's MX that had a certificate for its own name."""
    with pytest.raises(ValueError, match="smarthost"):
        SmtpRelay(user_name="ann", password="sesame").send(b"x\r\n", "a@b.test", ["c@d.test"])
    who = Credentials("ann", "sesame")
    with pytest.raises(ValueError, match="smart host"):
        Customs(Relaying(ways={"mx:d.test": Way(credentials=who)}))
    named = Way(tls=TlsPolicy(TlsLevel.VERIFY, verify_name="mail.d.test"), credentials=who)
    assert Customs(Relaying(ways={"mx:d.test": named})).manners_of("mx:d.test").credentials == who
