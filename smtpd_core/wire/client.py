"""The client half of SMTP and LMTP, without I/O: commands become bytes, bytes become answers to those commands.

Rule 1: every answer is given to the oldest command that has none; one that nobody asked for is Step.UNASKED (a 421 in
        mid-content, say).
Rule 2: whether commands may be pipelined is the caller's choice; the client queues what it is told and keeps count.
Rule 3: nothing that came from outside can end a command early: addresses and parameters are checked here.
Thread: one at a time, the courier that holds the conversation.
Not here: sockets and time-outs (relay/conversation.py), what an answer means for a message (relay/judge.py).
"""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from smtpd_core.wire.answers import Answer, AnswerReader
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.sasl.client import Mechanism, SaslError
from smtpd_core.wire.stuffing import Stuffer


class Step(Enum):
    """What an answer answers."""

    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    RSET = "rset"
    NOOP = "noop"
    QUIT = "quit"
    OTHER = "other"
    UNASKED = "unasked"


@dataclass(slots=True)
class Answered:
    """One answer. `number` is the recipient's place in its transaction for RCPT, and for CONTENT under LMTP."""

    step: Step
    answer: Answer
    number: int = 0


class Observer(Protocol):
    """Hears the dialogue, secrets masked."""

    def command(self, text: str) -> None: ...

    def reply(self, answer: Answer) -> None: ...


# A command line; extensions add to the 512 of RFC 5321 4.5.3.1.4, and an AUTH response has 12 288 (RFC 4954 4).
MAX_COMMAND = 12_288

# A path without its brackets: quoted strings may hold spaces and brackets, nothing else may, and no control character
# passes anywhere. Loose on purpose: the server that took the address judged its grammar.
_PATH = re.compile(r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"|[^\x00-\x20\x7f"<>\\])*\Z')
_WORD = re.compile(r"[!-~]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Client:
    """A dialogue from its greeting on. Call commands, send take_output(), feed receive(), read next_answer().

    `extensions` maps EHLO keywords, in capitals, to their parameters; empty before a hello and after HELO.
    """

    def __init__(self, *, lmtp: bool = False, observer: Observer | None = None) -> None:
        self.lmtp = lmtp
        self.observer = observer
        self.extensions: dict[str, str] = {}
        self.peer_name = ""
        self.bindings: Mapping[str, bytes] = {}
        self.tls_is_up = False
        self.login_error = ""
        self.is_logged_in = False
        self._reader = AnswerReader()
        self._output: list[bytes] = []
        self._owed: deque[tuple[Step, int]] = deque([(Step.GREETING, 0)])
        self._mechanism: Mechanism | None = None
        self._stuffer = Stuffer()
        self._asked = 0  # RCPT commands of this transaction
        self._accepted: list[int] = []

    # Bytes in and out

    def receive(self, data: bytes) -> None:
        self._reader.receive(data)

    def take_output(self) -> bytes:
        output, self._output = b"".join(self._output), []
        return output

    @property
    def has_output(self) -> bool:
        return bool(self._output)

    @property
    def pending(self) -> int:
        """Bytes that wait in the output."""
        return sum(map(len, self._output))

    @property
    def has_unread(self) -> bool:
        """Whether something was said that nobody read yet."""
        return self._reader.is_inside

    @property
    def owed(self) -> int:
        """How many answers are still to come."""
        return len(self._owed)

    @property
    def owed_step(self) -> Step:
        """What the next answer will be for."""
        return self._owed[0][0] if self._owed else Step.UNASKED

    def next_answer(self) -> Answered | None:
        """The next answer, None where bytes are missing. Raises BrokenAnswer."""
        while True:
            answer = self._reader.next()
            if answer is None:
                return None
            if self.observer is not None:
                self.observer.reply(answer)
            step, number = self._owed.popleft() if self._owed else (Step.UNASKED, 0)
            if step is Step.AUTH and answer.code == 334 and self._mechanism is not None:
                self._respond(answer)
                continue
            self._learn(step, number, answer)
            return Answered(step, answer, number)

    def _learn(self, step: Step, number: int, answer: Answer) -> None:
        if step is Step.HELLO:
            self._read_extensions(answer)
        elif step is Step.RCPT and answer.is_positive:
            self._accepted.append(number)
        elif step is Step.AUTH:
            mechanism, self._mechanism = self._mechanism, None
            self.is_logged_in = answer.is_positive
            if mechanism is not None and answer.is_positive and not mechanism.is_proven:
                self.login_error = f"{mechanism.name}: the server did not prove that it knows the password"

    def _read_extensions(self, answer: Answer) -> None:
        self.extensions = {}
        if not answer.is_positive:
            return
        name, *lines = answer.text.split("\n")
        self.peer_name = name.split(" ")[0][:255]
        for line in lines:
            keyword, _, parameters = line.strip().partition(" ")
            if keyword.upper().startswith("AUTH="):  # an old spelling, still seen beside the right one
                keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
            keyword = keyword.upper()
            self.extensions[keyword] = f"{self.extensions.get(keyword, '')} {parameters}".strip()

    # Commands outside a transaction

    def hello(self, name: str, *, extended: bool = True) -> None:
        """EHLO (HELO where not `extended`, LHLO under LMTP). What an earlier hello told is forgotten."""
        self.extensions = {}
        self._say(f"{'LHLO' if self.lmtp else 'EHLO' if extended else 'HELO'} {_word(name)}", Step.HELLO)

    def starttls(self) -> None:
        self._say("STARTTLS", Step.STARTTLS)

    def tls_came_up(self, bindings: Mapping[str, bytes]) -> None:
        """The handshake is over: forget all that was said before (RFC 3207 4.2). What came in clear text behind the
        STARTTLS reply never counts as said under TLS."""
        self._reader.forget()
        self.extensions = {}
        self.bindings = bindings
        self.tls_is_up = True

    def log_in(self, mechanism: Mechanism) -> None:
        """AUTH (RFC 4954). Challenges are answered in here; the Answered that comes out is the last word."""
        self._mechanism = mechanism
        self.login_error = ""
        first = mechanism.first()
        line = f"AUTH {_word(mechanism.name)}"
        if first is None:
            self._say(line, Step.AUTH)
        else:
            response = base64.b64encode(first).decode() or "="
            self._say(f"{line} {response}", Step.AUTH, shown=f"{line} ****")

    def _respond(self, challenge: Answer) -> None:
        assert self._mechanism is not None
        try:
            told = base64.b64decode(challenge.text.strip(), validate=True)
            response = base64.b64encode(self._mechanism.respond(told)).decode()
        except (SaslError, ValueError) as error:
            self.login_error = str(error) if isinstance(error, SaslError) else "the challenge is not base64"
            self._mechanism = None
            self._say("*", Step.AUTH)
            return
        self._owed.appendleft((Step.AUTH, 0))
        self._write(response, "****")

    def reset(self) -> None:
        self._asked, self._accepted = 0, []
        self._say("RSET", Step.RSET)

    def noop(self) -> None:
        self._say("NOOP", Step.NOOP)

    def quit(self) -> None:
        self._say("QUIT", Step.QUIT)

    def say(self, line: str) -> None:
        """Any other command. Raises ValueError for a line with a control character in it."""
        if _CONTROL.search(line):
            raise ValueError("a command may not hold a control character")
        self._say(line, Step.OTHER)

    # A transaction

    def mail(self, sender: str, parameters: str = "") -> None:
        """MAIL with parameters as mail_parameters() gives them. Raises ValueError for an address that can't be said."""
        self._asked, self._accepted = 0, []
        self._stuffer = Stuffer()
        self._say(f"MAIL FROM:<{_path(sender)}>{_parameters(parameters)}", Step.MAIL)

    def rcpt(self, address: str, parameters: str = "") -> None:
        """RCPT. Recipients are numbered from 0 in the order asked."""
        self._say(f"RCPT TO:<{_path(address)}>{_parameters(parameters)}", Step.RCPT, self._asked)
        self._asked += 1

    def data(self) -> None:
        self._say("DATA", Step.DATA)

    def content(self, piece: bytes) -> None:
        """A piece of the content, after 354. Send take_output() after each, so that memory holds one piece."""
        self._output.append(self._stuffer.stuffed(piece))

    def end_content(self) -> None:
        """The final dot. LMTP owes one answer for each recipient that was accepted, SMTP one."""
        self._output.append(self._stuffer.finish())
        self._owe_content()

    def chunk(self, piece: bytes, *, last: bool) -> None:
        """BDAT (RFC 3030), content as is. Each chunk is answered; under LMTP the last once for each recipient."""
        command = f"BDAT {len(piece)}{' LAST' if last else ''}"
        self._write(command, command)
        self._output.append(piece)
        if last:
            self._owe_content()
        else:
            self._owed.append((Step.DATA, 0))

    def _owe_content(self) -> None:
        if self.lmtp:
            self._owed.extend((Step.CONTENT, number) for number in self._accepted)
        else:
            self._owed.append((Step.CONTENT, 0))

    def _say(self, line: str, step: Step, number: int = 0, shown: str = "") -> None:
        if len(line) > MAX_COMMAND:
            raise ValueError(f"a command of {len(line)} characters; {MAX_COMMAND} are the most")
        self._write(line, shown or line)
        self._owed.append((step, number))

    def _write(self, line: str, shown: str) -> None:
        if self.observer is not None:
            self.observer.command(shown)
        self._output.append(line.encode() + b"\r\n")


def number_in(text: str) -> int:
    """What an extension's parameter says in digits; 0, which mostly means no limit, where it is no sane number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _path(address: str) -> str:
    if not _PATH.match(address):
        raise ValueError(f"address {address[:80]!r} can't be said in SMTP")
    return address


def _word(text: str) -> str:
    if not _WORD.match(text):
        raise ValueError(f"{text[:80]!r} is not one word of printable ASCII")
    return text


def _parameters(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("a parameter may not hold a control character")
    return f" {text}" if text else ""


def mail_parameters(
    parameters: MailParameters,
    extensions: Mapping[str, str],
    *,
    size: int,
    body: str = "",
    utf8: bool = False,
    logged_in: bool = False,
) -> str:
    """The parameters of MAIL that this hop understands; `size` in bytes as it will be sent, `body` what the content
    really is by now, `utf8` whether anything in the message needs SMTPUTF8. AUTH= is not passed on, for RFC 4954 5 asks
    for trust between the two that nobody configured: where we are logged in (`logged_in`) it is <> instead."""
    words = []
    if logged_in and "AUTH" in extensions:
        words.append("AUTH=<>")
    if "SIZE" in extensions:
        words.append(f"SIZE={size}")
    if body and ("8BITMIME" in extensions if body != "BINARYMIME" else "BINARYMIME" in extensions):
        words.append(f"BODY={body}")
    if utf8 and "SMTPUTF8" in extensions:
        words.append("SMTPUTF8")
    if "DSN" in extensions:
        if parameters.ret:
            words.append(f"RET={parameters.ret}")
        if parameters.envid:
            words.append(f"ENVID={xtext(parameters.envid)}")
    if parameters.by is not None and "DELIVERBY" in extensions:
        # What is left of the time is the caller's to reckon (RFC 2852 4.1.4).
        words.append(f"BY={parameters.by.seconds};{parameters.by.mode}{'T' if parameters.by.trace else ''}")
    if parameters.priority is not None and "MT-PRIORITY" in extensions:
        words.append(f"MT-PRIORITY={parameters.priority}")
    return " ".join(words)


def rcpt_parameters(recipient: Recipient, extensions: Mapping[str, str]) -> str:
    """NOTIFY and ORCPT where the hop offers DSN."""
    if "DSN" not in extensions:
        return ""
    words = []
    if recipient.notify:
        words.append(f"NOTIFY={','.join(recipient.notify)}")
    if recipient.orcpt:
        kind, _, address = recipient.orcpt.partition(";")
        if _WORD.match(kind):
            encode = utf8_xtext if kind.lower() == "utf-8" else xtext
            words.append(f"ORCPT={kind};{encode(address)}")
    return " ".join(words)


def xtext(text: str) -> str:
    """RFC 3461 4; characters beyond ASCII in the form of RFC 6533 3."""
    return "".join(
        c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" if ord(c) < 128 else f"\\x{{{ord(c):X}}}"
        for c in text
    )


def utf8_xtext(text: str) -> str:
    """RFC 6533 3, utf-8-addr-xtext: what is no QCHAR is told by its code point, the backslash among it."""
    return "".join(c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in text)
