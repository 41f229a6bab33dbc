"""Whatever arrives, in whatever pieces, the core answers or asks for more: no exception, bounded and equal replies.

    python -m tests.wire.fuzz_core [--cases N] [--seed N] [--engine own|guided|both]

The own engine makes dialogues from words that make sense and words that do not; the guided one is atheris (extra
`fuzz`), which looks for new paths through the core.

One case is a string of octets: three that choose settings, cutting and verdicts, then what the client sends. Both
engines run the same case(); a violation prints the case as a Python literal, and `--case LITERAL` runs it again.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from smtpd_core.wire import events, replies
from smtpd_core.wire.command_table import CustomVerb
from smtpd_core.wire.events import AWAITING_VERDICT, ENDED, NEED_BYTES, OUTPUT_FULL, Event, Waiting
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.rules import Phase
from smtpd_core.wire.server import MAX_OUTPUT, ProtocolSettings, ServerProtocol
from tests.support.transcript import comparable

MECHANISMS = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2", "EXTERNAL")
WRAPPED = (CustomVerb("MAIL", "wrap"), CustomVerb("XYZZY"), CustomVerb("VRFY", "replace"))
SETTINGS = (
    ProtocolSettings(max_errors=0, starttls=True, mechanisms=MECHANISMS, clear_text_without_tls=True, expn=True),
    ProtocolSettings(max_errors=3, max_message_size=60, max_recipients=2, max_command_line=512, etrn=True),
    ProtocolSettings(max_errors=0, normalise_line_ends=True, strict_lines=True, keep_nul=True, commands=WRAPPED),
    ProtocolSettings(max_errors=0, service="lmtp", max_message_size=0, normalise_chunks=True),
    ProtocolSettings(max_errors=0, service="submission", mechanisms=MECHANISMS, login_required=True, requiretls=True),
    ProtocolSettings(max_errors=0, starttls=True, tls_required=True, without=frozenset({"CHUNKING", "SIZE"})),
)
REFUSALS = (None, Reply(550, "5.7.1", "no\nnot ever"), replies.storage_452, replies.hook_failed_451)
CUTS = ((1,), (2, 3), (7, 1, 64), (1, 1, 1, 500), (16,), (3, 5, 1, 2), (1000,), (13, 2))
LEGAL = re.compile(rb"(?:(?:\d{3}-[ -~]*\r\n)*\d{3}(?: [ -~]*)?\r\n)*")
NONCE = re.compile(rb"334 [^\r]+")  # challenges differ from run to run
INSIDE = (events.BodyChunk, events.ContentEnds, events.ContentDropped)


# One case in so many is guided by coverage: that engine is ten times slower, and finds what it finds early.
GUIDED = 20


class Violation(AssertionError):
    pass


def case(data: bytes) -> int:
    """Run one case; the number of events it had. Raises Violation, or whatever the core let out."""
    if len(data) < 3:
        return 0
    settings, cut, policy = SETTINGS[data[0] % len(SETTINGS)], CUTS[data[1] % len(CUTS)], data[2]
    stream = data[3:]
    whole = run(settings, (len(stream) or 1,), policy, stream)
    pieces = run(settings, cut, policy, stream)
    if whole[3] or pieces[3]:
        return len(whole[1])  # after STARTTLS the stream is another one
    if whole[0] != pieces[0]:
        raise Violation(f"replies differ:\n{whole[0]!r}\n{pieces[0]!r}")
    if comparable(whole[1]) != comparable(pieces[1]):
        raise Violation(f"events differ:\n{comparable(whole[1])}\n{comparable(pieces[1])}")
    if whole[2] is not pieces[2]:
        raise Violation(f"phases differ: {whole[2]}, {pieces[2]}")
    return len(whole[1])


def run(
    settings: ProtocolSettings, cut: Sequence[int], policy: int, stream: bytes
) -> tuple[bytes, list[Event], Phase, bool]:
    """Everything said, every event, the last phase, and whether TLS came into it."""
    protocol = ServerProtocol(settings)
    protocol.client_is_trusted = bool(policy & 64)
    found: list[Event] = []
    said: list[bytes] = []
    verdicts = 0
    upgraded = False
    state = _drain(protocol, found, said)
    at = piece = 0
    while True:
        while not isinstance(state, Waiting):
            event = state
            upgraded |= isinstance(event, events.StartTls)
            if isinstance(event, events.Upgrade):
                protocol.tls_is_up({"tls-exporter": b"x"} if policy & 32 else {}, "ann" if policy & 16 else "")
            elif protocol.verdict is not None:
                verdicts += 1
                _decide(protocol, event, policy, verdicts)
            state = _drain(protocol, found, said)
        if state is AWAITING_VERDICT:
            raise Violation(f"a verdict is awaited after {found[-1]}")
        if state is ENDED:
            if protocol.phase is not Phase.ENDED or protocol.next_event() is not ENDED:
                raise Violation("ENDED is not the end")
            break
        if at >= len(stream):
            if protocol.input_ended:
                raise Violation("the end of input is not the end")
            last = protocol.phase
            protocol.end_of_input()
            state = _drain(protocol, found, said)
            if state is NEED_BYTES:
                raise Violation(f"bytes are asked for after their end, in {last.name}")
            continue
        size = cut[piece % len(cut)]
        piece += 1
        protocol.receive(stream[at : at + size])
        at += size
        state = _drain(protocol, found, said)
    _check_order(found)
    return NONCE.sub(b"334 ?", b"".join(said)), found, protocol.phase, upgraded


def _drain(protocol: ServerProtocol, found: list[Event], said: list[bytes]) -> Event | Waiting:
    while True:
        event = protocol.next_event()
        output = protocol.take_output()
        if output:
            if len(output) > MAX_OUTPUT + 70_000 or not LEGAL.fullmatch(output):
                raise Violation(f"not a sequence of replies, or too many: {output[:2000]!r}")
            said.append(output)
        if event is OUTPUT_FULL:
            continue
        if not isinstance(event, Waiting):
            found.append(event)
        return event


def _decide(protocol: ServerProtocol, event: Event, policy: int, number: int) -> None:
    """Policy bits by turns: mostly yes, sometimes one of the refusals."""
    if isinstance(event, events.NeedSecret):
        if policy & 8:
            protocol.supply("ann")
        elif policy & 4:
            protocol.supply(None)
        else:
            protocol.refuse()
    elif isinstance(event, events.AuthFailed) or (number % 5 == 4 and policy & (1 << number % 3)):
        protocol.refuse(REFUSALS[number % len(REFUSALS)])
    elif isinstance(event, events.ContentEnds) and protocol.settings.service == "lmtp" and policy & 2:
        protocol.accept(replies=[replies.ok_250] * protocol.recipients)
    else:
        protocol.accept()


def _check_order(found: list[Event]) -> None:
    """Content comes only between ContentBegins and its end; a transaction only after MAIL."""
    inside = False
    for event in found:
        if isinstance(event, events.ContentBegins):
            inside = True
        elif isinstance(event, INSIDE):
            if not inside:
                raise Violation(f"{event} outside of content")
            inside = isinstance(event, events.BodyChunk)
        elif isinstance(event, events.TransactionReset):
            inside = False


# The generator of our own: what dialogues are made of, in an order that often makes sense and often does not.

WORDS = [
    *(b"EHLO a", b"HELO a.test", b"LHLO [127.0.0.1]", b"EHLO", b"ehlo [IPv6:::1]", b"NOOP", b"RSET", b"QUIT", b"HELP"),
    *(b"MAIL FROM:<>", b"MAIL FROM:<a@b.test>", b"mail from:<@r.test:a@b.test> size=10 body=8bitmime", b"MAIL FROM:a"),
    *(
        b"MAIL FROM:<a@b.test> BODY=BINARYMIME",
        b"MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8",
        b"MAIL FROM:<a@b.test> SIZE=61",
    ),
    *(
        b"MAIL FROM:<a@b.test> RET=HDRS ENVID=x+2By AUTH=<> BY=10;RT MT-PRIORITY=3 HOLDFOR=9",
        b"MAIL FROM:<a@b> REQUIRETLS",
    ),
    *(b"RCPT TO:<a@b.test>", b"RCPT TO:<postmaster>", b"RCPT TO:<a@b.test> NOTIFY=NEVER ORCPT=rfc822;a", b"RCPT TO:<>"),
    *(
        b'RCPT TO:<"a b"@[1.2.3.4]>',
        b"DATA",
        b"data ",
        b"DATA x",
        b"BDAT 3",
        b"BDAT 5 LAST",
        b"BDAT 0 LAST",
        b"BDAT 70",
    ),
    *(b"BDAT", b"BDAT 99999999999999999999", b"BDAT 2 x", b".", b"..", b".x", b"text", b"STARTTLS", b"AUTH PLAIN"),
    *(
        b"AUTH PLAIN AGFubgBzZWNyZXQ=",
        b"AUTH LOGIN",
        b"AUTH CRAM-MD5",
        b"AUTH SCRAM-SHA-256 bixuPWFubixyPWE=",
        b"*",
        b"=",
    ),
    *(
        b"AUTH XOAUTH2 =",
        b"AUTH EXTERNAL =",
        b"YW5u",
        b"c2VjcmV0",
        b"VRFY a",
        b"EXPN a",
        b"ETRN a.test",
        b"TURN",
        b"XYZZY",
    ),
    *(b"XCLIENT NAME=a LOGIN=b", b"XFORWARD ADDR=1.2.3.4", b"GET / HTTP/1.1", b"x" * 600, b"", b" ", b"HELP MAIL"),
]
ENDS = [b"\r\n"] * 24 + [
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\0\r\n",
    b"",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r\n.\r",
    b"\r\n.\n",
    b" \r\n",
]
STARTS = [
    b"",
    b"EHLO a\r\n",
    b"LHLO a\r\n",
    b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\n",
    b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nRCPT TO:<d@c.test>\r\n",
    b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nDATA\r\n",
    b"EHLO a\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@c.test>\r\nBDAT 9\r\n",
    b"EHLO a\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.test>\r\nBDAT 4 LAST\r\n",
]


def made(source: random.Random) -> bytes:
    """One case."""
    pieces = [bytes(source.getrandbits(8) for _ in range(3)), source.choice(STARTS)]
    for _ in range(source.randrange(1, 12)):
        word = source.choice(WORDS)
        luck = source.random()
        if luck < 0.04 and word:
            at = source.randrange(len(word))
            word = word[:at] + bytes((source.getrandbits(8),)) + word[at + 1 :]
        elif luck < 0.06:
            word = source.randbytes(source.randrange(30))
        elif luck < 0.08:
            word = word[: source.randrange(len(word) + 1)] + source.choice(WORDS)
        pieces += (word, source.choice(ENDS))
    return b"".join(pieces)


def generate(cases: int, seed: int, *, tell: bool = False) -> None:
    """Run so many cases from this seed."""
    source = random.Random(seed)
    began = time.monotonic()
    total = 0
    for number in range(1, cases + 1):
        data = made(source)
        try:
            total += case(data)
        except Exception as error:
            raise Violation(f"seed {seed}, case {number}: {data!r}: {type(error).__name__}: {error}") from error
        if tell and number % 100_000 == 0:
            print(f"{number} cases, {total} events, {time.monotonic() - began:.0f} s", flush=True)


def guided(cases: int, seed: int, folder: str) -> None:
    """Coverage-guided, by atheris, from cases of our own as its first corpus. Ends the process: libFuzzer does."""
    import atheris

    _instrument(atheris)
    source = random.Random(seed)
    seeds, words = Path(folder, "seeds"), Path(folder, "words")
    seeds.mkdir()
    for number in range(1_000):
        Path(seeds, str(number)).write_bytes(made(source))
    words.write_text("".join(f'"{_escaped(one)}"\n' for one in {*WORDS, *ENDS, *STARTS} if one))
    flags = [f"-runs={cases}", f"-seed={seed}", "-max_len=1024", "-verbosity=0", f"-dict={words}"]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(seeds)], _guarded)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02X}" for octet in word)


def _instrument(atheris: Any) -> None:
    """Coverage is counted in the core, not in this file and not in the standard library."""
    for name in [name for name in sys.modules if name.startswith("smtpd_core.wire")]:
        for thing in list(vars(sys.modules[name]).values()):
            members = list(vars(thing).values()) if isinstance(thing, type) else [thing]
            for one in members:
                if isinstance(one, FunctionType) and one.__module__ == name:
                    atheris.instrument_func(one)


def _guarded(data: bytes) -> None:
    try:
        case(data)
    except Exception as error:
        raise Violation(f"{data!r}: {error}") from error


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--cases", type=int, default=1_000_000)
    words.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    words.add_argument("--case", help="one case as a Python bytes literal")
    words.add_argument("--folder", default=".", help="where the guided engine keeps its corpus")
    words.add_argument("--engine", choices=("own", "guided", "both"), default="both")
    given = words.parse_args()
    if given.case:
        print(case(ast.literal_eval(given.case)), "events, no violation")
        return 0
    seed = random.SystemRandom().getrandbits(31) if given.seed is None else given.seed
    if given.engine == "guided":
        guided(given.cases, seed, given.folder)
    print((__doc__ or "").splitlines()[0])
    print(f"seed {seed}, {given.cases} cases", flush=True)
    left = given.cases
    if given.engine == "both" and importlib.util.find_spec("atheris"):
        guided_cases = given.cases // GUIDED
        left -= guided_cases
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.wire.fuzz_core", "--engine", "guided", "--folder", folder]
            subprocess.run([*command, "--cases", str(guided_cases), "--seed", str(seed)], check=True)
        print(f"{guided_cases} of them guided by coverage", flush=True)
    elif given.engine == "both":
        print("none guided by coverage: atheris is not installed (extra fuzz)", flush=True)
    generate(left, seed, tell=True)
    print(f"{given.cases} cases without a violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
