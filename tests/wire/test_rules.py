"""Every verb in every phase, made from RULES: legal ones move as the table says, others are refused and stay."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.events import Waiting
from smtpd_core.wire.rules import AFTER_HELLO, EVERYWHERE, READS_COMMANDS, RULES, Gate, Phase, Rule, out_of_order
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol

ALL_OF_IT = {
    "hostname": "mx.test",
    "starttls": True,
    "mechanisms": ("PLAIN",),
    "clear_text_without_tls": True,
    "expn": True,
    "etrn": True,
}

WAY_TO = {
    Phase.CONNECTED: "",
    Phase.READY: "EHLO probe\r\n",
    Phase.SENDER: "EHLO probe\r\nMAIL FROM:<>\r\n",
    Phase.RECIPIENTS: "EHLO probe\r\nMAIL FROM:<>\r\nRCPT TO:<a@mx.test>\r\n",
    Phase.CHUNKS: "EHLO probe\r\nMAIL FROM:<>\r\nRCPT TO:<a@mx.test>\r\nBDAT 2\r\nxx",
}

GOOD = {
    "EHLO": "EHLO again",
    "HELO": "HELO again",
    "LHLO": "LHLO again",
    "AUTH": "AUTH PLAIN AHVzZXIAcGFzcw==",
    "MAIL": "MAIL FROM:<>",
    "RCPT": "RCPT TO:<b@mx.test>",
    "BDAT": "BDAT 0",
    "VRFY": "VRFY ann",
    "EXPN": "EXPN staff",
    "ETRN": "ETRN probe.test",
    "XCLIENT": "XCLIENT NAME=probe",
    "XFORWARD": "XFORWARD NAME=probe",
}


def service(rule: Rule) -> str:
    return "mx" if "mx" in rule.services else "lmtp"


def at(phase: Phase, rule: Rule, **changes: object) -> ServerProtocol:
    settings = ProtocolSettings(service=service(rule), **{**ALL_OF_IT, **changes})  # type: ignore[arg-type]
    protocol = ServerProtocol(settings)
    protocol.client_is_trusted = True
    way = WAY_TO[phase]
    feed(protocol, way.replace("EHLO", "LHLO") if settings.service == "lmtp" else way)
    assert protocol.phase is phase
    return protocol


def feed(protocol: ServerProtocol, text: str) -> str:
    protocol.receive(text.encode())
    while not isinstance(event := protocol.next_event(), Waiting):
        if isinstance(event, events.NeedSecret):
            protocol.supply("user")
        elif protocol.verdict is not None:
            protocol.accept()
    return protocol.take_output().decode()


@pytest.mark.parametrize("phase", READS_COMMANDS, ids=lambda phase: phase.name)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verb)
def test_each_verb_in_each_phase(rule: Rule, phase: Phase) -> None:
    protocol = at(phase, rule)
    said = feed(protocol, GOOD.get(rule.verb, rule.verb) + "\r\n")
    if not rule.implemented:
        assert said == "502 5.5.1 Command not implemented\r\n"
        assert protocol.phase is phase
    elif phase not in rule.legal:
        refusal = out_of_order(rule, phase)
        assert refusal is not None and refusal.code == 503
        assert said.encode() == refusal.wire
        assert protocol.phase is phase
    else:
        assert said[0] in "23"
        assert protocol.phase is expected(rule, phase)


def expected(rule: Rule, phase: Phase) -> Phase:
    """Where the table leads, with what stands under the table."""
    if rule.then is None or (rule.verb == "RSET" and phase is Phase.CONNECTED):
        return phase
    return rule.then


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.implemented], ids=lambda rule: rule.verb)
@pytest.mark.parametrize("gate", list(Gate), ids=lambda gate: gate.name)
def test_gates_come_before_order(rule: Rule, gate: Gate) -> None:
    """RFC 3207 4, RFC 4954 6: 530 for what waits behind TLS or a login, and only for that."""
    closed = {"tls_required": True} if gate is Gate.TLS_IF_REQUIRED else {"login_required": True}
    protocol = at(Phase.CONNECTED, rule, **closed)
    said = feed(protocol, GOOD.get(rule.verb, rule.verb) + "\r\n")
    assert (said[:3] == "530") is (gate in rule.gates)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verb)
def test_a_verb_of_another_service_is_unknown(rule: Rule) -> None:
    """RFC 2033 4.1: LMTP knows no HELO and no EHLO; SMTP knows no LHLO."""
    for other in {"mx", "lmtp"} - rule.services:
        protocol = ServerProtocol(ProtocolSettings(service=other, **ALL_OF_IT))  # type: ignore[arg-type]
        assert feed(protocol, f"{rule.verb} probe\r\n").splitlines()[-1] == "500 5.5.2 Unknown command"


def test_the_table_is_whole():
    """Every phase that reads commands has a way in and a way out; no verb is there twice."""
    assert len({rule.verb for rule in RULES}) == len(RULES)
    assert EVERYWHERE == set(READS_COMMANDS) == AFTER_HELLO | {Phase.CONNECTED}
    reached = {rule.then for rule in RULES}
    assert {Phase.READY, Phase.SENDER, Phase.RECIPIENTS, Phase.CHUNKS, Phase.CONTENT, Phase.ENDED} <= reached
