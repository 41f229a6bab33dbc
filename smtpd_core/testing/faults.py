"""The language of faults: at which stage, for whom, what goes wrong, how often.

    faults.on("RCPT", to="*@full.test").reply(452, times=2)
    faults.on("content").close()                      accepted, then cut before the reply
    parse("RCPT to=*@full.test reply 452 times=2")    the same language as one line of text

Stages: CONNECT (the banner), a verb, HANDSHAKE (after STARTTLS), or "content" (after the final dot, or after BDAT
LAST). "*" is every stage. In a catcher an address can be the fault: magic("fault.test") makes of a recipient
reply-452@fault.test, close@, stall@, delay-2@, content-reply-554@ or content-close@ what it says.
A plan is deterministic: the first fault in order of writing that matches and is not used up acts, one per stage.
Thread: writing from the test, asking from the server's threads.
Not here: how a fault is played on a connection (faulty.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import inf

from smtpd_core.threads import Lock
from smtpd_core.wire.replies import Reply

CONTENT = "CONTENT"

# What a stage can be asked about. A pattern as in file names; case is ignored.
KEYS = ("to", "sender", "user", "hello")

# What a text may name, besides verbs that begin with X.
STAGES = (
    *("*", "CONNECT", "CONTENT", "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT"),
    *("HELP", "VRFY", "EXPN", "ETRN", "STARTTLS", "HANDSHAKE", "AUTH"),
)


@dataclass(slots=True)
class Fault:
    """One fault. The methods that name what goes wrong return the fault, so that they can be written in a row."""

    stage: str
    where: Mapping[str, str] = field(default_factory=dict)
    says: Reply | None = None  # instead of what the server would have said
    raw: bytes | None = None  # these bytes instead of the reply
    wait: float = 0.0  # seconds before the reply
    rest: float = 0.0  # seconds after the reply in which nothing is read
    is_split: bool = False  # the reply goes out octet by octet
    cut_after: int | None = None  # so many octets of the reply, then the connection is closed
    hang_up_after: int | None = None  # so many octets of content, then the connection is closed
    is_silent: bool = False  # no reply at all, the connection stays
    without: str = ""  # this extension is missing from EHLO's reply
    times: int = 0  # 0 is always
    after: int = 0  # so many matches go by first
    seen: int = 0

    def reply(self, code: int, text: str = "", *, enhanced: str = "", times: int = 0, after: int = 0) -> Fault:
        """Say this. 4xx and 5xx refuse (a 421 ends), 2xx and 3xx accept with other words (LF makes several lines)."""
        self.says = Reply(code, enhanced, text or ("Fault on purpose" if code >= 400 else "Ok"))
        return self._often(times, after)

    def send(self, raw: bytes, *, times: int = 0, after: int = 0) -> Fault:
        """Send these octets, whatever they are, instead of the reply."""
        self.raw = raw
        return self._often(times, after)

    def delay(self, seconds: float, *, times: int = 0, after: int = 0) -> Fault:
        self.wait = seconds
        return self._often(times, after)

    def read_late(self, seconds: float, *, times: int = 0, after: int = 0) -> Fault:
        """After the reply, read nothing for so long."""
        self.rest = seconds
        return self._often(times, after)

    def split(self, *, times: int = 0, after: int = 0) -> Fault:
        """The reply octet by octet, each in a segment of its own."""
        self.is_split = True
        return self._often(times, after)

    def cut(self, octets: int = 0, *, times: int = 0, after: int = 0) -> Fault:
        """So many octets of the reply, then close."""
        self.cut_after = octets
        return self._often(times, after)

    def close(self, *, times: int = 0, after: int = 0) -> Fault:
        """No reply; close. On "content" the message has been accepted: the client can't know."""
        return self.cut(0, times=times, after=after)

    def hang_up(self, octets: int, *, times: int = 0, after: int = 0) -> Fault:
        """Close once so many octets of content have come. For the stage "content"."""
        self.hang_up_after = octets
        return self._often(times, after)

    def stall(self, *, times: int = 0, after: int = 0) -> Fault:
        """Never answer, and never close."""
        self.is_silent = True
        return self._often(times, after)

    def drop(self, extension: str, *, times: int = 0, after: int = 0) -> Fault:
        """EHLO does not show this extension. For the stage EHLO."""
        self.without = extension.upper()
        return self._often(times, after)

    def _often(self, times: int, after: int) -> Fault:
        self.times = times or self.times
        self.after = after or self.after
        return self

    def matches(self, stage: str, facts: Mapping[str, str]) -> bool:
        if self.stage not in ("*", stage):
            return False
        return all(
            any(fnmatchcase(one, pattern.lower()) for one in facts.get(key, "").lower().split("\n"))
            for key, pattern in self.where.items()
        )


class Faults:
    """The plan of one server: faults in the order in which they were written."""

    def __init__(self) -> None:
        self._plan: list[Fault] = []
        self._magic = ""
        self._lock = Lock()

    def on(
        self,
        stage: str,
        *,
        to: str | None = None,
        sender: str | None = None,
        user: str | None = None,
        hello: str | None = None,
    ) -> Fault:
        """A fault at this stage, where all patterns given match. What goes wrong is said on the result. ValueError
        where there is no such stage."""
        if why := _unknown_stage(stage):
            raise ValueError(f"faults.on({stage!r}): {why}")
        given = {"to": to, "sender": sender, "user": user, "hello": hello}
        fault = Fault(stage.upper(), {key: pattern for key, pattern in given.items() if pattern is not None})
        with self._lock:
            self._plan.append(fault)
        return fault

    def add(self, text: str) -> None:
        """A fault written as text, see parse(), or "magic DOMAIN"."""
        word, _, domain = text.partition(" ")
        if word == "magic":
            self.magic(domain)
            return
        fault = parse(text)
        with self._lock:
            self._plan.append(fault)

    def magic(self, domain: str) -> None:
        """From now on recipients in this domain say themselves what goes wrong. ValueError without a domain."""
        if not domain.strip() or "@" in domain:
            raise ValueError(f"magic {domain!r}: a domain is due, as in 'magic fault.test'")
        with self._lock:
            self._magic = domain.strip().lower()

    def clear(self) -> None:
        with self._lock:
            self._plan.clear()
            self._magic = ""

    def take(self, stage: str, facts: Mapping[str, str]) -> Fault | None:
        """The fault that acts now; counts it."""
        with self._lock:
            for fault in self._plan:
                if fault.hang_up_after is not None or not fault.matches(stage, facts):
                    continue
                fault.seen += 1
                if fault.seen <= fault.after or (fault.times and fault.seen > fault.after + fault.times):
                    continue
                return fault
        return self._of_address(stage, facts.get("to", "")) if self._magic else None

    def _of_address(self, stage: str, to: str) -> Fault | None:
        for address in to.lower().split("\n"):
            local, _, domain = address.rpartition("@")
            if domain == self._magic:
                words = local.split("-")
                at = CONTENT if words[0] == CONTENT.lower() else "RCPT"
                if at == stage:
                    try:
                        return parse(" ".join([at, *words[at == CONTENT :]]))
                    except ValueError:
                        return None  # an address like any other
        return None

    def hang_up_after(self, facts: Mapping[str, str]) -> int | None:
        """Octets of content after which to close, for the transaction that begins now."""
        with self._lock:
            for fault in self._plan:
                if fault.hang_up_after is None or not fault.matches(CONTENT, facts):
                    continue
                fault.seen += 1
                if fault.after < fault.seen and (not fault.times or fault.seen <= fault.after + fault.times):
                    return fault.hang_up_after
        return None


def parse(text: str) -> Fault:
    """STAGE [to=P] [sender=P] [user=P] [hello=P] ACTION [ARGUMENT...] [times=N] [after=N]

    Actions: reply CODE [TEXT], send TEXT, delay SECONDS, read-late SECONDS, split, cut OCTETS, close, hang-up OCTETS,
    stall, drop EXTENSION. Raises ValueError that names the word and what would be right.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"fault {text!r}: {str(error).lower()}") from None
    if len(words) < 2:
        raise ValueError(f"fault {text!r}: a stage and an action are due, as in 'RCPT to=*@full.test reply 452'")
    if why := _unknown_stage(words[0]):
        raise ValueError(f"fault {text!r}: {why}")
    settings = {"times": 0, "after": 0}
    where: dict[str, str] = {}
    plain: list[str] = []
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if equals and key in KEYS:
            where[key] = value
        elif equals and key in settings:
            settings[key] = _number(text, value)
        else:
            plain.append(word)
    if not plain:
        raise ValueError(f"fault {text!r}: no action; one of {', '.join(_ACTIONS)} is due")
    action, arguments = plain[0], plain[1:]
    if action not in _ACTIONS:
        raise ValueError(f"fault {text!r}: no action {action!r}; one of {', '.join(_ACTIONS)} is due")
    fault = Fault(words[0].upper(), where, times=settings["times"], after=settings["after"])
    wanted = _ACTIONS[action]
    if wanted and not arguments:
        raise ValueError(f"fault {text!r}: {action} needs {wanted}")
    if action not in ("reply", "send") and len(arguments) > bool(wanted):
        raise ValueError(f"fault {text!r}: nothing is due after {' '.join(plain[: 1 + bool(wanted)])}")
    if action == "reply":
        fault.reply(_number(text, arguments[0]), " ".join(arguments[1:]))
    elif action == "send":
        fault.send(" ".join(arguments).encode() + b"\r\n")
    elif action in ("delay", "read-late"):
        seconds = _seconds(text, arguments[0])
        fault.delay(seconds) if action == "delay" else fault.read_late(seconds)
    elif action == "cut":
        fault.cut(_number(text, arguments[0]))
    elif action == "hang-up":
        fault.hang_up(_number(text, arguments[0]))
    elif action == "drop":
        fault.drop(arguments[0])
    elif action == "split":
        fault.split()
    elif action == "close":
        fault.close()
    else:
        fault.stall()
    return fault


_ACTIONS = {
    "reply": "a code",
    "send": "text",
    "delay": "seconds",
    "read-late": "seconds",
    "split": "",
    "cut": "a number of octets",
    "close": "",
    "hang-up": "a number of octets",
    "stall": "",
    "drop": "the name of an extension",
}


def _unknown_stage(stage: str) -> str:
    """What is wrong with the name of a stage, "" where nothing is."""
    name = stage.upper()
    if name in STAGES or name.startswith("X"):
        return ""
    near = get_close_matches(name, STAGES, 1)
    return f"no stage {stage!r}" + (f"; did you mean {near[0]}?" if near else "")


def _number(text: str, word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise ValueError(f"fault {text!r}: a whole number is due, not {word!r}")
    return int(word)


def _seconds(text: str, word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise ValueError(f"fault {text!r}: seconds are due, not {word!r}")
    return seconds
