"""One fault: a stage, for whom, what goes wrong there, how often.

Stages: CONNECT (the banner), a verb, HANDSHAKE (of TLS, whether after STARTTLS or from the beginning), or "content"
(after the final dot, or after BDAT LAST). "*" is every stage.
Thread: written by the test, read by the server's threads.
Not here: the plan of a server (faults.py), faults as text (fault_text.py), how one is played (faulty.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf

from smtpd_core.testing.certificates import checked
from smtpd_core.testing.patterns import fits
from smtpd_core.wire.extensions import EXTENSIONS
from smtpd_core.wire.replies import Reply

HANDSHAKE = "HANDSHAKE"
CONTENT = "CONTENT"

# What a stage can be asked about, by patterns.
KEYS = ("to", "sender", "user", "hello")

# What a text may name, besides verbs that begin with X.
STAGES = (
    *("*", "CONNECT", CONTENT, "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT"),
    *("HELP", "VRFY", "EXPN", "ETRN", "STARTTLS", HANDSHAKE, "AUTH"),
)

# What is not known yet at a stage, so that no pattern can be for it.
_NOT_YET = {
    "CONNECT": KEYS,
    HANDSHAKE: ("to", "sender", "user"),
    **dict.fromkeys(("EHLO", "HELO", "LHLO", "STARTTLS", "AUTH"), ("to", "sender")),
    "MAIL": ("to",),
}

# What can go wrong at a single stage.
_AT = {"hang_up": (CONTENT,), "drop": ("EHLO", "LHLO"), "certificate": (HANDSHAKE,)}

# What can go wrong in a handshake.
_IN_HANDSHAKE = ("certificate", "stall", "close", "cut", "send")


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
    certificate_name: str = ""  # this one is shown, of certificates.CERTIFICATES
    is_silent: bool = False  # no reply at all, the connection stays
    without: str = ""  # this extension is missing from EHLO's reply
    times: int = 0  # 0 is always
    after: int = 0  # so many matches go by first
    seen: int = 0
    is_said: bool = False  # what goes wrong; until then it is no fault

    def __post_init__(self) -> None:
        if unknown := [key for key in self.where if key in _NOT_YET.get(self.stage, ())]:
            raise ValueError(f"at {self.stage} the server does not know {' and '.join(unknown)} yet: this never acts")

    def __str__(self) -> str:
        where = "".join(f" {key}={pattern}" for key, pattern in self.where.items())
        return f"{self.stage}{where}" + ("" if self.is_said else " (which says not what goes wrong)")

    @property
    def has_acted(self) -> bool:
        return self.seen > self.after

    def reply(self, code: int, text: str = "", *, enhanced: str = "", times: int = 0, after: int = 0) -> Fault:
        """Say this. 4xx and 5xx refuse (a 421 ends), 2xx and 3xx accept with other words (LF makes several lines)."""
        self._fits("reply")
        _whole("reply", code)
        self.says = Reply(code, enhanced, text or ("Fault on purpose" if code >= 400 else "Ok"))
        return self._often(times, after)

    def send(self, raw: bytes, *, times: int = 0, after: int = 0) -> Fault:
        """Send these octets, whatever they are, instead of the reply. In a handshake, and close."""
        if not isinstance(raw, bytes):
            raise TypeError(f"send({raw!r}): octets are due, as in b'250 Ok\\r\\n'")
        self.raw = raw
        return self._often(times, after)

    def delay(self, seconds: float, *, times: int = 0, after: int = 0) -> Fault:
        """The reply comes so much later."""
        self._fits("delay")
        self.wait = _seconds("delay", seconds)
        return self._often(times, after)

    def read_late(self, seconds: float, *, times: int = 0, after: int = 0) -> Fault:
        """After the reply, read nothing for so long."""
        self._fits("read_late")
        self.rest = _seconds("read_late", seconds)
        return self._often(times, after)

    def split(self, *, times: int = 0, after: int = 0) -> Fault:
        """The reply octet by octet, each in a segment of its own."""
        self._fits("split")
        self.is_split = True
        return self._often(times, after)

    def cut(self, octets: int = 0, *, times: int = 0, after: int = 0) -> Fault:
        """So many octets of the reply (or of what TLS says in its handshake), then close."""
        self.cut_after = _whole("cut", octets)
        return self._often(times, after)

    def close(self, *, times: int = 0, after: int = 0) -> Fault:
        """No reply; close. On "content" the message has been accepted: the client can't know."""
        return self.cut(0, times=times, after=after)

    def hang_up(self, octets: int, *, times: int = 0, after: int = 0) -> Fault:
        """Close once so many octets of content have come. For the stage "content"."""
        self._fits("hang_up")
        self.hang_up_after = _whole("hang_up", octets)
        return self._often(times, after)

    def stall(self, *, times: int = 0, after: int = 0) -> Fault:
        """Never answer, and never close."""
        self.is_silent = True
        return self._often(times, after)

    def drop(self, extension: str, *, times: int = 0, after: int = 0) -> Fault:
        """EHLO does not show this extension. For the stage EHLO."""
        self._fits("drop")
        self.without = known_extension(extension)
        return self._often(times, after)

    def certificate(self, name: str, *, times: int = 0, after: int = 0) -> Fault:
        """Show this certificate: "expired", "wrong-host", "untrusted", "self-signed" and so on. For HANDSHAKE."""
        self._fits("certificate")
        self.certificate_name = checked(name)
        return self._often(times, after)

    def _fits(self, action: str) -> None:
        """ValueError where this can't go wrong at this stage."""
        if self.stage == "*":
            return
        stages = _AT.get(action)
        if stages and self.stage not in stages:
            raise ValueError(f"{action} is for {stages[0]}, not for {self.stage}")
        if self.stage == HANDSHAKE and action not in _IN_HANDSHAKE:
            raise ValueError(f"{action} is nothing for {HANDSHAKE}; one of {', '.join(_IN_HANDSHAKE)} is due")

    @property
    def is_of_handshake(self) -> bool:
        """Whether it says what goes wrong in a handshake."""
        return bool(self.certificate_name or self.is_silent or self.cut_after is not None or self.raw is not None)

    def _often(self, times: int, after: int) -> Fault:
        self.times = _whole("times", times) or self.times
        self.after = _whole("after", after) or self.after
        self.is_said = True
        return self

    def matches(self, stage: str, facts: Mapping[str, str]) -> bool:
        if not self.is_said or self.stage not in ("*", stage) or (stage == HANDSHAKE and not self.is_of_handshake):
            return False
        return all(
            any(fits(pattern, one) for one in facts.get(key, "").split("\n")) for key, pattern in self.where.items()
        )


def _whole(name: str, number: int) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"{name} {number!r}: a whole number is due, 0 or more")
    return number


def _seconds(name: str, seconds: float) -> float:
    if not isinstance(seconds, int | float) or not 0 <= seconds < inf:
        raise ValueError(f"{name} {seconds!r}: seconds are due, 0 or more")
    return seconds


def known_extension(name: str) -> str:
    """The keyword of an extension. ValueError where it looks like a slip; a server may have others of its own."""
    keyword = name.upper()
    known = [one.keyword for one in EXTENSIONS]
    near = [] if keyword in known else get_close_matches(keyword, known, 1, 0.7)
    if near:
        raise ValueError(f"no extension {name!r}; did you mean {near[0]}?")
    return keyword


def unknown_stage(stage: str) -> str:
    """What is wrong with the name of a stage, "" where nothing is."""
    name = stage.upper()
    if name in STAGES or name.startswith("X"):
        return ""
    near = get_close_matches(name, STAGES, 1)
    return f"no stage {stage!r}" + (f"; did you mean {near[0]}?" if near else "")
