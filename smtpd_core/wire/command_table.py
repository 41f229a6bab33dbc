"""The commands of one listener, made from the rules: what is looked up for each command line, worked out beforehand.

An embedding program adds, replaces, wraps or removes a verb with a CustomVerb row; its commands come up as the event
CustomCommand. Nothing from the network chooses anything but a key of this table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpd_core.wire import replies
from smtpd_core.wire.chunks import bdat_not_served
from smtpd_core.wire.commands import STEPS, custom_step
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import EVERYWHERE, READS_COMMANDS, RULES, Gate, Phase, Rule, out_of_order

if TYPE_CHECKING:
    from smtpd_core.wire.events import Event, Waiting
    from smtpd_core.wire.server import ServerProtocol
    from smtpd_core.wire.settings import ProtocolSettings

Step = Callable[["ServerProtocol", str], "Event | Waiting | None"]

_VERB = re.compile(r"[A-Z][A-Z0-9-]{0,31}\Z")
HOW = ("add", "replace", "wrap", "remove")

# BDAT judges order and gates by itself, since its octets must be consumed whatever the verdict.
_JUDGES_ITSELF = frozenset({"BDAT"})

# Extensions whose verbs go with them when a listener drops the extension.
_VERB_OF = {"CHUNKING": "BDAT", "ETRN": "ETRN", "EXPN": "EXPN", "STARTTLS": "STARTTLS", "AUTH": "AUTH"}


@dataclass(frozen=True, slots=True)
class CustomVerb:
    """A row of the embedding program.

    `how`: "add" a verb that is not there; "replace" one (the event comes instead of the built-in step); "wrap" one (the
    event comes first; accept() goes on to the built-in step, refuse() ends it there); "remove" one (502 5.5.1).
    `legal` and `gates` are for add and replace; wrap and remove keep what the table says.
    """

    verb: str
    how: str = "add"
    legal: frozenset[Phase] = EVERYWHERE
    gates: tuple[Gate, ...] = ()
    reply: Reply = field(default_factory=lambda: replies.ok_250)

    def __post_init__(self) -> None:
        if not _VERB.match(self.verb):
            raise ValueError(f"verb {self.verb!r}: upper-case letters, digits and '-' are due, a letter first")
        if self.how not in HOW:
            raise ValueError(f"verb {self.verb}: how is one of {', '.join(HOW)}, not {self.how!r}")
        if not self.legal <= EVERYWHERE:
            raise ValueError(f"verb {self.verb}: legal only in phases that read commands")


class Command:
    """One verb of one listener. `refusals` has the reply for each phase, None where the verb is legal."""

    __slots__ = ("custom", "listed", "needs_login", "needs_tls", "refusals", "step", "syntax", "verb")

    def __init__(self, rule: Rule, step: Step, settings: ProtocolSettings, *, custom: CustomVerb | None = None) -> None:
        judges_itself = rule.verb in _JUDGES_ITSELF and custom is None
        self.verb = rule.verb
        self.step = step
        self.syntax = rule.syntax
        self.custom = custom
        self.listed = rule.implemented
        self.needs_tls = settings.tls_required and Gate.TLS_IF_REQUIRED in rule.gates and not judges_itself
        self.needs_login = settings.login_required and Gate.LOGIN_IF_REQUIRED in rule.gates and not judges_itself
        self.refusals: tuple[Reply | None, ...] = tuple(
            None if judges_itself or phase not in READS_COMMANDS or not rule.implemented else out_of_order(rule, phase)
            for phase in Phase
        )


def command_table(settings: ProtocolSettings) -> dict[str, Command]:
    """The verbs that this listener knows. Raises ValueError for a custom verb that can't be placed."""
    offered = {row.keyword for row in settings.extensions}
    table = {}
    for rule in RULES:
        if settings.service not in rule.services:
            continue
        dropped = any(rule.verb == verb and extension not in offered for extension, verb in _VERB_OF.items())
        step = STEPS[rule.verb] if rule.implemented and not dropped else _not_served(rule.verb)
        command = Command(rule, step, settings)
        command.listed = rule.implemented and not dropped and rule.verb not in ("XCLIENT", "XFORWARD")
        if rule.verb in ("EXPN", "ETRN", "STARTTLS"):
            command.listed = command.listed and getattr(settings, rule.verb.lower())
        table[rule.verb] = command
    for custom in settings.commands:
        _place(custom, table, settings)
    return table


def _not_served(verb: str) -> Step:
    return bdat_not_served if verb == "BDAT" else STEPS["TURN"]


def _place(custom: CustomVerb, table: dict[str, Command], settings: ProtocolSettings) -> None:
    verb = custom.verb
    if custom.how == "add" and verb in table:
        raise ValueError(f"verb {verb}: it is there already; replace or wrap it")
    if custom.how != "add" and verb not in table:
        raise ValueError(f"verb {verb}: there is none to {custom.how}")
    if verb in ("DATA", "STARTTLS", "AUTH", "QUIT") and custom.how == "replace":
        raise ValueError(f"verb {verb}: it changes what is read next and can't be replaced; wrap it")
    if custom.how == "remove":
        table[verb] = Command(Rule(verb, EVERYWHERE, implemented=False), _not_served(verb), settings)
    elif verb == "BDAT":
        raise ValueError("verb BDAT: its octets follow at once, so it can only be removed")
    elif custom.how == "wrap":
        command = table[verb]
        wrapped = Command(_rule(verb), custom_step(custom, command.step), settings)
        wrapped.refusals, wrapped.listed = command.refusals, command.listed
        table[verb] = wrapped
    else:
        rule = Rule(verb, custom.legal, gates=custom.gates, syntax=f"{verb} [text]")
        table[verb] = Command(rule, custom_step(custom, None), settings, custom=custom)


def _rule(verb: str) -> Rule:
    found = [rule for rule in RULES if rule.verb == verb]
    return found[0] if found else Rule(verb, EVERYWHERE, syntax=f"{verb} [text]")


def help_text(settings: ProtocolSettings) -> str:
    """HELP: the verbs of this listener."""
    verbs = sorted(command.verb for command in settings.table.values() if command.listed)
    lines = ["Commands:"]
    lines += ["  " + " ".join(verbs[at : at + 8]) for at in range(0, len(verbs), 8)]
    lines.append("HELP verb says more")
    return "\n".join(lines + settings.help_text.splitlines())
