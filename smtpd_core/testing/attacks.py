"""What a server must not let be done to it: smuggled ends of content, commands injected before TLS, floods, dribbles.

Each attack has connections of its own and is as small as it can be: it looks for an answer that should not be there, or
for one that is missing.
Thread: one at a time.
Not here: rules that a short dialogue can say (rules.py).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from smtpd_core.testing.probe import Broken, Probe, Target, expect, offers

# Ends of content that are none. RFC 5321 2.3.8 and 4.1.1.4: only CRLF.CRLF is.
SPELLINGS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "CRLF.CR": b"\r\n.\r",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
    "CRLF . NUL CRLF": b"\r\n.\0\r\n",
    "CRLF . space CRLF": b"\r\n. \r\n",
}

# Clients that say nothing, or half a command, while another wants to be served.
_CROWD = 30

# A limit of content over which is not worth sending to see whether it is kept.
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Attack:
    """`run` is True where the server withstood, None where it does not offer the target; Broken where it fell."""

    name: str
    section: str
    run: Callable[[Target], bool | None]


def smuggle(spelling: bytes, pieces: bool, target: Target) -> bool:
    """Content with a false end and a second transaction behind it: there may be one reply, not more."""
    with target.probe() as probe:
        _open_content(probe)
        inner = target.filled("MAIL FROM:<smuggled@probe.test>\r\nRCPT TO:<{to}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx")
        words = b"Subject: x\r\n\r\nx" + spelling + inner.encode() + b"\r\n.\r\n"
        for piece in [words[n : n + 1] for n in range(len(words))] if pieces else [words]:
            probe.send(piece)
        reply = probe.reply()
        probe.send(b"NOOP\r\nQUIT\r\n")
        after = [lines[-1][:3] for lines in iter(probe.reply, [])]
        if after not in ([], ["250", "221"]) and not (reply and reply[-1][:1] == "5" and len(after) <= 2):
            raise Broken(f"the false end was taken for one: {reply} and then {after}")
    return True


def inject_before_tls(target: Target) -> bool | None:
    """A command in the same write as STARTTLS must not be answered under TLS (RFC 3207 5; CVE-2011-0411)."""
    with target.probe() as probe:
        if not offers(probe.hello(), "STARTTLS"):
            return None
        probe.send(b"STARTTLS\r\nVRFY injected\r\n")
        reply = probe.reply()
        if not reply or not reply[-1].startswith("220"):
            return True
        try:
            probe.start_tls()
        except TimeoutError:
            raise Broken("the handshake stalled") from None
        except OSError:
            return True  # it hung up on us
        probe.socket.settimeout(min(0.5, target.patience))  # what must not come is not waited for longer
        try:
            answer = probe.socket.recv(4096)
        except OSError:
            return True
        if answer:
            raise Broken(f"the injected command was answered under TLS: {answer[:60]!r}")
    return True


def greet_before_tls(target: Target) -> bool | None:
    """The client's greeting is forgotten under TLS (RFC 3207 4.2), by a server that asks for one."""
    mail = target.filled("MAIL FROM:<{sender}>")
    with target.probe() as probe:
        expect("220", probe.reply())
        if any(line.startswith("250") for line in probe.ask(mail)):
            return None
    with target.probe() as probe:
        if not offers(probe.hello(), "STARTTLS"):
            return None
        expect("220", probe.ask("STARTTLS"))
        probe.start_tls()
        expect("5", probe.ask(mail))
    return True


def remember_over_tls(target: Target) -> bool | None:
    """What was said before TLS is forgotten: a transaction begun in the clear is none (RFC 3207 4.2)."""
    with target.probe() as probe:
        if not offers(probe.hello(), "STARTTLS"):
            return None
        if not (reply := probe.ask(target.filled("MAIL FROM:<{sender}>"))) or not reply[-1].startswith("250"):
            return True  # it wants TLS first
        if not (reply := probe.ask("STARTTLS")) or not reply[-1].startswith("220"):
            return True  # not within a transaction
        probe.start_tls()
        expect("5", probe.ask(target.filled("RCPT TO:<{to}>")))
    return True


def fall_back(target: Target) -> bool | None:
    """After a handshake that failed nothing is answered in the clear (RFC 3207 4.1)."""
    with target.probe() as probe:
        if not offers(probe.hello(), "STARTTLS"):
            return None
        expect("220", probe.ask("STARTTLS"))
        probe.send(b"this is no handshake\r\nNOOP\r\n")
        try:
            reply = probe.reply()
        except Broken:
            return True  # an alert of TLS, which is no reply
        if reply and re.match(r"\d{3}", reply[-1]):
            raise Broken(f"answered in the clear: {reply[-1]}")
    return True


def http(target: Target) -> bool:
    """A web browser led here must not get mail through (cross-protocol posting)."""
    with target.probe() as probe:
        expect("220", probe.reply())
        probe.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO a\r\nMAIL FROM:<a@a.test>\r\n")
        for _ in range(100):
            lines = probe.reply()
            if not lines:
                break
            if lines[-1].startswith("250"):
                raise Broken(f"the server goes on behind an HTTP request: {lines[-1]}")
    return True


def flood_of_errors(target: Target) -> bool:
    """Endless mistakes end the session, sooner or later."""
    with target.probe() as probe:
        expect("220", probe.reply())
        for _ in range(1000):
            lines = probe.ask("WHAT")
            if not lines or lines[-1].startswith("421"):
                return True
    raise Broken("1000 mistakes, and the session goes on")


def too_much_content(target: Target) -> bool | None:
    """Content over the size that is announced is refused, whatever was declared (RFC 1870 6.3)."""
    with target.probe() as probe:
        said = [one for one in probe.hello() if re.fullmatch(r"SIZE [1-9][0-9]{0,18}", one)]
        limit = int(said[0].split()[1]) if said else 0
        if not 0 < limit <= _LARGEST:
            return None
        _open_content(probe, greeted=True)
        line = b"x" * 70 + b"\r\n"
        probe.send(b"Subject: x\r\n\r\n" + line * (limit // len(line) + 2) + b".\r\n")
        reply = probe.reply()
        if reply and not reply[-1].startswith("5"):
            raise Broken(f"more than SIZE {limit} was taken: {reply[-1]}")
    return True


def crowd(words: bytes, target: Target) -> bool:
    """Clients that are slow, or say nothing, hold up nobody."""
    with ExitStack() as stack:
        for _ in range(_CROWD):
            stack.enter_context(target.probe()).send(words)
        with target.probe() as probe:
            probe.hello()
            expect("250", probe.ask("NOOP"))
    return True


def dribble(target: Target) -> bool:
    """A command that comes octet by octet is the same command."""
    with target.probe() as probe:
        expect("220", probe.reply())
        probe.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"EHLO probe.test\r\n":
            probe.send(bytes([octet]))
        expect("250", probe.reply())
    return True


def half_close(target: Target) -> bool | None:
    """A client that says all it has to say and closes its side gets every reply (RFC 5321 4.1.1.10)."""
    with target.probe() as probe:
        if probe.tls_is_up:
            return None  # TLS before 1.3 ends both sides at once
        expect("220", probe.reply())
        probe.send(b"EHLO probe.test\r\nNOOP\r\nQUIT\r\n")
        probe.socket.shutdown(socket.SHUT_WR)
        for code in ("250", "250", "221"):
            expect(code, probe.reply())
    return True


def bad_octets(octets: bytes, target: Target) -> bool:
    """A command with octets that no command has is refused, and not split in two."""
    with target.probe() as probe:
        probe.hello()
        probe.send(b"NOOP x" + octets + b"NOOP y\r\nQUIT\r\n")
        codes = [lines[-1][:3] for lines in iter(probe.reply, [])]
        if codes.count("250") > 1 or not codes:
            raise Broken(f"two commands were seen: {codes}")
    return True


def hidden_domain(form: str, target: Target) -> bool:
    """Addresses that hide a domain elsewhere are refused, or taken as a local part of our own domain; and answered."""
    with target.probe() as probe:
        probe.hello()
        expect("250", probe.ask("MAIL FROM:<>"))
        expect("[245]", probe.ask(f"RCPT TO:<{target.filled(form)}>"))
    return True


def _open_content(probe: Probe, *, greeted: bool = False) -> None:
    if not greeted:
        probe.hello()
    for words, code in (("MAIL FROM:<{sender}>", "250"), ("RCPT TO:<{to}>", "25"), ("DATA", "354")):
        expect(code, probe.ask(probe.target.filled(words)))


ATTACKS = (
    *(Attack(f"{name} ends no message", "5321 2.3.8", partial(smuggle, end, False)) for name, end in SPELLINGS.items()),
    Attack("LF.LF in single octets ends no message", "5321 2.3.8", partial(smuggle, b"\n.\n", True)),
    Attack("nothing before TLS is answered under it", "3207 5", inject_before_tls),
    Attack("the client's greeting does not outlast STARTTLS", "3207 4.2", greet_before_tls),
    Attack("a transaction does not outlast STARTTLS", "3207 4.2", remember_over_tls),
    Attack("a failed handshake is not followed by plain text", "3207 4.1", fall_back),
    Attack("HTTP gets nowhere", "5321 7", http),
    Attack("endless mistakes end the session", "5321 4.3.2", flood_of_errors),
    Attack("more content than announced is refused", "1870 6.3", too_much_content),
    Attack("silent clients hold up nobody", "5321 4.5.3.2", partial(crowd, b"")),
    Attack("clients within a command hold up nobody", "5321 4.5.3.2", partial(crowd, b"EHLO prob")),
    Attack("a command in single octets is a command", "5321 2.3.8", dribble),
    Attack("a client that half-closes gets its replies", "5321 4.1.1.10", half_close),
    Attack("a bare LF ends no command", "5321 2.3.8", partial(bad_octets, b"\n")),
    Attack("a bare CR ends no command", "5321 2.3.8", partial(bad_octets, b"\r")),
    Attack("a NUL is in no command", "5321 4.1.2", partial(bad_octets, b"\0")),
    Attack(
        "a percent-hack address is answered", "5321 3.6.1", partial(hidden_domain, "{local}%elsewhere.test@{domain}")
    ),
    Attack("a bang path is answered", "5321 3.6.1", partial(hidden_domain, "elsewhere.test!{local}@{domain}")),
    Attack("a source route is answered", "5321 3.6.1", partial(hidden_domain, "@elsewhere.test:{to}")),
)
