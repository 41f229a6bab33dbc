"""What a server has to do by the RFCs, and must not let be done to it, tried one after the other on any server.

Thread: one at a time.
Not here: the rules (rules.py) and the attacks (attacks.py), the command line (app/cmd_conform.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from smtpd_core.testing.attacks import ATTACKS
from smtpd_core.testing.probe import Broken, Target, expect, offers
from smtpd_core.testing.rules import BEFORE_HELLO, RULES, Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """`passed` is None where the server does not offer what the rule is about."""

    rule: str
    section: str
    passed: bool | None
    why: str = ""


def play(rule: Rule, target: Target) -> bool | None:
    """Try one rule. True, or None where it does not apply; Broken says what was wrong."""
    script = [line.strip() for line in rule.script.strip().splitlines()]
    with target.probe() as probe:
        if rule.needs == BEFORE_HELLO:
            expect("220", probe.reply())
        elif not script[0].startswith("S:"):
            keywords = probe.hello()
            if rule.needs and not offers(keywords, rule.needs):
                return None
            if rule.needs == "AUTH" and target.credentials is not None:
                return None  # who has logged in can't again (RFC 4954 4)
        for line in script:
            kind, _, text = line.partition(" ")
            text = target.filled(text)
            if kind == "S:":
                expect(text, probe.reply())
            elif kind == "C:":
                probe.send(text.encode() + b"\r\n")
            elif kind == "TLS":
                probe.start_tls()
            else:
                probe.send(text.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1"))
    return True


def findings(target: Target) -> Iterator[Finding]:
    """Every rule and every attack, one after the other; without a banner the first rule only."""
    for rule in RULES:
        found = _finding(rule.name, rule.section, partial(play, rule, target))
        yield found
        if rule is RULES[0] and not found.passed:
            return  # no server is there, or none that says a word: all else would only wait as long
    for attack in ATTACKS:
        yield _finding(attack.name, attack.section, partial(attack.run, target))


def _finding(name: str, section: str, attempt: Callable[[], bool | None]) -> Finding:
    try:
        return Finding(name, section, attempt())
    except (Broken, OSError) as why:
        return Finding(name, section, False, str(why))
