"""Whatever a client sends at whatever step of whatever mechanism: it is answered, it gets nobody in, commands go on.

Each line goes in whole, and one octet at a time; what stands behind it in the same bytes is read as commands.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.accounts import MemoryStore, UserAccount
from smtpd_core.wire import events
from smtpd_core.wire.sasl.client import Credentials
from smtpd_core.wire.sasl.client import mechanism as client_side
from smtpd_core.wire.sasl.mechanisms import MECHANISMS
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol

BINDINGS = {"tls-exporter": b"\x07" * 32}
SECRET = "correct horse"
STORE = MemoryStore([UserAccount("ann", SECRET), UserAccount("anonymous", "x")])

Step = Callable[[bytes], bytes]


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


class Login:
    """A server and the honest client of one mechanism; after `begin` the server waits for the client's step `at`."""

    def __init__(self, name: str) -> None:
        added = ()
        if name == "NTLM":
            from smtpd_core.accounts.ntlm import mechanism

            pytest.importorskip("spnego")
            added = (mechanism(allow_version_1=True),)
        self.name = name
        self.protocol = ServerProtocol(
            ProtocolSettings(
                mechanisms=(*MECHANISMS, *(row.name for row in added)), added_mechanisms=added, max_errors=0
            )
        )
        self.protocol.tls_is_up(BINDINGS, "ann")
        self.say(b"EHLO probe\r\n")
        self.step = honest(name)

    def begin(self, at: int) -> bool:
        """False where the mechanism has no such step."""
        told = self.say(f"AUTH {self.name}\r\n".encode())
        for _ in range(at):
            if not told.startswith("334"):
                return False
            told = self.say(b64(self.step(base64.b64decode(told[4:]))) + b"\r\n")
        return told.startswith("334")

    def say(self, data: bytes, *, slowly: bool = False) -> str:
        """The last line of what is answered."""
        said = b""
        for piece in [data[n : n + 1] for n in range(len(data))] if slowly else [data]:
            self.protocol.receive(piece)
            while not isinstance(event := self.protocol.next_event(), events.Waiting):
                self._judge(event)
            said += self.protocol.take_output()
        return (said.decode().splitlines() or [""])[-1]

    def _judge(self, event: object) -> None:
        protocol = self.protocol
        if isinstance(event, events.NeedSecret):
            if event.kind == "password":
                found = STORE.verify(event.user, str(event.detail))
                protocol.supply(found.user_name if found else None)
            elif event.kind == "token":
                protocol.supply("ann" if event.detail == SECRET.replace(" ", "") else None)
            elif event.kind == "certificate":
                found = STORE.account(event.user)
                protocol.supply(found.user_name if found else None)
            else:
                protocol.supply(STORE.secret(event.user, event.kind))
        elif isinstance(event, events.AuthFailed) or (isinstance(event, events.Authenticated) and event.acts_as):
            protocol.refuse()
        elif protocol.verdict is not None:
            protocol.accept()


def honest(name: str) -> Step:
    """The client's answers, one after the other; the initial response is the answer to an empty challenge."""
    if name == "ANONYMOUS":
        return lambda challenge: b"trace"
    if name == "NTLM":
        import spnego

        made = spnego.client("ann", SECRET, protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
        return lambda challenge: made.step(challenge or None) or b""
    binding = ("tls-exporter", BINDINGS["tls-exporter"]) if name.endswith("-PLUS") else None
    one = client_side(name, Credentials("ann", SECRET, SECRET.replace(" ", "") if "OAUTH" in name else ""), binding)
    first = one.first()
    left = [] if first is None else [first]
    return lambda challenge: left.pop() if left else one.respond(challenge)


NAMES = (*MECHANISMS, "NTLM")
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "an equals sign": b"=",
    "no base64": b"!!!!",
    "base64 without its end": b64(b"\0ann\0correct horse")[:-1],
    "base64 with something behind it": b64(b"ann") + b" =",
    "base64 with spaces": b" " + b64(b"ann"),
    "base64 of another alphabet": b"__--",
    "8-bit octets": b"\xff\xfe",
    "a NUL in the line": b"AA\0A",
    "NULs": b64(bytes(64)),
    "only NUL": b64(b"\0"),
    "no UTF-8": b64(b"\0\xff\0\xfe"),
    "surrogates": b64(b"\0\xed\xa0\x80\0x"),
    "control characters": b64(b"\0ann\r\nRCPT TO:<x@x>\0x"),
    "direction marks": b64("\0\u202eann\0\u2066x".encode()),
    "a name without end": b64(b"\0" + b"a" * 5000 + b"\0x"),
    "a password without end": b64(b"\0ann\0" + b"x" * 5000),
    "12 288 octets of base64": b64(b"A" * 9216),
    "over the limit": b"A" * 20_000,
    "commas": b64(b",,,,,,"),
    "another mechanism's message": b64(b"n,,n=ann,r=abc"),
    "a huge count of attributes": b64(b"n,,n=ann,r=abc" + b",x=1" * 2000),
    "a token that is none": b64(b"user=ann\1auth=Bearer \1\1"),
    "an NTLM header": b64(b"NTLMSSP\0\3\0\0\0" + b"\xff" * 80),
    "offsets beyond the end": b64(b"NTLMSSP\0\1\0\0\0\7\2\0\0" + b"\xff" * 32),
    "a bare CR": b"AAAA\rBBBB",
    "a bare LF": b"AAAA\nBBBB",
}  # fmt: skip


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "in octets"])
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_line_ends_the_exchange_and_nothing_else(name: str, hostile: str, slowly: bool) -> None:
    steps = 0
    for at in range(4):
        login = Login(name)
        if not login.begin(at):
            break
        steps += 1
        if may_be_good(name, hostile, at):
            continue
        told = login.say(HOSTILE[hostile] + b"\r\n", slowly=slowly)
        if told.startswith("334"):  # another question, or why the token is no good
            told = login.say(b"*\r\n")
        assert told[:3] in ("500", "501", "535"), (at, told)
        assert login.protocol.identity == "" and login.protocol.login is None
        assert login.say(b"NOOP\r\n").startswith("250 ")
        assert login.say(b"MAIL FROM:<>\r\n").startswith("250 ")
    assert steps, "the exchange was begun"


def may_be_good(name: str, hostile: str, at: int) -> bool:
    """ANONYMOUS takes any trace, EXTERNAL no name at all; SCRAM's last answer is empty."""
    if name == "ANONYMOUS":
        return hostile in ("nothing", "commas", "another mechanism's message")
    return hostile == "nothing" and (name == "EXTERNAL" or (name.startswith("SCRAM") and at == 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_star_cancels_at_each_step(name: str) -> None:
    steps = 0
    for at in range(4):
        login = Login(name)
        if not login.begin(at):
            break
        steps += 1
        assert login.say(b"*\r\n") == "501 5.7.0 Authentication cancelled"
        assert login.say(b"NOOP\r\n").startswith("250 ") and not login.protocol.identity
    assert steps


@pytest.mark.parametrize("name", NAMES)
def test_a_right_log_in_and_a_second_one(name: str) -> None:
    login = Login(name)
    told = login.say(f"AUTH {name}\r\n".encode())
    while told.startswith("334"):
        told = login.say(b64(login.step(base64.b64decode(told[4:]))) + b"\r\n")
    assert told.startswith("235 ") and login.protocol.identity
    assert login.say(f"AUTH {name}\r\n".encode()).startswith("503 ")
    assert login.say(b"MAIL FROM:<>\r\nAUTH PLAIN\r\n").startswith("503 ")


@pytest.mark.parametrize("name", NAMES)
def test_auth_within_a_transaction_is_refused_and_its_responses_are_no_commands_of_it(name: str) -> None:
    login = Login(name)
    login.say(b"MAIL FROM:<>\r\n")
    assert login.say(f"AUTH {name}\r\n".encode()).startswith("503 ")
    assert login.say(b64(login.step(b"") if name not in ("CRAM-MD5",) else b"x") + b"\r\n").startswith("500 ")
    assert login.say(b"RCPT TO:<a@a.test>\r\n").startswith("250 ")


@pytest.mark.parametrize("name", NAMES)
def test_commands_behind_auth_in_the_same_bytes_are_responses_of_the_exchange(name: str) -> None:
    """Nothing may be pipelined behind AUTH (RFC 4954 4): what is, is taken as the answer that it stands in place of."""
    login = Login(name)
    told = login.say(f"AUTH {name}\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\n".encode())
    assert told.startswith("250 ") and not login.protocol.identity
    assert login.say(b"RCPT TO:<a@a.test>\r\n").startswith("503 "), "the MAIL was no command"


@given(st.sampled_from(NAMES), st.integers(0, 2), st.binary(max_size=300), st.booleans())
def test_random_octets_get_nobody_in(name: str, at: int, data: bytes, encoded: bool) -> None:
    login = Login(name)
    if not login.begin(at) or name in ("ANONYMOUS", "EXTERNAL") or (name.startswith("SCRAM") and at == 2):
        return
    line = b64(data) if encoded else data.replace(b"\r", b"").replace(b"\n", b"")
    told = login.say(line + b"\r\n")
    if told.startswith("334"):
        told = login.say(b"*\r\n")
    assert told[:3] in ("500", "501", "535") and not login.protocol.identity
    assert login.say(b"NOOP\r\n").startswith("250 ")
