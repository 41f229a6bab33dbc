"""Play the client's side of a transcript against a server, and compare the codes of its replies.

A transcript is what the debug log, `smtpd.transcript` or the tests write: lines with "C: " and "S: ", anything before
those ignored. Content is not recorded: "-- content N octets" is played as N octets of text.
Thread: one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from smtpd_core.testing.conform import Probe

_LINE = re.compile(r"(?:^|\s)(?:(C|S): ?(.*)|-- content (\d+) octets)$")
_MASKED = "****"


@dataclass(frozen=True, slots=True)
class Step:
    """What to send, and the codes of the replies that were recorded after it."""

    words: bytes
    shown: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    step: Step
    codes: tuple[str, ...]


def steps(lines: Iterable[str]) -> list[Step]:
    """The client's side. Raises ValueError where a line was masked: a secret can't be played."""
    found: list[Step] = []
    words, shown, codes = b"", "(connect)", []  # type: bytes, str, list[str]
    for number, line in enumerate(lines, 1):
        match = _LINE.search(line.rstrip())
        if match is None:
            continue
        side, text, octets = match.groups()
        if side == "S":
            if text[3:4] != "-":
                codes.append(text[:3])
            continue
        if side == "C" and _MASKED in text:
            raise ValueError(f"line {number}: {text!r} is masked; a login can't be replayed")
        found.append(Step(words, shown, tuple(codes)))
        codes = []
        if side == "C":
            words, shown = text.encode() + b"\r\n", text
        else:
            words, shown = _content(int(octets)), f"(content, {octets} octets)"
    found.append(Step(words, shown, tuple(codes)))
    return found


def replay(script: list[Step], host: str, port: int) -> Iterator[Difference | Step]:
    """Each step as it went: itself where the codes are the same, else the difference."""
    with Probe(host, port) as probe:
        for step in script:
            probe.send(step.words)
            codes = []
            for _ in step.codes:
                lines = probe.reply()
                if not lines:
                    codes.append("closed")
                    break
                codes.append(lines[-1][:3])
            yield step if tuple(codes) == step.codes else Difference(step, tuple(codes))
            if "closed" in codes:
                return


def _content(octets: int) -> bytes:
    text = b"Subject: replayed\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    while len(text) < octets:
        text += line
    return text + b".\r\n"
