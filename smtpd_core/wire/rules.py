"""Every move of the dialogue: verbs, the phases in which they are legal, and where an accepted one leads.

Rule 1: every move of the dialogue is in this file.
Rule 2: this file knows no sockets, users or policy.
HELP, the state diagram in docs/ and the test of all verbs in all phases are made from RULES.
Conditions of a command, in this order: known verb, gates, phase, syntax, policy (the verdict of the floor above).
Not here: syntax (commands.py), what EHLO announces (extensions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from smtpd_core.wire import replies
from smtpd_core.wire.replies import Reply


class Phase(IntEnum):
    """Where the dialogue is. Commands are read in CONNECTED to CHUNKS only."""

    GREETING = 0  # the greeting is due
    CONNECTED = 1  # greeted; no hello yet
    READY = 2  # hello said; no transaction
    SENDER = 3  # MAIL accepted
    RECIPIENTS = 4  # at least one RCPT accepted
    CHUNKS = 5  # between two BDAT chunks
    CONTENT = 6  # after DATA's 354, or inside a BDAT chunk
    LOGIN = 7  # in an AUTH exchange
    UPGRADE = 8  # STARTTLS accepted; the handshake is due
    ENDED = 9


class Gate(Enum):
    """What must hold before a verb is heard. Each is answered 530 5.7.0."""

    TLS_IF_REQUIRED = "STARTTLS first, where the listener requires TLS (RFC 3207 4)"
    LOGIN_IF_REQUIRED = "AUTH first, where the listener requires it (RFC 4954 6)"


SAME = None
"""As `then`: the phase stays."""

BACK = Phase.READY
"""As `then` of RSET: no transaction any more. Before a hello the phase stays CONNECTED."""

EVERYWHERE = frozenset({Phase.CONNECTED, Phase.READY, Phase.SENDER, Phase.RECIPIENTS, Phase.CHUNKS})
AFTER_HELLO = EVERYWHERE - {Phase.CONNECTED}
IN_TRANSACTION = frozenset({Phase.SENDER, Phase.RECIPIENTS, Phase.CHUNKS})
SMTP = frozenset({"mx", "submission"})
LMTP = frozenset({"lmtp"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One verb. `then` is the phase after accept; `ends_group`: a client waits for its reply (RFC 2920 3.1), so the
    output is flushed after it; `clears`: a transaction in progress is dropped."""

    verb: str
    legal: frozenset[Phase]
    then: Phase | None = SAME
    gates: tuple[Gate, ...] = ()
    ends_group: bool = False
    clears: bool = False
    services: frozenset[str] = SMTP | LMTP
    syntax: str = ""
    implemented: bool = True


TLS, LOGIN = Gate.TLS_IF_REQUIRED, Gate.LOGIN_IF_REQUIRED

RULES = (
    Rule("EHLO", EVERYWHERE, Phase.READY, ends_group=True, clears=True, services=SMTP, syntax="EHLO domain"),
    Rule("HELO", EVERYWHERE, Phase.READY, ends_group=True, clears=True, services=SMTP, syntax="HELO domain"),
    Rule("LHLO", EVERYWHERE, Phase.READY, ends_group=True, clears=True, services=LMTP, syntax="LHLO domain"),
    Rule("STARTTLS", frozenset({Phase.READY}), Phase.UPGRADE, ends_group=True, services=SMTP | LMTP, syntax="STARTTLS"),
    Rule(
        "AUTH",
        frozenset({Phase.READY}),
        gates=(TLS,),
        ends_group=True,
        syntax="AUTH mechanism [initial-response]",
    ),
    Rule(
        "MAIL",
        frozenset({Phase.READY}),
        Phase.SENDER,
        gates=(TLS, LOGIN),
        syntax="MAIL FROM:<address> [parameters]",
    ),
    Rule(
        "RCPT",
        frozenset({Phase.SENDER, Phase.RECIPIENTS}),
        Phase.RECIPIENTS,
        gates=(TLS, LOGIN),
        syntax="RCPT TO:<address> [parameters]",
    ),
    Rule("DATA", frozenset({Phase.RECIPIENTS}), Phase.CONTENT, gates=(TLS, LOGIN), ends_group=True, syntax="DATA"),
    Rule(
        "BDAT",
        frozenset({Phase.RECIPIENTS, Phase.CHUNKS}),
        Phase.CHUNKS,
        gates=(TLS, LOGIN),
        syntax="BDAT octets [LAST]",
    ),
    Rule("RSET", EVERYWHERE, BACK, clears=True, syntax="RSET"),
    Rule("NOOP", EVERYWHERE, ends_group=True, syntax="NOOP [text]"),
    Rule("QUIT", EVERYWHERE, Phase.ENDED, ends_group=True, clears=True, syntax="QUIT"),
    Rule("HELP", EVERYWHERE, ends_group=True, syntax="HELP [verb]"),
    Rule("VRFY", EVERYWHERE, gates=(TLS, LOGIN), ends_group=True, syntax="VRFY text"),
    Rule("EXPN", EVERYWHERE, gates=(TLS, LOGIN), ends_group=True, syntax="EXPN text"),
    Rule("ETRN", frozenset({Phase.READY}), gates=(TLS, LOGIN), ends_group=True, services=SMTP, syntax="ETRN node"),
    Rule(
        "XCLIENT",
        frozenset({Phase.CONNECTED, Phase.READY}),
        Phase.CONNECTED,
        ends_group=True,
        syntax="XCLIENT name=value ...",
    ),
    Rule("XFORWARD", frozenset({Phase.READY}), ends_group=True, syntax="XFORWARD name=value ..."),
    # Known, and answered 502 5.5.1: RFC 5321 appendix F.6 and RFC 2821 3.3 took them out of use.
    Rule("SEND", EVERYWHERE, ends_group=True, services=SMTP, implemented=False),
    Rule("SOML", EVERYWHERE, ends_group=True, services=SMTP, implemented=False),
    Rule("SAML", EVERYWHERE, ends_group=True, services=SMTP, implemented=False),
    Rule("TURN", EVERYWHERE, ends_group=True, services=SMTP, implemented=False),
)

# What does not fit the table:
# * RSET before a hello leaves CONNECTED as it is: there is nothing to go back to.
# * BDAT ... LAST and the end of DATA lead to READY, whatever the verdict: the transaction is over (RFC 5321 4.1.1.4).
# * A refused BDAT chunk leads to CHUNKS too: the chunks up to LAST are still to come (RFC 3030 2).
# * tls_is_up() leads from UPGRADE to CONNECTED: all that was said before is forgotten (RFC 3207 4.2).
# * AUTH's exchange is the phase LOGIN; its verdict leads back to READY.
# * BDAT in a phase where it is illegal is answered after its octets, which are never read as commands.

READS_COMMANDS = tuple(sorted(EVERYWHERE))


def out_of_order(rule: Rule, phase: Phase) -> Reply | None:
    """None where `rule` is legal in `phase`, else the 503 that names what is missing."""
    if phase in rule.legal:
        return None
    if phase is Phase.CONNECTED:
        return replies.say_hello_first_503
    return _MISSING.get((rule.verb, phase), replies.not_now_503)


_MISSING = {
    ("MAIL", Phase.SENDER): replies.sender_given_503,
    ("MAIL", Phase.RECIPIENTS): replies.sender_given_503,
    ("MAIL", Phase.CHUNKS): replies.sender_given_503,
    ("RCPT", Phase.READY): replies.sender_first_503,
    ("RCPT", Phase.CHUNKS): replies.chunks_under_way_503,
    ("DATA", Phase.READY): replies.sender_first_503,
    ("DATA", Phase.SENDER): replies.recipient_first_503,
    ("DATA", Phase.CHUNKS): replies.chunks_under_way_503,
    ("BDAT", Phase.READY): replies.sender_first_503,
    ("BDAT", Phase.SENDER): replies.recipient_first_503,
}
