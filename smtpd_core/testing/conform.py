"""What a server has to do by the RFCs, and must not let be done to it, tried one after the other on any server.

Thread: one at a time.
Not here: the rules (rules.py) and the attacks (attacks.py), the command line (app/cmd_conform.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smtpd_core.testing.attacks import ATTACKS
from smtpd_core.testing.probe import Broken, Probe, expect, offers
from smtpd_core.testing.rules import RULES, Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """`passed` is None where the server does not offer what the rule is about."""

    rule: str
    section: str
    passed: bool | None
    why: str = ""


def play(rule: Rule, host: str, port: int, sender: str, to: str) -> bool | None:
    """Try one rule. True, or None where it does not apply; Broken says what was wrong."""
    script = [line.strip() for line in rule.script.strip().splitlines()]
    with Probe(host, port) as probe:
        if not script[0].startswith("S:") and rule.needs != "no hello":
            if rule.needs and not offers(probe.hello(), rule.needs):
                return None
            if not rule.needs:
                probe.hello()
        elif rule.needs == "no hello":
            expect("220", probe.reply())
        for line in script:
            kind, _, text = line.partition(" ")
            text = text.replace("{to}", to).replace("{sender}", sender)
            if kind == "S:":
                expect(text, probe.reply())
            elif kind == "C:":
                probe.send(text.encode() + b"\r\n")
            else:
                probe.send(text.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1"))
    return True


def findings(host: str, port: int, sender: str, to: str) -> Iterator[Finding]:
    """Every rule and every attack, one after the other; without a banner the first rule only."""
    for rule in RULES:
        try:
            yield Finding(rule.name, rule.section, play(rule, host, port, sender, to))
        except (Broken, OSError) as why:
            yield Finding(rule.name, rule.section, False, str(why))
            if rule is RULES[0]:
                return  # no server is there, or none that says a word: all else would only wait as long
    for attack in ATTACKS:
        try:
            yield Finding(attack.name, attack.section, attack.run(host, port, sender, to))
        except (Broken, OSError) as why:
            yield Finding(attack.name, attack.section, False, str(why))
