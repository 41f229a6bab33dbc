"""One step per verb: its argument by the grammar, then an event for the floor above, or the reply at once.

A step returns the event whose verdict it awaits (the verdict's two outcomes stand beside it), or None where the core
has answered. Order and gates were judged before (rules.py). Mistakes of the peer are replies, never exceptions.
Not here: MAIL, RCPT, DATA (transaction.py), BDAT (chunks.py), AUTH (login.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from smtpd_core.wire import events, replies
from smtpd_core.wire.address import DOMAIN, is_domain, is_hello
from smtpd_core.wire.chunks import bdat
from smtpd_core.wire.events import Event, Waiting
from smtpd_core.wire.login import auth
from smtpd_core.wire.parameters import decode_xtext, is_printable
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Phase
from smtpd_core.wire.transaction import data, mail, rcpt
from smtpd_core.wire.verdict import Verdict, refused

if TYPE_CHECKING:
    from smtpd_core.wire.command_table import CustomVerb
    from smtpd_core.wire.server import ServerProtocol

    Step = Callable[[ServerProtocol, str], Event | Waiting | None]

_ATTRIBUTE = re.compile(r"([A-Za-z]{1,16})=(.+)\Z")
_ETRN = re.compile(rf"[@#]?{DOMAIN}\Z|#[A-Za-z0-9_.-]+\Z")

# What XCLIENT and XFORWARD may carry (Postfix's XCLIENT_README and XFORWARD_README).
_XCLIENT_NAMES = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"})
_XFORWARD_NAMES = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"})


def _is_address(value: str) -> bool:
    try:
        ip_address(value[5:] if value[:5].upper() == "IPV6:" else value)
    except ValueError:
        return False
    return "%" not in value


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 5 and int(value) < 65_536


# What a value must be to go into a session's facts; the others must be printable.
_FITS = {"ADDR": _is_address, "DESTADDR": _is_address, "PORT": _is_port, "DESTPORT": _is_port}


# EHLO, HELO, LHLO


def _hello(verb: str) -> Step:
    def step(p: ServerProtocol, argument: str) -> Event | None:
        if not is_hello(argument):
            return p.complain(replies.hello_syntax_501)
        p.pending = (verb, argument)
        p.verdict = _HELLO
        return events.Hello(verb, argument)

    return step


def _hello_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    verb, p.hello = p.pending
    p.esmtp = verb != "HELO"
    p.forget_transaction()
    p.phase = Phase.READY
    if not p.esmtp:
        p.say(reply or Reply(250, "", p.settings.hostname))
        return
    offer = p.settings.hello_replies[p.standing()]
    if reply is not None:  # the handler's text greets, the extensions follow
        _, _, lines = offer.text.partition("\n")
        greeting = " ".join(reply.text.split())[:400]  # in one line: a second one would be read as an extension
        offer = Reply(250, "", f"{greeting or p.settings.hostname}\n{lines}")
    p.say(offer)


_HELLO = Verdict(_hello_accepted, refused(replies.refused_550))


# RSET, NOOP, QUIT, HELP and the verbs that are known but not served


def rset(p: ServerProtocol, argument: str) -> Event | None:
    if argument:
        return p.complain(replies.no_argument_501)
    p.forget_transaction()
    p.say(replies.ok_250)
    return p.take_notice()


def noop(p: ServerProtocol, argument: str) -> Event | None:
    p.say(replies.ok_250)
    return None


def quit(p: ServerProtocol, argument: str) -> Event | None:
    if argument:
        return p.complain(replies.no_argument_501)
    p.say_and_end(replies.closing_221)
    return None


def help(p: ServerProtocol, argument: str) -> Event | None:
    if not argument:
        p.say(p.settings.help_reply)
        return None
    command = p.settings.table.get(argument.upper()) if argument.isascii() else None
    if command is None or not command.listed:
        p.say(replies.no_such_help_504)
    else:
        p.say(Reply(214, "2.0.0", command.syntax or command.verb))
    return None


def not_implemented(p: ServerProtocol, argument: str) -> Event | None:
    return p.complain(replies.not_implemented_502)


# VRFY, EXPN, ETRN


def vrfy(p: ServerProtocol, argument: str) -> Event | None:
    if not argument:
        return p.complain(replies.argument_missing_501)
    p.verdict = _VRFY
    return events.Verify(_without_utf8(argument))


def expn(p: ServerProtocol, argument: str) -> Event | None:
    if not p.settings.expn:
        return p.complain(replies.not_implemented_502)
    if not argument:
        return p.complain(replies.argument_missing_501)
    p.verdict = _EXPN
    return events.Expand(_without_utf8(argument))


def _without_utf8(argument: str) -> str:
    """RFC 6531 3.7.4.2: VRFY and EXPN may end in the parameter SMTPUTF8."""
    head, space, last = argument.rpartition(" ")
    return head.rstrip() if space and last.upper() == "SMTPUTF8" else argument


def etrn(p: ServerProtocol, argument: str) -> Event | None:
    """RFC 1985 4: a node name, "@" before a domain with its subdomains, "#" before a queue's name."""
    if not p.settings.etrn:
        return p.complain(replies.not_implemented_502)
    name = argument.lstrip("@#")
    if not _ETRN.match(argument) or not (argument.startswith("#") or is_domain(name)):
        return p.complain(replies.etrn_syntax_501)
    p.verdict = _ETRN_VERDICT
    return events.Etrn(argument)


def _says(default: Reply) -> Callable[[ServerProtocol, Reply | None, Sequence[Reply] | None], None]:
    def accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
        p.say(reply or default)

    return accepted


_VRFY = Verdict(_says(replies.not_verified_252), refused(replies.no_such_recipient_550))
_EXPN = Verdict(_says(replies.not_verified_252), refused(replies.no_such_recipient_550))
_ETRN_VERDICT = Verdict(_says(replies.queueing_started_250), refused(replies.node_not_allowed_459))


# STARTTLS


def starttls(p: ServerProtocol, argument: str) -> Event | None:
    # 1 on already, 2 not offered, 3 with an argument, 4 with plaintext behind it
    if p.tls_is_on:
        return p.complain(replies.tls_is_on_503)
    if not p.settings.starttls:
        return p.complain(replies.not_implemented_502)
    if argument:
        return p.complain(replies.no_argument_501)
    if p.has_input:
        p.say_and_end(replies.plaintext_behind_starttls_554)
        return None
    p.verdict = _STARTTLS
    return events.StartTls()


def _starttls_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    if p.has_input:
        p.say_and_end(replies.plaintext_behind_starttls_554)
        return
    p.say(reply or replies.start_tls_220)
    p.begin_upgrade()


_STARTTLS = Verdict(_starttls_accepted, refused(replies.tls_unavailable_454))


# XCLIENT, XFORWARD


def _client_facts(verb: str, known: frozenset[str]) -> Step:
    def step(p: ServerProtocol, argument: str) -> Event | None:
        if not p.client_is_trusted:
            return p.complain(replies.not_permitted_550)
        attributes: dict[str, str] = {}
        for word in argument.split(" "):
            if not word:
                continue
            match = _ATTRIBUTE.match(word)
            value = decode_xtext(match[2]) if match else None
            if match is None or value is None or match[1].upper() not in known:
                return p.complain(replies.bad_parameter_501)
            name = match[1].upper()
            value = "" if value.upper() in ("[UNAVAILABLE]", "[TEMPUNAVAIL]") else value
            if value and not _FITS.get(name, is_printable)(value):
                return p.complain(replies.bad_parameter_501)
            attributes[name] = value
        if not attributes:
            return p.complain(replies.argument_missing_501)
        p.pending = attributes
        p.verdict = _XCLIENT if verb == "XCLIENT" else _XFORWARD
        return events.ClientFacts(verb, attributes)

    return step


def _xclient_accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
    """The session starts over, with the greeting (XCLIENT_README): what was said before is forgotten."""
    attributes = p.pending
    p.forget_session()
    hello = attributes.get("HELO", "")
    p.hello = hello if is_hello(hello) else ""  # it goes into the trace: what is no name there is left out
    p.identity = attributes.get("LOGIN", "")
    p.say(reply or p.settings.greeting)


_XCLIENT = Verdict(_xclient_accepted, refused(replies.not_permitted_550))
_XFORWARD = Verdict(_says(replies.ok_250), refused(replies.not_permitted_550))


# Verbs of the embedding program


def custom_step(custom: CustomVerb, inner: Step | None) -> Step:
    """The step of a custom verb; with `inner` the built-in step follows an accept()."""

    def accepted(p: ServerProtocol, reply: Reply | None, several: Sequence[Reply] | None) -> None:
        if inner is None:
            p.say(reply or custom.reply)
        else:
            p.go_on_with(inner, p.pending)

    verdict = Verdict(accepted, refused(replies.refused_550))

    def step(p: ServerProtocol, argument: str) -> Event | None:
        p.pending = argument
        p.verdict = verdict
        return events.CustomCommand(custom.verb, argument)

    return step


STEPS: dict[str, Step] = {
    "EHLO": _hello("EHLO"),
    "HELO": _hello("HELO"),
    "LHLO": _hello("LHLO"),
    "STARTTLS": starttls,
    "AUTH": auth,
    "MAIL": mail,
    "RCPT": rcpt,
    "DATA": data,
    "BDAT": bdat,
    "RSET": rset,
    "NOOP": noop,
    "QUIT": quit,
    "HELP": help,
    "VRFY": vrfy,
    "EXPN": expn,
    "ETRN": etrn,
    "XCLIENT": _client_facts("XCLIENT", _XCLIENT_NAMES),
    "XFORWARD": _client_facts("XFORWARD", _XFORWARD_NAMES),
    "TURN": not_implemented,
}
