"""TLS towards next hops: what each level does where TLS is missing, broken, self-signed or good."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from certs.contexts import ClientContext
from certs.policy import ClientPolicy
from relay.hop import Manners, TlsLevel, TlsPolicy
from relay.mail import Outcome
from smtpd_core.wire.sasl.client import Credentials
from tests.support.parcels import QUICK, agent_for, body, parcel, told
from tests.support.peer import ScriptedPeer

HELLO = "S: 220 peer.test\nC: EHLO relay.test\nS: 250-peer.test\n"
MAIL = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nC: <content>\nS: 250 2.0.0 yes\nC: QUIT\nS: 221 x\n"
OFFERS = HELLO + "S: 250 STARTTLS\nC: STARTTLS\n"
UPGRADES = OFFERS + "S: 220 go\n-- tls\nC: EHLO relay.test\nS: 250 peer.test\n" + MAIL
LACKS = HELLO + "S: 250 HELP\n"
LACKS_AND_SAYS = LACKS + "C: QUIT\nS: 221 bye\n"
NEVER_ASKED = HELLO + "S: 250 STARTTLS\n" + MAIL
SENT = [("relayed", 250, "2.0.0")]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_side(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def deliver(
    level: TlsLevel,
    *scripts: str,
    tls: ssl.SSLContext | None = None,
    ca_file: str = "",
    credentials: Credentials | None = None,
    implicit: bool = False,
) -> tuple[list[Outcome], ScriptedPeer]:
    context = ClientContext(ClientPolicy(verify=level is TlsLevel.VERIFY, ca_file=ca_file))
    manners = Manners(
        hello="relay.test",
        tls=level,
        open_tls=context.stream,
        times=QUICK,
        credentials=credentials,
        implicit_tls=implicit,
    )
    with ScriptedPeer(*scripts, tls=tls) as peer:
        agent = agent_for(peer.port, manners=manners)
        outcomes = agent.deliver(parcel("bob@there.test"), body(), 1.0)
        agent.close()
    return outcomes, peer


@pytest.mark.parametrize("level", [TlsLevel.OPPORTUNISTIC, TlsLevel.REQUIRE])
def test_tls_is_used_where_it_is_offered_whoever_signed_the_certificate(ca: trustme.CA, level: TlsLevel) -> None:
    outcomes, peer = deliver(level, UPGRADES, tls=server_side(ca, "other.test"))
    assert told(outcomes) == SENT
    assert len(peer.contents) == 1


def test_without_an_offer_an_opportunistic_hop_gets_clear_text_and_a_strict_one_nothing() -> None:
    assert told(deliver(TlsLevel.OPPORTUNISTIC, LACKS + MAIL)[0]) == SENT
    for level in (TlsLevel.REQUIRE, TlsLevel.VERIFY):
        outcomes, peer = deliver(level, LACKS)
        assert outcomes[0].result.value == "deferred" and "STARTTLS" in outcomes[0].text
        assert not any(command.startswith("MAIL") for command in peer.commands)


def test_tls_that_was_switched_off_is_not_asked_for() -> None:
    assert told(deliver(TlsLevel.NONE, NEVER_ASKED)[0]) == SENT


@pytest.mark.parametrize(
    "broken",
    [
        OFFERS + "S: 454 4.7.0 not now\n",
        OFFERS + "S: 220 go\n-- close",
        OFFERS + "S: 220 go\n-- say this is not TLS\\r\\n\n-- hang",
    ],
    ids=["refused", "cut", "nonsense"],
)
def test_a_broken_handshake_is_retried_in_clear_text_only_where_the_policy_is_opportunistic(broken: str) -> None:
    outcomes, peer = deliver(TlsLevel.OPPORTUNISTIC, broken, NEVER_ASKED)
    assert told(outcomes) == SENT and peer.sessions == 2
    for level in (TlsLevel.REQUIRE, TlsLevel.VERIFY):
        outcomes, peer = deliver(level, broken, NEVER_ASKED)
        assert outcomes[0].result.value == "deferred"
        assert peer.sessions == 1 and not peer.contents


def test_verify_wants_a_known_authority_and_the_hosts_name(ca: trustme.CA, ca_file: str) -> None:
    assert told(deliver(TlsLevel.VERIFY, UPGRADES, tls=server_side(ca, "mx0.test"), ca_file=ca_file)[0]) == SENT
    wrong_name = deliver(TlsLevel.VERIFY, UPGRADES, tls=server_side(ca, "evil.test"), ca_file=ca_file)
    unknown = deliver(TlsLevel.VERIFY, UPGRADES, tls=server_side(trustme.CA(), "mx0.test"), ca_file=ca_file)
    for outcomes, peer in (wrong_name, unknown):
        assert outcomes[0].result.value == "deferred"
        assert not peer.contents and not any(command.startswith("MAIL") for command in peer.commands)


def test_credentials_go_out_under_tls_and_never_after_a_fall_back(ca: trustme.CA, ca_file: str) -> None:
    who = Credentials("ann", "sesame")
    good = (
        OFFERS + "S: 220 go\n-- tls\nC: EHLO\nS: 250-peer\nS: 250 AUTH PLAIN LOGIN\nC: AUTH PLAIN\nS: 235 ok\n" + MAIL
    )
    outcomes, _ = deliver(TlsLevel.VERIFY, good, tls=server_side(ca, "mx0.test"), ca_file=ca_file, credentials=who)
    assert told(outcomes) == SENT
    # A man in the middle strips STARTTLS, or breaks the handshake: no log-in, no mail.
    stripped = HELLO + "S: 250 AUTH PLAIN\n"
    for scripts in ((stripped,), (OFFERS + "S: 220 go\n-- close", stripped)):
        outcomes, peer = deliver(TlsLevel.OPPORTUNISTIC, *scripts, credentials=who)
        assert outcomes[0].result.value == "deferred"
        assert not any("AUTH" in command or command.startswith("MAIL") for command in peer.commands)


def test_what_is_said_in_clear_text_behind_the_starttls_reply_is_not_believed(ca: trustme.CA) -> None:
    injected = OFFERS + "-- say 220 go\\r\\n250-evil\\r\\n250 AUTH PLAIN\\r\\n\n-- hang"
    outcomes, peer = deliver(TlsLevel.REQUIRE, injected, tls=server_side(ca, "mx0.test"))
    assert outcomes[0].result.value == "deferred" and "said more" in outcomes[0].text
    assert not peer.contents


def test_implicit_tls_begins_before_the_greeting(ca: trustme.CA, ca_file: str) -> None:
    script = "-- tls\n" + HELLO + "S: 250 HELP\n" + MAIL
    outcomes, _ = deliver(TlsLevel.VERIFY, script, tls=server_side(ca, "mx0.test"), ca_file=ca_file, implicit=True)
    assert told(outcomes) == SENT


def test_implicit_tls_without_tls_is_refused() -> None:
    """It was an assertion in the middle of a delivery, whose socket stayed open."""
    with pytest.raises(ValueError, match="implicit"):
        TlsPolicy(TlsLevel.NONE, implicit=True)
