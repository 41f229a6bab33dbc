"""The envelope of a message: plain data that crosses every wall, from the protocol core to the queue and the next hop.

Addresses are mailbox strings as given by the client, without angle brackets and source route; "" is the null
reverse-path. `to_record` and `from_record` are the one form in which an envelope is stored (JSON-ready).
Recipient and MailParameters are read-only by convention, like the events: they are made for every command, and a
frozen dataclass costs four times as much to make.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True, unsafe_hash=True)
class Recipient:
    """One forward-path with its DSN parameters (RFC 3461 4.1, 4.2).

    `notify` is empty where NOTIFY was not given, else a subset of NEVER, SUCCESS, FAILURE, DELAY.
    `orcpt` is "" or "addr-type;address" with the xtext already decoded.
    """

    address: str
    notify: tuple[str, ...] = ()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """BY= of RFC 2852: seconds from reception (may be negative), mode "N" or "R", and whether a trace was asked for."""

    seconds: int
    mode: str
    trace: bool = False


@dataclass(slots=True, unsafe_hash=True)
class MailParameters:
    """What MAIL carried besides the reverse-path."""

    size: int | None = None  # SIZE=, None where not given; 0 is a declared size of zero, not a limit (RFC 1870 6.1)
    body: str = ""  # "", "7BIT", "8BITMIME", "BINARYMIME"
    smtputf8: bool = False
    ret: str = ""  # "", "FULL", "HDRS" (RFC 3461 4.3)
    envid: str = ""  # xtext decoded (RFC 3461 4.4)
    auth: str | None = None  # AUTH= (RFC 4954 5), decoded; "" is AUTH=<>
    by: DeliverBy | None = None
    hold_for: int | None = None  # FUTURERELEASE (RFC 4865), seconds
    hold_until: str = ""  # FUTURERELEASE, an RFC 3339 date-time
    priority: int | None = None  # MT-PRIORITY (RFC 6710), -9 to 9
    require_tls: bool = False  # RFC 8689


@dataclass(frozen=True, slots=True)
class Origin:
    """How and from whom a message came."""

    address: str = ""  # the client's IP address, or "unix", or "" for mail made here
    port: int = 0
    hello: str = ""  # EHLO / HELO / LHLO argument
    protocol: str = ""  # the `with` keyword of RFC 3848: SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA, UTF8SMTP..., LMTP...
    tls: str = ""  # "TLSv1.3 TLS_AES_256_GCM_SHA384" or ""
    user: str = ""  # the authenticated identity or ""
    listener: str = ""  # "mx 127.0.0.1:2525"
    session: str = ""  # session id, s-...


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction: reverse-path, recipients in the order given, parameters, origin and arrival (Unix time)."""

    sender: str
    recipients: tuple[Recipient, ...]
    parameters: MailParameters = field(default_factory=MailParameters)
    origin: Origin = field(default_factory=Origin)
    arrived: float = 0.0

    def to_record(self) -> dict[str, Any]:
        """The envelope as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Envelope:
        """The inverse of to_record. Raises KeyError or TypeError on a record that is none."""
        parameters = dict(record["parameters"])
        if parameters.get("by"):
            parameters["by"] = DeliverBy(**parameters["by"])
        return cls(
            sender=record["sender"],
            recipients=tuple(
                Recipient(one["address"], tuple(one["notify"]), one["orcpt"]) for one in record["recipients"]
            ),
            parameters=MailParameters(**parameters),
            origin=Origin(**record["origin"]),
            arrived=record["arrived"],
        )
