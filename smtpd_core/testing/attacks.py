"""What a server must not let be done to it: smuggled ends of content, commands injected before TLS, floods, dribbles.

Each attack has a connection of its own and is as small as it can be: it looks for an answer that should not be there.
Thread: one at a time.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from smtpd_core.testing.probe import Broken, Probe, expect, offers

# Ends of content that are none. RFC 5321 2.3.8 and 4.1.1.4: only CRLF.CRLF is.
SPELLINGS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
}


@dataclass(frozen=True, slots=True)
class Attack:
    """`run` is True where the server withstood, None where it does not offer the target; Broken where it fell."""

    name: str
    section: str
    run: Callable[[str, int, str, str], bool | None]


def smuggle(spelling: bytes, pieces: bool, host: str, port: int, sender: str, to: str) -> bool:
    """Content with a false end and a second transaction behind it: there may be one reply, not more."""
    with Probe(host, port) as probe:
        _open_content(probe, sender, to)
        inner = f"MAIL FROM:<smuggled@probe.test>\r\nRCPT TO:<{to}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx".encode()
        words = b"Subject: x\r\n\r\nx" + spelling + inner + b"\r\n.\r\n"
        for piece in [words[n : n + 1] for n in range(len(words))] if pieces else [words]:
            probe.send(piece)
        reply = probe.reply()
        probe.send(b"NOOP\r\nQUIT\r\n")
        after = []
        while lines := probe.reply():
            after.append(lines[-1][:3])
        if after not in ([], ["250", "221"]) and not (reply and reply[-1][:1] == "5" and len(after) <= 2):
            raise Broken(f"the false end was taken for one: {reply} and then {after}")
    return True


def inject_before_tls(host: str, port: int, sender: str, to: str) -> bool | None:
    """A command in the same write as STARTTLS must not be answered under TLS (RFC 3207 5; CVE-2011-0411)."""
    with Probe(host, port) as probe:
        if not offers(probe.hello(), "STARTTLS"):
            return None
        probe.send(b"STARTTLS\r\nVRFY injected\r\n")
        reply = probe.reply()
        if not reply or not reply[-1].startswith("220"):
            return True
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with context.wrap_socket(probe.socket) as tls:
                tls.settimeout(0.5)
                try:
                    answer = tls.recv(4096)
                except TimeoutError:
                    return True
                if answer:
                    raise Broken(f"the injected command was answered under TLS: {answer[:60]!r}")
        except (ssl.SSLError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise Broken("the handshake stalled") from None
    return True


def http(host: str, port: int, sender: str, to: str) -> bool:
    """A web browser led here must not get mail through (cross-protocol posting)."""
    with Probe(host, port) as probe:
        expect("220", probe.reply())
        probe.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO a\r\nMAIL FROM:<a@a.test>\r\n")
        while lines := probe.reply():
            if lines[-1].startswith("250"):
                raise Broken(f"the server goes on behind an HTTP request: {lines[-1]}")
            if len(lines) > 100:
                break
    return True


def flood_of_errors(host: str, port: int, sender: str, to: str) -> bool:
    """Endless mistakes end the session, sooner or later."""
    with Probe(host, port) as probe:
        expect("220", probe.reply())
        for _ in range(1000):
            probe.send(b"WHAT\r\n")
            lines = probe.reply()
            if not lines or lines[-1].startswith("421"):
                return True
    raise Broken("1000 mistakes, and the session goes on")


def dribble(host: str, port: int, sender: str, to: str) -> bool:
    """A command that comes octet by octet is the same command."""
    with Probe(host, port) as probe:
        expect("220", probe.reply())
        probe.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"EHLO probe.test\r\n":
            probe.send(bytes([octet]))
        expect("250", probe.reply())
    return True


def half_close(host: str, port: int, sender: str, to: str) -> bool:
    """A client that says all it has to say and closes its side gets every reply (RFC 5321 4.1.1.10)."""
    with Probe(host, port) as probe:
        expect("220", probe.reply())
        probe.send(b"EHLO probe.test\r\nNOOP\r\nQUIT\r\n")
        probe.socket.shutdown(socket.SHUT_WR)
        for code in ("250", "250", "221"):
            expect(code, probe.reply())
    return True


def bad_octets(octets: bytes, host: str, port: int, sender: str, to: str) -> bool:
    """A command with octets that no command has is refused, and not split in two."""
    with Probe(host, port) as probe:
        probe.hello()
        probe.send(b"NOOP x" + octets + b"NOOP y\r\nQUIT\r\n")
        codes = []
        while lines := probe.reply():
            codes.append(lines[-1][:3])
        if codes.count("250") > 1 or not codes:
            raise Broken(f"two commands were seen: {codes}")
    return True


def open_relay(form: str, host: str, port: int, sender: str, to: str) -> bool:
    """Addresses that hide a domain elsewhere. Refused, or taken as a local part of our own domain."""
    local, _, domain = to.rpartition("@")
    address = form.replace("{local}", local).replace("{domain}", domain)
    with Probe(host, port) as probe:
        probe.hello()
        probe.send(b"MAIL FROM:<>\r\n")
        expect("250", probe.reply())
        probe.send(f"RCPT TO:<{address}>\r\n".encode())
        lines = probe.reply()
        if not lines:
            raise Broken("closed without a reply")
    return True


def _open_content(probe: Probe, sender: str, to: str) -> None:
    probe.hello()
    for words, code in ((f"MAIL FROM:<{sender}>", "250"), (f"RCPT TO:<{to}>", "25"), ("DATA", "354")):
        probe.send(words.encode() + b"\r\n")
        expect(code, probe.reply())


ATTACKS = (
    *(Attack(f"{name} ends no message", "5321 2.3.8", partial(smuggle, end, False)) for name, end in SPELLINGS.items()),
    Attack("LF.LF in single octets ends no message", "5321 2.3.8", partial(smuggle, b"\n.\n", True)),
    Attack("nothing before TLS is answered under it", "3207 5", inject_before_tls),
    Attack("HTTP gets nowhere", "5321 7", http),
    Attack("endless mistakes end the session", "5321 4.3.2", flood_of_errors),
    Attack("a command in single octets is a command", "5321 2.3.8", dribble),
    Attack("a client that half-closes gets its replies", "5321 4.1.1.10", half_close),
    Attack("a bare LF ends no command", "5321 2.3.8", partial(bad_octets, b"\n")),
    Attack("a bare CR ends no command", "5321 2.3.8", partial(bad_octets, b"\r")),
    Attack("a NUL is in no command", "5321 4.1.2", partial(bad_octets, b"\0")),
    Attack("a percent-hack address is answered", "5321 3.6.1", partial(open_relay, "{local}%elsewhere.test@{domain}")),
    Attack("a bang path is answered", "5321 3.6.1", partial(open_relay, "elsewhere.test!{local}@{domain}")),
)
