"""A fault as one line of text, for command lines and for addresses that say what goes wrong.

Thread: pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from smtpd_core.testing.fault import KEYS, Fault, unknown_stage


class Action(NamedTuple):
    """What goes wrong. `wants`: what its argument is, "" where it has none; `more`: whether words may follow that."""

    wants: str
    play: Callable[[Fault, list[str]], Fault]
    more: bool = False


_ACTIONS = {
    "reply": Action("a code", lambda fault, words: fault.reply(_number(words[0]), " ".join(words[1:])), more=True),
    "send": Action("text", lambda fault, words: fault.send(" ".join(words).encode() + b"\r\n"), more=True),
    "delay": Action("seconds", lambda fault, words: fault.delay(_seconds(words[0]))),
    "read-late": Action("seconds", lambda fault, words: fault.read_late(_seconds(words[0]))),
    "split": Action("", lambda fault, words: fault.split()),
    "cut": Action("a number of octets", lambda fault, words: fault.cut(_number(words[0]))),
    "close": Action("", lambda fault, words: fault.close()),
    "hang-up": Action("a number of octets", lambda fault, words: fault.hang_up(_number(words[0]))),
    "stall": Action("", lambda fault, words: fault.stall()),
    "drop": Action("the name of an extension", lambda fault, words: fault.drop(words[0])),
    "certificate": Action("the name of a certificate", lambda fault, words: fault.certificate(words[0])),
}


def parse(text: str) -> Fault:
    """STAGE [to=P] [sender=P] [user=P] [hello=P] ACTION [ARGUMENT...] [times=N] [after=N]

    Actions: reply CODE [TEXT], send TEXT, delay SECONDS, read-late SECONDS, split, cut OCTETS, close, hang-up OCTETS,
    stall, drop EXTENSION, certificate NAME. Raises ValueError that names the word and what would be right.
    """
    try:
        return _parse(shlex.split(text))
    except ValueError as error:
        reason = str(error)
        raise ValueError(f"fault {text!r}: {reason[:1].lower()}{reason[1:]}") from None


def _parse(words: list[str]) -> Fault:
    if len(words) < 2:
        raise ValueError("a stage and an action are due, as in 'RCPT to=*@full.test reply 452'")
    if why := unknown_stage(words[0]):
        raise ValueError(why)
    counts = {"times": 0, "after": 0}
    where: dict[str, str] = {}
    plain: list[str] = []
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if equals and key in KEYS:
            where[key] = value
        elif equals and key in counts:
            counts[key] = _number(value)
        else:
            plain.append(word)
    name, arguments = (plain or [""])[0], plain[1:]
    action = _ACTIONS.get(name)
    if action is None:
        raise ValueError(f"no action{f' {name!r}' if name else ''}; one of {', '.join(_ACTIONS)} is due")
    if action.wants and not arguments:
        raise ValueError(f"{name} needs {action.wants}")
    if not action.more and len(arguments) > bool(action.wants):
        raise ValueError(f"nothing is due after {' '.join(plain[: 1 + bool(action.wants)])}")
    return action.play(Fault(words[0].upper(), where, times=counts["times"], after=counts["after"]), arguments)


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise ValueError(f"a whole number is due, not {word!r}")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise ValueError(f"seconds are due, not {word!r}")
    return seconds
