"""A next hop and how to talk to it: plain data for conversation, agents and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from certs.files import Pair
from certs.side import TlsSide
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.sasl.client import Credentials


class TlsLevel(Enum):
    """How much TLS a hop must have."""

    NONE = "none"  # never
    OPPORTUNISTIC = "opportunistic"  # where offered, unverified; without it where the handshake fails
    REQUIRE = "require"  # always, unverified
    VERIFY = "verify"  # always, with a good chain and the host's name


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """The TLS of one route; DANE and MTA-STS will each make one of these. `ca_file` "" means the system's
    authorities; `pair` is our client certificate; `verify_name` is whom the certificate must cover where that is not
    the host itself."""

    level: TlsLevel = TlsLevel.OPPORTUNISTIC
    ca_file: str = ""
    pair: Pair | None = None
    implicit: bool = False
    verify_name: str = ""

    def __post_init__(self) -> None:
        if self.implicit and self.level is TlsLevel.NONE:
            raise ValueError("a TlsPolicy is implicit or NONE, not both")


OpenTls = Callable[[str], TlsSide]
"""Makes the client side of a TLS connection to the host of this name (for SNI and the name check)."""


OpenCredentials = Callable[[], Credentials]
"""Asked at each log-in, for what is renewed meanwhile (a bearer token). Raises OSError and ValueError."""


# Seconds for the answer to the final dot, RFC 5321 4.5.3.2.6.
FINAL_DOT = 600.0


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds each step may take, RFC 5321 4.5.3.2, and limits for several in a row: `opening` for all before the first
    transaction, `transaction` from MAIL to the final dot, with `recipient` for each recipient and the time that the
    content takes at `minimum_rate` (bytes per second) on top."""

    connect: float = 30.0
    greeting: float = 300.0
    hello: float = 300.0
    tls: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    content: float = FINAL_DOT
    reset: float = 20.0
    quit: float = 5.0
    opening: float = 630.0
    transaction: float = 900.0
    recipient: float = 10.0
    minimum_rate: int = 1024

    def for_load(self, load: Load) -> float:
        """Seconds that this transaction has up to its final dot."""
        return self.transaction + self.recipient * len(load.recipients) + load.size / self.minimum_rate

    @classmethod
    def all(cls, seconds: float, connect: float) -> StepTimes:
        """One limit for every command. The wait after the final dot is never cut short of it: a hop that took the
        message and a sender that gave up make two of it (RFC 5321 4.5.3.2.6)."""
        return cls(
            connect=connect,
            greeting=seconds,
            hello=seconds,
            tls=min(seconds, 60.0),
            mail=seconds,
            rcpt=seconds,
            data=seconds,
            block=seconds,
            content=max(seconds, FINAL_DOT),
            reset=min(seconds, 20.0),
            quit=min(seconds, 5.0),
            opening=connect + 2 * seconds,
            transaction=3 * seconds,
            recipient=min(seconds, 10.0),
        )


@dataclass(frozen=True, slots=True)
class Hop:
    """One address of one next hop. `address` is an IP address, or a path where `port` is 0 (a unix socket)."""

    host: str
    address: str
    port: int = 25

    def __str__(self) -> str:
        return f"{self.host}[{self.address}]:{self.port}" if self.port else f"unix:{self.address}"


@dataclass(frozen=True, slots=True)
class Manners:
    """How this house talks to a hop: part of a route, the same for every message that takes it.

    `open_tls` is None where no TLS can be had (the level is then NONE). `clear_login_allowed` lets credentials go out
    without TLS; it is honoured on loopback alone.
    """

    hello: str = "localhost"
    lmtp: bool = False
    tls: TlsLevel = TlsLevel.OPPORTUNISTIC
    implicit_tls: bool = False
    open_tls: OpenTls | None = None
    credentials: Credentials | OpenCredentials | None = None
    clear_login_allowed: bool = False
    extended: bool = True
    chunking: bool = True
    source_address: str = ""
    times: StepTimes = field(default_factory=StepTimes)
    # Bytes of a body read at a time. With the copy that doubles dots and the record that TLS makes of it, a message in
    # flight takes 50 KiB, the courier with its connection as much, and TLS 40 to 70. Twice as much was no faster.
    window: int = 16_384


@dataclass(slots=True)
class Load:
    """What one transaction carries. `pieces(size)` gives trace and content in pieces of at most `size` bytes, from the
    start each time it is called; `size` is their sum."""

    sender: str
    recipients: tuple[Recipient, ...]
    parameters: MailParameters
    size: int
    pieces: Callable[[int], Iterator[bytes]]
    body: str = ""
    utf8: bool = False


@dataclass(slots=True)
class Word:
    """The last word on a recipient: at which step ("connect", "tls" or a Step's value), the hop's answer, or where
    there was none, the error. `dsn_passed_on` tells that the hop took the DSN parameters, `is_ours` that the answer is
    our own, given in the hop's place: no report may put it into the hop's mouth."""

    step: str
    answer: Answer | None = None
    error: str = ""
    dsn_passed_on: bool = False
    is_ours: bool = False


class Trouble(Exception):
    """The conversation can't go on. `is_permanent` is for what no other try can mend (a policy, not a time-out)."""

    def __init__(self, step: str, error: str, answer: Answer | None = None) -> None:
        super().__init__(error or str(answer))
        self.word = Word(step, answer, error)


class TlsTrouble(Trouble):
    """STARTTLS was refused or its handshake failed: where the level is opportunistic the hop is tried without."""
