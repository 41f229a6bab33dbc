"""Lines of commands and of AUTH's responses: only CRLF ends one, and each has its limit.

A line with a NUL, a bare CR or a bare LF, or over its limit, is answered at once, and the rest up to CRLF is dropped.
What comes first in the order of octets decides, so that every split of the bytes is answered alike.
A line that comes in small pieces is searched only where it is new. A line that can't be read but may be a BDAT ends the
dialogue: its octets would be taken for commands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from smtpd_core.wire import login, replies
from smtpd_core.wire.events import NEED_BYTES, Event, Waiting
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Phase

if TYPE_CHECKING:
    from smtpd_core.wire.server import ServerProtocol

MAX_SASL = 16_384

_BAD = re.compile(rb"\x00|\r(?=[^\n])|\n(?<!\r\n)")
_LF = re.compile(rb"\n")
# RFC 4422 3.1, in one case: base64 has both.
_NAMES_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}\Z|[a-z0-9_-]{1,20}\Z").match
_AUTH = re.compile(rb"AUTH ", re.IGNORECASE)
_MAY_BE_BDAT = re.compile(rb"[\t ]*BDAT(?![A-Za-z0-9-])", re.IGNORECASE).match
_HTTP = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI"})


def read_command(p: ServerProtocol) -> Event | Waiting | None:
    """One command line: looked up, judged by order and gates, then its step."""
    data, at = p._data, p._at
    end = data.find(b"\n", p._scanned)
    if at == len(data) and not p._later:  # the usual end of a turn
        p._data = b""
        p._at = p._scanned = 0
        return NEED_BYTES
    if end <= 0 or data.find(b"\r", at, end) != end - 1 or end - at >= p.settings.max_command_line:
        line = _odd_line(p, p.settings.max_command_line)
        if not isinstance(line, bytes):
            return line
    else:
        line = data[at : end - 1]
        p._at = p._scanned = end + 1
        if b"\0" in line:
            return _no_text(p, line[: line.index(b"\0") + 1], replies.bad_line_500)  # as where it comes in pieces
    try:
        text = str(line, "utf-8")
    except UnicodeDecodeError:
        return _no_text(p, line, replies.not_text_500)
    verb, _, argument = text.partition(" ")
    command = p.table.get(verb)
    if command is None:
        verb = verb.upper() if verb.isascii() else ""
        command = p.table.get(verb.rstrip())
        if command is None:
            return _unknown(p, verb, text)
    if argument[-1:] in (" ", "\t"):  # RFC 5321 4.1.1: trailing white space is tolerated
        argument = argument.rstrip(" \t")
    if p.observer is not None:
        p.observer.command(_masked(p, command.verb, text))
    if command.needs_tls and not p.tls_is_on:
        return p.complain(replies.tls_required_530)
    if command.needs_login and not p.identity:
        return p.complain(replies.login_required_530)
    refusal = command.refusals[p.phase]
    if refusal is not None:
        return p.complain(refusal)
    return command.step(p, argument)


def _masked(p: ServerProtocol, verb: str, text: str) -> str:
    """AUTH's initial response is a secret, and what no command is behind it may well be one; so is what stands in the
    place of a mechanism and is no name of one."""
    p.secret_may_follow = verb == "AUTH"
    if verb != "AUTH":
        return text
    words = text.split(" ", 2)
    shown = words[:2] if _NAMES_MECHANISM("".join(words[1:2])) else words[:1]
    return " ".join(shown if len(shown) == len(words) else [*shown, "****"])


def _unknown(p: ServerProtocol, verb: str, text: str) -> Event | None:
    if p.observer is not None:
        # A client that was refused AUTH, or gave it up, may still send its responses, as lines that are no command.
        looks_like_auth = text.lstrip()[:4].upper() == "AUTH"
        p.observer.command("AUTH ****" if looks_like_auth else "****" if p.secret_may_follow else text)
    if verb in _HTTP:
        p.say_and_end(replies.not_http_421)
        return None
    return _unreadable(p, text[:200].encode(), replies.unknown_command_500)


def _no_text(p: ServerProtocol, line: bytes, reply: Reply) -> Event | None:
    if p.observer is not None:
        p.observer.command("(a line that is none)")
    return _unreadable(p, line, reply)


def _unreadable(p: ServerProtocol, line: bytes, reply: Reply) -> Event | None:
    if _MAY_BE_BDAT(line):
        p.say_and_end(reply)
        return None
    return p.complain(reply)


def read_response(p: ServerProtocol) -> bytes | Event | Waiting | None:
    """One line of an AUTH exchange, without its CRLF; or what happened instead."""
    line = _odd_line(p, MAX_SASL)
    if isinstance(line, bytes):
        p.forget_what_was_read()
        if p.observer is not None:
            p.observer.command("****")
    return line


def _odd_line(p: ServerProtocol, limit: int) -> bytes | Event | Waiting | None:
    """The slow path: lines in pieces, bad lines, long lines. The line without its CRLF, or what happened instead."""
    if p._later:
        p._data = p._data[p._at :] + b"".join(p._later)
        p._later.clear()
        p._scanned -= p._at
        p._at = 0
    data, at = p._data, p._at
    # The pattern looks back by one octet; at the start of a line that octet is not the line's.
    bad = _LF.match(data, at) if p._scanned == at else None
    bad = bad or _BAD.search(data, p._scanned)
    end = data.find(b"\r\n", p._scanned)
    stop = bad.start() if bad else len(data)
    if 0 <= end < stop:
        stop = end + 2
    if stop - at > limit and _AUTH.match(data, at):
        limit = MAX_SASL
    # 1 over the limit, 2 bad octets, 3 whole, 4 not whole yet
    if stop - at > limit:
        p._at = p._scanned = at + limit
        return _drop(p, data[at : at + 200], too_long=True)
    if bad and (end < 0 or bad.start() < end):
        p._at = p._scanned = bad.end()
        return _drop(p, data[at : bad.end()], too_long=False)
    if end >= 0:
        p._at = p._scanned = end + 2
        return data[at:end]
    if at:
        p._data = data = data[at:]
        p._at = 0
    p._scanned = len(data) - (data[-1:] == b"\r")
    return NEED_BYTES


def _drop(p: ServerProtocol, line: bytes, *, too_long: bool) -> Event | Waiting | None:
    """Answer now; what follows up to CRLF is not looked at."""
    in_login = p.phase is Phase.LOGIN
    p.reading = _dropping
    if p.observer is not None:
        p.observer.command("****" if in_login else "(a line that is none)")
    if in_login:
        found = login.too_long(p) if too_long else login.bad_line(p)
    else:
        found = _unreadable(p, line, replies.line_too_long_500 if too_long else replies.bad_line_500)
    if p.phase is not Phase.ENDED:
        p.reading = _dropping
    return found


def _dropping(p: ServerProtocol) -> Waiting | None:
    if p._later:
        p._data = p._data[p._at :] + b"".join(p._later)
        p._later.clear()
        p._at = 0
    end = p._data.find(b"\r\n", p._at)
    if end >= 0:
        p._at = p._scanned = end + 2
        p.read_commands()
        return None
    # A CR at the end may be the first half.
    p._data = b"\r" if p._data[-1:] == b"\r" and p._at < len(p._data) else b""
    p._at = p._scanned = 0
    return NEED_BYTES
