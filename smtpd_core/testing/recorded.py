"""Sessions as they were recorded, read for playing them again: what the client said, and how the server answered.

A transcript is what smtpd.transcript, a failed test's report, the debug log or `send --verbose` show: lines with "C: "
and "S: ", whatever stands before those. Sessions of a debug log are told apart by their ids, others by their
"-- connect". Content is not recorded: "-- content N octets" becomes N octets of text, and what a client's own record
leaves out becomes a short one.
Not here: playing (replay.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

_LINE = re.compile(r"(?:^|\s)(?:(?P<side>[CS]): ?(?P<text>.*)|-- (?P<note>connect|tls|content)\b ?(?P<more>.*))$")
_SESSION = re.compile(r"\bs-[0-9A-Za-z-]+")
_CHUNK = re.compile(r"BDAT +(\d{1,9})(?: |$)", re.IGNORECASE)
_MASKED = "****"

# How a content was noted.
_CONTENT = re.compile(r"(\d{1,12}) octets\b", re.ASCII)

# Octets of a content of which nothing was recorded.
_UNKNOWN = 40

# A content is made in memory; a file that asks for more is wrong, or means harm.
MAX_CONTENT = 256 * 1024 * 1024

# Mechanisms that can be played with a name and a password; channel binding is left out.
_BY_PASSWORD = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")


@dataclass(frozen=True, slots=True)
class Step:
    """What to send, and the last lines of the replies that were recorded after it.

    `mechanism`: a log-in whose words were masked. `is_content`: only after a 354.
    """

    shown: str
    octets: bytes = b""
    replies: tuple[str, ...] = ()
    mechanism: str = ""
    is_content: bool = False

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(one[:3] for one in self.replies)

    @property
    def is_starttls(self) -> bool:
        return self.shown.upper() == "STARTTLS"


@dataclass(slots=True)
class Recorded:
    """One session. `name` is its id, where it had one."""

    name: str = ""
    implicit_tls: bool = False
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Said:
    """One line: of the client or the server, or "=" for content. `number` is that of the line."""

    number: int
    side: str
    text: str


def recorded(lines: Iterable[str]) -> list[Recorded]:
    """The sessions in their order. ValueError names a line that can't be played, or says that there is none."""
    sessions: dict[str, list[_Said]] = {}
    implicit: set[str] = set()
    name, count = "", 0
    for number, line in enumerate(lines, 1):
        match = _LINE.search(line.rstrip("\r\n"))
        if match is None:
            continue
        said, note = match["side"], match["note"]
        id = _SESSION.search(line[: match.start()])
        if id is not None:
            name = id[0]
        elif note == "connect":
            count += 1
            name = f"session {count}"
        lines_of = sessions.setdefault(name, [])
        if note == "tls" and not lines_of:
            implicit.add(name)
        elif note == "content" and not _is_of_chunk(lines_of):
            lines_of.append(_Said(number, "=", match["more"]))
        elif said:
            lines_of.append(_Said(number, said, match["text"]))
    found = [Recorded(name, name in implicit, list(_steps(said))) for name, said in sessions.items() if said]
    if not found:
        raise ValueError('no line with "C: " or "S: ": this is no transcript')
    return found


def _is_of_chunk(said: list[_Said]) -> bool:
    """Whether the content that ends here came by BDAT, whose octets go with the command."""
    return bool(said) and said[-1].side == "C" and _CHUNK.match(said[-1].text) is not None


def _steps(said: list[_Said]) -> Iterator[Step]:
    at = 0
    shown, octets, mechanism, is_content = "(connect)", b"", "", False
    while True:
        end = at
        while end < len(said) and said[end].side == "S":
            end += 1
        replies = tuple(one.text for one in said[at:end] if one.text[3:4] != "-")
        if mechanism:
            replies = tuple(one for one in replies if not one.startswith("334"))
        yield from _with_content(Step(shown, octets, replies, mechanism, is_content))
        if end == len(said):
            return
        line = said[end]
        at, mechanism, is_content = end + 1, "", False
        login = _login(said, end) if line.side == "C" else None
        if login is not None:
            mechanism, at = login
            shown, octets = f"AUTH {mechanism}", b""
        elif line.side == "=":
            count = _count(line, _CONTENT.match(line.text))
            shown, octets, is_content = f"(content, {count} octets)", _text(count, whole_lines=True) + b".\r\n", True
        elif _MASKED in line.text:
            raise ValueError(f"line {line.number}: {line.text!r} is masked, and no log-in; it can't be played")
        else:
            chunk = _CHUNK.match(line.text)
            shown = line.text
            octets = line.text.encode() + b"\r\n" + (_text(_count(line, chunk)) if chunk else b"")


def _count(line: _Said, octets: re.Match[str] | None) -> int:
    """The octets of a content. ValueError where they are no number, or too many."""
    if octets is None:
        raise ValueError(f"line {line.number}: '-- content {line.text}': a number of octets is due")
    if int(octets[1]) > MAX_CONTENT:
        raise ValueError(f"line {line.number}: {octets[1]} octets of content; at most {MAX_CONTENT} can be played")
    return int(octets[1])


def _with_content(step: Step) -> Iterator[Step]:
    """The step; where replies came behind a 354 the client, whose own record this is, had sent content."""
    at = next((n for n, one in enumerate(step.replies[:-1], 1) if one.startswith("354")), 0)
    if not at:
        yield step
        return
    yield replace(step, replies=step.replies[:at])
    yield Step("(content, not recorded)", _text(_UNKNOWN) + b".\r\n", step.replies[at:], is_content=True)


def _login(said: list[_Said], at: int) -> tuple[str, int] | None:
    """The mechanism of a masked log-in that begins here, and the line of its last reply."""
    words = said[at].text.split()
    if len(words) < 2 or words[0].upper() != "AUTH":
        return None
    end = at + 1
    while end < len(said) and not (said[end].side == "S" and not said[end].text.startswith("334")):
        if said[end].side == "C" and not said[end - 1].text.startswith("334"):
            break  # the server never answered
        end += 1
    if not any(one.side == "C" and _MASKED in one.text for one in said[at:end]):
        return None
    name = words[1].upper().removesuffix("-PLUS")
    if name not in _BY_PASSWORD:
        raise ValueError(
            f"line {said[at].number}: a log-in by {name} can't be played; one of {', '.join(_BY_PASSWORD)} can"
        )
    return name, end


def _text(count: int, *, whole_lines: bool = False) -> bytes:
    """So many octets of text in short lines, with a subject where it fits; with `whole_lines` a last CRLF too."""
    subject = b"Subject: replayed\r\n\r\n" if count >= 23 else b""
    full, rest = divmod(count - len(subject), 72)
    text = subject + (b"x" * 70 + b"\r\n") * full
    if rest > 1:
        return text + b"x" * (rest - 2) + b"\r\n"
    if rest and full:
        return text[:-2] + b"x\r\n"
    return text + b"x" * (rest if not whole_lines else 0)
