"""STARTTLS (RFC 3207) and AUTH (RFC 4954), with a store of one user."""

from __future__ import annotations

import base64

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.events import ENDED, NEED_BYTES
from smtpd_core.wire.sasl.client import Credentials, mechanism
from smtpd_core.wire.sasl.verifier import make_verifier
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol
from tests.support.transcript import play

MECHANISMS = (
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
)
OPEN = {"mechanisms": MECHANISMS, "clear_text_without_tls": True}
HELLO = "S: 220 mx.test ready\nC: EHLO probe\nS: 250 mx.test\n"
BINDINGS = {"tls-exporter": b"\x01" * 32}


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def ann(event: events.NeedSecret) -> object:
    """The store: one user, ann, whose password is "secret"."""
    if event.user != "ann":
        return None
    if event.kind == "password":
        return "ann" if event.detail == "secret" else None
    return "secret" if event.kind == "cleartext" else make_verifier("secret", event.kind, salt=b"salt" * 4)


def login(lines: str, **changes: object):
    return play(HELLO + lines, secrets=ann, **{**OPEN, **changes})


GOOD = b64("\0ann\0secret")


# STARTTLS


def test_starttls_forgets_all_that_was_said():
    """RFC 3207 4.2."""
    played = play(
        HELLO
        + """
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        T: up
        C: MAIL FROM:<ann@probe.test>
        S: 503 5.5.1 Say hello first
        C: EHLO again
        S: 250 mx.test
        C: STARTTLS
        S: 503 5.5.1 TLS is on already
    """,
        starttls=True,
    )
    assert played.protocol is not None and played.protocol.tls_is_on
    assert not any("STARTTLS" in line for line in played.said[played.said.index("220 2.0.0 Ready to start TLS") :])


def test_plaintext_behind_starttls_closes():
    """CVE-2011-0411: what was sent in clear must not be answered under TLS."""
    protocol = ServerProtocol(ProtocolSettings(hostname="mx.test", starttls=True))
    protocol.receive(b"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<evil@x.test>\r\n")
    while (event := protocol.next_event()) is not ENDED:
        assert not isinstance(event, events.MailFrom | events.Upgrade)
        if protocol.verdict is not None:
            protocol.accept()
    assert protocol.take_output().endswith(b"554 5.5.1 Commands after STARTTLS must wait for TLS; closing\r\n")


@pytest.mark.parametrize("when", ["before the verdict", "before the handshake"])
def test_plaintext_that_comes_a_little_later_closes_too(when):
    protocol = ServerProtocol(ProtocolSettings(hostname="mx.test", starttls=True))
    protocol.receive(b"EHLO a\r\nSTARTTLS\r\n")
    while not isinstance(event := protocol.next_event(), events.StartTls | events.Upgrade):
        if protocol.verdict is not None:
            protocol.accept()
    assert event == events.StartTls()
    if when == "before the handshake":
        protocol.accept()
        assert protocol.next_event() == events.Upgrade()
        assert protocol.next_event() is NEED_BYTES
    protocol.receive(b"EHLO evil\r\n")
    if when == "before the verdict":
        protocol.accept()
    assert protocol.next_event() is ENDED


def test_starttls_out_of_place():
    play(
        HELLO
        + """
        C: STARTTLS now
        S: 501 5.5.4 This command takes no argument
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: STARTTLS
        S: 503 5.5.1 Not in this phase of the dialogue
        C: RSET
        S: 250 2.0.0 Ok
        H: StartTls refuse
        C: STARTTLS
        S: 454 4.7.0 TLS is unavailable; try again later
    """,
        starttls=True,
    )
    play(HELLO + "C: STARTTLS\nS: 502 5.5.1 Command not implemented")


def test_where_tls_is_required():
    """RFC 3207 4: only EHLO, NOOP, STARTTLS, QUIT and harmless ones before."""
    play(
        HELLO
        + """
        C: MAIL FROM:<>
        S: 530 5.7.0 STARTTLS first
        C: AUTH PLAIN
        S: 530 5.7.0 STARTTLS first
        C: VRFY ann
        S: 530 5.7.0 STARTTLS first
        C: NOOP
        S: 250 2.0.0 Ok
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        T: up
        C: EHLO probe
        S: 250 mx.test
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
    """,
        starttls=True,
        tls_required=True,
        **OPEN,
    )


def test_a_login_is_forgotten_with_the_plain_connection():
    played = play(
        HELLO
        + f"""
        C: AUTH PLAIN {GOOD}
        S: 235 2.7.0 Authentication succeeded
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        T: up
        C: EHLO probe
        S: 250 mx.test
        C: MAIL FROM:<>
        S: 530 5.7.0 Authentication required
    """,
        secrets=ann,
        starttls=True,
        login_required=True,
        **OPEN,
    )
    assert played.protocol is not None and played.protocol.identity == ""


# What AUTH offers


def auth_line(**way: object) -> list[str]:
    transcript = ("T: up\n" if way.pop("tls", False) else "") + HELLO
    played = play(transcript, **{"mechanisms": MECHANISMS, **way})
    return [line[9:] for line in played.said if line[4:8] == "AUTH"]


def test_only_what_is_safe_here_is_offered():
    strong = "SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5"
    assert auth_line() == [strong]
    assert auth_line(clear_text_without_tls=True) == [strong + " PLAIN LOGIN"]
    assert auth_line(tls=True) == [strong + " PLAIN LOGIN"]
    assert auth_line(tls=True, bindings=BINDINGS) == ["SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS " + strong + " PLAIN LOGIN"]
    assert auth_line(mechanisms=("PLAIN",)) == []
    assert auth_line(mechanisms=()) == []
    assert auth_line(tls_required=True, starttls=True) == []


def test_no_second_login():
    login(
        f"""
        C: AUTH PLAIN {GOOD}
        S: 235 2.7.0 Authentication succeeded
        C: AUTH PLAIN {GOOD}
        S: 503 5.5.1 Already authenticated
        C: EHLO again
        S: 250 mx.test
    """
    )


# The exchange


def test_plain():
    """RFC 4616, with and without an initial response."""
    played = login(
        f"""
        C: AUTH PLAIN
        S: 334
        C: {b64(chr(0) + "ann" + chr(0) + "wrong")}
        S: 535 5.7.8 Authentication failed
        C: AUTH plain {b64("bob" + chr(0) + "ann" + chr(0) + "secret")}
        S: 235 2.7.0 Authentication succeeded
    """
    )
    assert played.of(events.Authenticated) == [events.Authenticated("PLAIN", "ann", "bob")]
    assert played.of(events.AuthFailed) == [events.AuthFailed("PLAIN", "ann")]


def test_login_mechanism():
    login(
        f"""
        C: auth login
        S: 334 {b64("Username:")}
        C: {b64("ann")}
        S: 334 {b64("Password:")}
        C: {b64("secret")}
        S: 235 2.7.0 Authentication succeeded
    """
    )
    login(
        f"""
        C: AUTH LOGIN {b64("ann")}
        S: 334 {b64("Password:")}
        C: {b64("guess")}
        S: 535 5.7.8 Authentication failed
    """
    )


@pytest.mark.parametrize(
    "lines",
    [
        "C: AUTH\nS: 501 5.5.4 Syntax: AUTH mechanism [initial-response]",
        "C: AUTH PL@IN\nS: 501 5.5.4 Syntax: AUTH mechanism [initial-response]",
        "C: AUTH XYZZY\nS: 504 5.5.4 Unknown authentication mechanism",
        "C: AUTH GSSAPI\nS: 504 5.5.4 Unknown authentication mechanism",
        "C: AUTH SCRAM-SHA-256-PLUS\nS: 538 5.7.11 This mechanism needs TLS",
        "C: AUTH PLAIN *\nS: 501 5.5.2 Not base64",
        "C: AUTH PLAIN ABC\nS: 501 5.5.2 Not base64",
        "C: AUTH PLAIN A=BC\nS: 501 5.5.2 Not base64",
        "C: AUTH PLAIN AAAA AAAA\nS: 501 5.5.2 Not base64",
        "C: AUTH PLAIN\nS: 334\nC: *\nS: 501 5.7.0 Authentication cancelled",
        "C: AUTH PLAIN\nS: 334\nC: !!!\nS: 501 5.5.2 Not base64",
        "C: AUTH PLAIN\nS: 334\nC: \\xff\nS: 501 5.5.2 Not base64",
        "C: AUTH PLAIN\nS: 334\nC:\nS: 501 5.5.2 Not a message of this mechanism",
        "C: AUTH PLAIN =\nS: 501 5.5.2 Not a message of this mechanism",
        f"C: AUTH PLAIN {b64('ann')}\nS: 501 5.5.2 Not a message of this mechanism",
        f"C: AUTH PLAIN {b64(chr(0) * 3)}\nS: 501 5.5.2 Not a message of this mechanism",
        f"C: AUTH PLAIN {b64(chr(0) + 'a' + chr(10) + chr(0) + 'x')}\nS: 501 5.5.2 Not a message of this mechanism",
        f"C: AUTH PLAIN {b64(chr(0) + 'ann' + chr(0))}\nS: 501 5.5.2 Not a message of this mechanism",
        f"C: AUTH PLAIN {b64(bytes([0, 255, 0, 65]))}\nS: 501 5.5.2 Not a message of this mechanism",
        f"C: AUTH CRAM-MD5 {b64('ann 00')}\nS: 501 5.7.0 This mechanism takes no initial response",
        "C: AUTH LOGIN =\nS: 501 5.5.2 Not a message of this mechanism",
        "C: AUTH PLAIN\nS: 334\nC| *\\n\nS: 500 5.5.2 NUL, bare CR or bare LF in a command\nC:",
        "C: AUTH PLAIN\nS: 334\nC: NOOP\\0\nS: 500 5.5.2 NUL, bare CR or bare LF in a command",
        f"C: AUTH PLAIN\nS: 334\nC: {'A' * 20000}\nS: 500 5.5.6 Authentication response too long",
        f"C: AUTH PLAIN {'A' * 20000}\nS: 500 5.5.2 Command line too long",
    ],
)
def test_the_edges_of_the_exchange(lines):
    """RFC 4954 4; the exchange is over after each, and commands are read again."""
    login(lines + "\nC: NOOP\nS: 250 2.0.0 Ok\nC: MAIL FROM:<>\nS: 250 2.1.0 Sender ok")


def test_an_initial_response_may_be_12288_octets_long():
    """RFC 4954 4; the limit of a command line is not AUTH's."""
    login(f"C: AUTH PLAIN {'A' * 12288}\nS: 501 5.5.2 Not a message of this mechanism")
    login(f"C: AUTH PLAIN\nS: 334\nC: {'A' * 12288}\nS: 501 5.5.2 Not a message of this mechanism")


def test_auth_out_of_place():
    play(f"S: 220 mx.test ready\nC: AUTH PLAIN {GOOD}\nS: 503 5.5.1 Say hello first", **OPEN)
    login(
        f"C: MAIL FROM:<>\nS: 250 2.1.0 Sender ok\nC: AUTH PLAIN {GOOD}\nS: 503 5.5.1 Not in this phase of the dialogue"
    )
    play(HELLO + "C: AUTH PLAIN\nS: 502 5.5.1 Command not implemented")
    play(HELLO + "C: AUTH PLAIN\nS: 538 5.7.11 This mechanism needs TLS", mechanisms=MECHANISMS)


def test_a_login_where_one_is_required():
    login(
        f"""
        C: MAIL FROM:<>
        S: 530 5.7.0 Authentication required
        C: VRFY ann
        S: 530 5.7.0 Authentication required
        C: AUTH PLAIN {GOOD}
        S: 235 2.7.0 Authentication succeeded
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
    """,
        login_required=True,
    )


def test_the_back_end_failing_is_no_wrong_password():
    login(
        f"""
        H: NeedSecret refuse
        C: AUTH PLAIN {GOOD}
        S: 454 4.7.0 Authentication is unavailable; try again later
        H: NeedSecret refuse 454 4.7.0 Later
        C: AUTH PLAIN {GOOD}
        S: 454 4.7.0 Later
        H: Authenticated refuse 535 5.7.8 Not you
        C: AUTH PLAIN {GOOD}
        S: 535 5.7.8 Not you
        C: AUTH PLAIN {GOOD}
        S: 235 2.7.0 Authentication succeeded
    """
    )


def test_failed_logins_count_as_errors():
    wrong = b64("\0ann\0wrong")
    login(
        f"C: AUTH PLAIN {wrong}\nS: 535 5.7.8 Authentication failed\n" * 2
        + f"C: AUTH PLAIN {wrong}\nS: 421 4.7.0 Too many errors; closing\nS: (closed)",
        max_errors=2,
    )


def speak(name: str, password: str = "secret", user: str = "ann") -> tuple[str, ServerProtocol]:
    """A whole login with the client half of the mechanism; the last reply's line and the protocol."""
    protocol = ServerProtocol(ProtocolSettings(hostname="mx.test", mechanisms=MECHANISMS))
    protocol.tls_is_up(BINDINGS)
    binding = ("tls-exporter", BINDINGS["tls-exporter"]) if name.endswith("-PLUS") else None
    client = mechanism(name, Credentials(user, password), binding)
    first = client.first()
    advance(
        protocol,
        b"EHLO a\r\nAUTH " + name.lower().encode() + (b"" if first is None else b" " + base64.b64encode(first)),
    )
    while (said := advance(protocol, b"")).startswith("334"):
        advance(protocol, base64.b64encode(client.respond(base64.b64decode(said[4:]))))
    if said.startswith("235"):
        assert client.is_proven
    return said, protocol


def advance(protocol: ServerProtocol, line: bytes) -> str:
    """Feed a line, give the verdicts, and remember what was said last (an empty line asks for it)."""
    if not line and protocol.has_output:
        return protocol.take_output().decode().splitlines()[-1]
    protocol.take_output()
    protocol.receive(line + b"\r\n")
    while not isinstance(event := protocol.next_event(), events.Waiting):
        if isinstance(event, events.NeedSecret):
            protocol.supply(ann(event))
        elif isinstance(event, events.AuthFailed):
            protocol.refuse()
        elif protocol.verdict is not None:
            protocol.accept()
    return ""


@pytest.mark.parametrize("name", MECHANISMS)
def test_both_halves_of_every_mechanism_agree(name):
    said, protocol = speak(name)
    assert said == "235 2.7.0 Authentication succeeded"
    assert protocol.identity == "ann"


@pytest.mark.parametrize("user, password", [("ann", "wrong"), ("eve", "secret")])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_wrong_password_and_an_unknown_user_look_the_same(name, user, password):
    said, protocol = speak(name, password, user)
    assert said == "535 5.7.8 Authentication failed"
    assert protocol.identity == ""


def test_an_unknown_user_gets_the_same_salt_each_time():
    """RFC 5802 9: else asking twice would tell who exists."""
    settings = ProtocolSettings(mechanisms=("SCRAM-SHA-256",))
    salts = set()
    for _ in range(2):
        protocol = ServerProtocol(settings)
        advance(protocol, b"EHLO a\r\nAUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=eve,r=abcdef"))
        challenge = base64.b64decode(protocol.take_output().decode().splitlines()[-1][4:])
        salts.add(challenge.split(b",")[1])
    assert len(salts) == 1


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,n=ann",
        b"x,,n=ann,r=abc",
        b"n,,m=ext,n=ann,r=abc",
        b"n,,n=a=b,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=ann,r=a c",
        b"p=tls-exporter,,n=ann,r=abc",
        b"y,,n=ann,r=abc",
        b"\xff",
    ],
)
def test_scram_messages_that_are_none_are_refused(first):
    """RFC 5802 5 and 6: also "y" where -PLUS was offered, and a binding where the mechanism has none."""
    protocol = ServerProtocol(ProtocolSettings(mechanisms=MECHANISMS))
    protocol.tls_is_up(BINDINGS)
    advance(protocol, b"EHLO a\r\nAUTH SCRAM-SHA-256 " + (base64.b64encode(first) or b"="))
    assert protocol.take_output().decode().splitlines()[-1][:3] in ("501", "535")


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda final: final.replace(b"c=", b"c=AAAA"),
        lambda final: final.replace(b",r=", b",r=x"),
        lambda final: final[:-4] + b"AAA=",
        lambda final: final.rpartition(b",p=")[0] + b",p=AAAA",
        lambda final: final.rpartition(b",p=")[0] + b",p=!",
        lambda final: final.rpartition(b",p=")[0],
        lambda final: b"",
    ],
)
def test_a_final_message_that_was_changed_proves_nothing(spoiled):
    """RFC 5802 5.1 and 7: nonce, binding and proof must all fit."""
    protocol = ServerProtocol(ProtocolSettings(mechanisms=MECHANISMS))
    protocol.tls_is_up(BINDINGS)
    client = mechanism(MECHANISMS[0], Credentials("ann", "secret"), ("tls-exporter", BINDINGS["tls-exporter"]))
    advance(protocol, b"EHLO a\r\nAUTH SCRAM-SHA-256-PLUS " + base64.b64encode(client.first() or b""))
    challenge = base64.b64decode(protocol.take_output().decode().splitlines()[-1][4:])
    advance(protocol, base64.b64encode(spoiled(client.respond(challenge))))
    assert protocol.take_output()[:3] in (b"501", b"535")
    assert protocol.identity == ""


def test_another_connections_binding_is_refused():
    """RFC 5802 6: a login relayed from another TLS connection fails, though the password is right."""
    protocol = ServerProtocol(ProtocolSettings(mechanisms=MECHANISMS))
    protocol.tls_is_up(BINDINGS)
    client = mechanism(MECHANISMS[0], Credentials("ann", "secret"), ("tls-exporter", b"\x02" * 32))
    advance(protocol, b"EHLO a\r\nAUTH SCRAM-SHA-256-PLUS " + base64.b64encode(client.first() or b""))
    challenge = base64.b64decode(protocol.take_output().decode().splitlines()[-1][4:])
    advance(protocol, base64.b64encode(client.respond(challenge)))
    assert protocol.take_output().startswith(b"535")


def test_observers_never_see_a_secret():
    seen: list[str] = []

    class Observer:
        def command(self, text: str) -> None:
            seen.append(text)

        def reply(self, reply: object) -> None:
            seen.append(str(reply))

    protocol = ServerProtocol(ProtocolSettings(mechanisms=MECHANISMS, clear_text_without_tls=True))
    protocol.observer = Observer()
    lines = (
        "EHLO a",
        f"AUTH PLAIN {GOOD}x",
        f"auth\tplain {GOOD}",
        f"auth plain {GOOD}x",
        f"AUTH PLAIN={GOOD}",
        f"AUTH {GOOD}",
        "AUTH LOGIN",
        "YW5u",
        "d3Jvbmc=",
    )
    advance(protocol, "\r\n".join(lines).encode())
    text = "\n".join(seen)
    assert "AUTH PLAIN ****" in text and "AUTH LOGIN" in text
    assert not any(secret in text for secret in (GOOD, "YW5u", "d3Jvbmc="))
