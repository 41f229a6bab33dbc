"""What a listener's protocol is like: frozen, made once per listener, shared by all its connections.

All that can be known before the first byte is computed here: EHLO's replies for every standing, the parsers of MAIL and
RCPT, the table of commands. Mistakes are ValueError at once: what, where, what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from smtpd_core.wire import parameters
from smtpd_core.wire.command_table import Command, CustomVerb, command_table, help_text
from smtpd_core.wire.content import ContentRules
from smtpd_core.wire.extensions import EXTENSIONS, Extension, Standing, announced
from smtpd_core.wire.parameters import ParameterLimits, Parser
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.sasl.mechanisms import MECHANISMS, Mechanism
from smtpd_core.wire.sasl.salts import PROCESS_KEY

# One command line. RFC 5321 4.5.3.1.4 asks for 512, extensions add to it: 26 for SIZE, 500 each for AUTH= and ORCPT=,
# 100 for ENVID=. AUTH and its responses have their own limit (RFC 4954 4 asks for 12 288).
MAX_COMMAND_LINE = 2_048
MAX_SASL = 16_384

# FUTURERELEASE on submission listeners: how long a message may be held, seconds.
LONGEST_HOLD = 14 * 86_400

SERVICES = ("mx", "submission", "lmtp")


@dataclass(frozen=True)
class ProtocolSettings:
    """One listener's dialect. Sizes are octets; 0 is "no limit" for max_message_size and max_recipients."""

    hostname: str = "localhost"
    service: str = "mx"  # mx, submission or lmtp
    banner: str = ""  # after the host name in the greeting; "ready" where empty
    help_text: str = ""  # more lines for HELP
    max_message_size: int = 50 * 1024 * 1024
    max_recipients: int = 1_000
    max_command_line: int = MAX_COMMAND_LINE
    max_errors: int = 20  # protocol mistakes and failed logins until 421; 0 for any number
    starttls: bool = False
    tls_required: bool = False
    mechanisms: tuple[str, ...] = ()  # SASL mechanisms offered, best first; none is no AUTH
    added_mechanisms: tuple[Mechanism, ...] = ()  # rows that the core does not have by itself
    salt_key: bytes = field(default=PROCESS_KEY, repr=False)  # unknown users get a steady salt (RFC 5802 9)
    login_required: bool = False
    clear_text_without_tls: bool = False  # PLAIN and LOGIN on an unencrypted connection
    expn: bool = False
    etrn: bool = False
    requiretls: bool = False
    max_hold: int | None = None  # FUTURERELEASE, seconds; None: LONGEST_HOLD on submission, else off
    min_deliver_by: int = 0
    priority_profile: str = ""
    normalise_line_ends: bool = False  # bare CR and LF in content become CRLF instead of being refused
    normalise_chunks: bool | None = None  # the same under BDAT; None: as normalise_line_ends
    keep_nul: bool = False
    strict_lines: bool = False
    without: frozenset[str] = frozenset()  # extensions not offered
    commands: tuple[CustomVerb, ...] = ()  # verbs added, replaced, wrapped or removed

    known_mechanisms: Mapping[str, Mechanism] = field(init=False, repr=False, compare=False)
    extensions: tuple[Extension, ...] = field(init=False, repr=False, compare=False)
    mail_parsers: dict[str, Parser] = field(init=False, repr=False, compare=False)
    common_parameters: bool = field(init=False, repr=False, compare=False)  # SIZE, BODY and SMTPUTF8 are all offered
    longest_hold: int = field(init=False, repr=False, compare=False)  # what FUTURERELEASE announces; 0: not at all
    common_size: int = field(init=False, repr=False, compare=False)
    enhanced_codes: bool = field(init=False, repr=False, compare=False)  # ENHANCEDSTATUSCODES is offered (RFC 2034)
    rcpt_parsers: dict[str, Parser] = field(init=False, repr=False, compare=False)
    limits: ParameterLimits = field(init=False, repr=False, compare=False)
    table: Mapping[str, Command] = field(init=False, repr=False, compare=False)
    greeting: Reply = field(init=False, repr=False, compare=False)
    hello_replies: Mapping[Standing, Reply] = field(init=False, repr=False, compare=False)
    help_reply: Reply = field(init=False, repr=False, compare=False)
    under_data: ContentRules = field(init=False, repr=False, compare=False)
    under_bdat: ContentRules = field(init=False, repr=False, compare=False)
    binary: ContentRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keep = object.__setattr__
        keep(self, "known_mechanisms", MECHANISMS | {row.name: row for row in self.added_mechanisms})
        self._check()
        keep(self, "longest_hold", self._longest_hold())
        without = {one.upper() for one in self.without}
        if "CHUNKING" in without:
            without.add("BINARYMIME")  # RFC 3030 3: one needs the other
        rows = tuple(one for one in EXTENSIONS if one.keyword not in without and one.offered(self))
        keep(self, "extensions", rows)
        keep(self, "enhanced_codes", "ENHANCEDSTATUSCODES" not in without)
        keep(self, "mail_parsers", {key: parser for row in rows for key, parser in row.mail.items()})
        keep(self, "rcpt_parsers", {key: parser for row in rows for key, parser in row.rcpt.items()})
        keep(
            self,
            "limits",
            ParameterLimits(size=self.max_message_size, hold=self.longest_hold, deliver_by=self.min_deliver_by),
        )
        common = {"SIZE": parameters.size, "BODY": parameters.body_or_binary, "SMTPUTF8": parameters.smtputf8}
        keep(self, "common_parameters", common.items() <= self.mail_parsers.items())
        keep(self, "common_size", self.max_message_size or 1 << 62)
        in_chunks = self.normalise_line_ends if self.normalise_chunks is None else self.normalise_chunks
        limit, nul, strict = self.max_message_size, self.keep_nul, self.strict_lines
        keep(self, "under_data", ContentRules(limit, self.normalise_line_ends, nul, strict))
        keep(self, "under_bdat", ContentRules(limit, in_chunks, nul, strict))
        keep(self, "binary", ContentRules(limit, binary=True))
        keep(self, "greeting", Reply(220, "", f"{self.hostname} {self.banner or 'ready'}"))
        standings = [Standing(*flags) for flags in product((False, True), repeat=len(Standing._fields))]
        lines = {one: "\n".join([self.hostname, *announced(self, one)]) for one in standings}
        keep(self, "hello_replies", {one: Reply(250, "", text) for one, text in lines.items()})
        keep(self, "table", command_table(self))
        keep(self, "help_reply", Reply(214, "2.0.0", help_text(self)))

    def _longest_hold(self) -> int:
        if self.max_hold is not None:
            return self.max_hold
        return LONGEST_HOLD if self.service == "submission" else 0

    def _check(self) -> None:
        if self.service not in SERVICES:
            raise ValueError(f"service {self.service!r}: one of {', '.join(SERVICES)} is due")
        if not self.hostname or not self.hostname.isascii() or not self.hostname.isprintable() or " " in self.hostname:
            raise ValueError(f"hostname {self.hostname!r}: a domain name in ASCII is due (A-labels for others)")
        for name in ("max_message_size", "max_recipients", "max_errors", "min_deliver_by"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: 0 (no limit) or more is due")
        if self.max_command_line < 512:
            raise ValueError(f"max_command_line {self.max_command_line}: RFC 5321 4.5.3.1.4 asks for 512 at least")
        unknown = {one.upper() for one in self.without} - {one.keyword for one in EXTENSIONS}
        if unknown:
            raise ValueError(f"without: no such extension: {', '.join(sorted(unknown))}")
        for name in self.mechanisms:
            if name.upper() not in self.known_mechanisms:
                raise ValueError(f"mechanism {name!r}: one of {', '.join(self.known_mechanisms)} is due")
        if self.login_required and not self.mechanisms:
            raise ValueError("login_required without mechanisms: nobody could ever log in")
        if self.tls_required and not self.starttls and self.service == "lmtp":
            raise ValueError("tls_required without starttls: nobody could ever send mail")

    def mechanism_names(self, *, tls: bool, bound: bool, certified: bool = False) -> tuple[str, ...]:
        """What AUTH offers on a connection like this."""
        found = []
        for name in self.mechanisms:
            mechanism = self.known_mechanisms[name.upper()]
            if mechanism.clear_text and not tls and not self.clear_text_without_tls:
                continue
            if (mechanism.needs_binding and not bound) or (mechanism.needs_certificate and not certified):
                continue
            if self.tls_required and not tls:
                continue
            found.append(mechanism.name)
        return tuple(found)

    def mechanism(self, name: str) -> Mechanism | None:
        """The mechanism of this name, where the listener has it on any connection."""
        name = name.upper()
        return self.known_mechanisms.get(name) if any(name == one.upper() for one in self.mechanisms) else None
