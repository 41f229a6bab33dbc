"""SMTP replies as values, and the catalogue of all that the server says by itself.

A reply is one value: code, enhanced code (RFC 3463) and text; it will not be built if they disagree.
A constant's name ends in its code, so that a search finds both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# One reply line with its CRLF. RFC 5321 4.5.3.1.5.
MAX_REPLY_LINE = 512

# Lines of one reply: a handler's own text may be long, the client's patience is not.
MAX_REPLY_LINES = 128

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` may hold several lines, separated by LF; each becomes a line of a multi-line reply.

    Raises ValueError where the code is no SMTP code (200 to 559) or the enhanced code's class differs from it.
    `wire` is the reply as sent, CRLF included, encoded once.
    """

    code: int
    enhanced: str = ""
    text: str = ""
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 559:
            raise ValueError(f"reply code {self.code} is not an SMTP reply code (200 to 559)")
        if self.enhanced and (not _ENHANCED.match(self.enhanced) or self.enhanced[0] != str(self.code)[0]):
            raise ValueError(f"enhanced code {self.enhanced!r} does not agree with {self.code}")
        object.__setattr__(self, "wire", _encode(self.code, self.enhanced, self.text))

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def _encode(code: int, enhanced: str, text: str) -> bytes:
    prefix = f"{enhanced} " if enhanced else ""
    if not text:
        return f"{code} {enhanced}\r\n".encode("ascii")  # with its space, which 334 must have (RFC 4954 4)
    if len(text) < 400 and text.isascii() and text.isprintable() and text[-1] != " ":
        return f"{code} {prefix}{text}\r\n".encode("ascii")
    room = MAX_REPLY_LINE - 2 - 4 - len(prefix)
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        clean = "".join(c if " " <= c <= "~" else "?" for c in line)
        lines.extend(clean[at : at + room] for at in range(0, max(len(clean), 1), room))
    del lines[MAX_REPLY_LINES:]
    last = len(lines) - 1
    said = (f"{code}{' ' if n == last else '-'}{prefix}{line}".rstrip() for n, line in enumerate(lines))
    return "".join(f"{line}\r\n" for line in said).encode("ascii")


def queued_250(id: str) -> Reply:
    """A message was kept and has this id."""
    # Made for every message: the checks and the general encoding of Reply would cost more than all else here.
    reply, text = object.__new__(Reply), f"Ok: queued as {id}"
    keep = object.__setattr__
    keep(reply, "code", 250)
    keep(reply, "enhanced", "2.0.0")
    keep(reply, "text", text)
    keep(reply, "wire", f"250 2.0.0 {text}\r\n".encode("ascii"))
    return reply


# Positive
closing_221 = Reply(221, "2.0.0", "Bye")
authenticated_235 = Reply(235, "2.7.0", "Authentication succeeded")
ok_250 = Reply(250, "2.0.0", "Ok")
sender_250 = Reply(250, "2.1.0", "Sender ok")
recipient_250 = Reply(250, "2.1.5", "Recipient ok")
not_verified_252 = Reply(252, "2.0.0", "Cannot verify, but will take mail and try")
start_tls_220 = Reply(220, "2.0.0", "Ready to start TLS")
go_ahead_354 = Reply(354, "", "End data with <CRLF>.<CRLF>")

# The session ends with these.
time_out_421 = Reply(421, "4.4.2", "Time-out; closing")
shutting_down_421 = Reply(421, "4.3.2", "Shutting down; try again later")
too_many_connections_421 = Reply(421, "4.3.2", "Too many connections; try again later")
no_thread_421 = Reply(421, "4.3.2", "Too busy; try again later")
accept_failed_421 = Reply(421, "4.3.0", "Internal error; try again later")
too_many_errors_421 = Reply(421, "4.7.0", "Too many errors; closing")
not_http_421 = Reply(421, "4.7.0", "This is SMTP, not HTTP; closing")
lost_421 = Reply(421, "4.4.2", "Connection lost")
early_talker_554 = Reply(554, "5.5.1", "Wait for the greeting before you speak")
blocked_554 = Reply(554, "5.7.1", "Not welcome here")
plaintext_behind_starttls_554 = Reply(554, "5.5.1", "Commands after STARTTLS must wait for TLS; closing")

# Syntax and order
unknown_command_500 = Reply(500, "5.5.2", "Unknown command")
line_too_long_500 = Reply(500, "5.5.2", "Command line too long")
bad_line_500 = Reply(500, "5.5.2", "NUL, bare CR or bare LF in a command")
not_text_500 = Reply(500, "5.5.2", "Command is not UTF-8 text")
response_too_long_500 = Reply(500, "5.5.6", "Authentication response too long")
no_argument_501 = Reply(501, "5.5.4", "This command takes no argument")
mail_syntax_501 = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
rcpt_syntax_501 = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
hello_syntax_501 = Reply(501, "5.5.4", "A domain or an address literal is due after the verb")
bdat_syntax_501 = Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]")
auth_syntax_501 = Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
argument_missing_501 = Reply(501, "5.5.4", "An argument is due after the verb")
bad_sender_501 = Reply(501, "5.1.7", "Bad sender address syntax")
bad_recipient_501 = Reply(501, "5.1.3", "Bad recipient address syntax")
bad_parameter_501 = Reply(501, "5.5.4", "Bad parameter value")
parameter_twice_501 = Reply(501, "5.5.4", "Parameter given twice")
hold_too_long_501 = Reply(501, "5.5.4", "Longer than FUTURERELEASE allows")
bad_base64_501 = Reply(501, "5.5.2", "Not base64")
cancelled_501 = Reply(501, "5.7.0", "Authentication cancelled")
no_initial_response_501 = Reply(501, "5.7.0", "This mechanism takes no initial response")
bad_exchange_501 = Reply(501, "5.5.2", "Not a message of this mechanism")
not_implemented_502 = Reply(502, "5.5.1", "Command not implemented")
say_hello_first_503 = Reply(503, "5.5.1", "Say hello first")
sender_first_503 = Reply(503, "5.5.1", "Sender first")
sender_given_503 = Reply(503, "5.5.1", "Sender already given")
recipient_first_503 = Reply(503, "5.5.1", "Recipient first")
chunks_under_way_503 = Reply(503, "5.5.1", "BDAT is under way; go on with BDAT or RSET")
not_now_503 = Reply(503, "5.5.1", "Not in this phase of the dialogue")
binary_needs_bdat_503 = Reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
tls_is_on_503 = Reply(503, "5.5.1", "TLS is on already")
logged_in_503 = Reply(503, "5.5.1", "Already authenticated")
unknown_mechanism_504 = Reply(504, "5.5.4", "Unknown authentication mechanism")
unknown_parameter_555 = Reply(555, "5.5.4", "Parameter not recognised")

# Policy and limits
no_thread_451 = Reply(451, "4.3.2", "Too busy; try again later")
hook_failed_451 = Reply(451, "4.3.0", "Internal error; try again later")
storage_452 = Reply(452, "4.3.1", "Insufficient storage; try again later")
too_many_recipients_452 = Reply(452, "4.5.3", "Too many recipients; send the rest in another transaction")
login_unavailable_454 = Reply(454, "4.7.0", "Authentication is unavailable; try again later")
tls_unavailable_454 = Reply(454, "4.7.0", "TLS is unavailable; try again later")
tls_required_530 = Reply(530, "5.7.0", "STARTTLS first")
login_required_530 = Reply(530, "5.7.0", "Authentication required")
login_failed_535 = Reply(535, "5.7.8", "Authentication failed")
encryption_required_538 = Reply(538, "5.7.11", "This mechanism needs TLS")
refused_550 = Reply(550, "5.7.1", "Refused")
no_such_recipient_550 = Reply(550, "5.1.1", "No such recipient here")
bare_line_end_550 = Reply(550, "5.6.0", "Bare CR or LF in content; lines end in CRLF")
nul_in_content_550 = Reply(550, "5.6.0", "NUL in content")
line_too_long_550 = Reply(550, "5.6.0", "Line longer than 998 octets in content")
too_large_552 = Reply(552, "5.3.4", "Message too large")
not_ascii_553 = Reply(553, "5.6.7", "Non-ASCII address without SMTPUTF8")
nothing_keeps_mail_554 = Reply(554, "5.3.2", "This server does not take mail")
loop_554 = Reply(554, "5.4.6", "Too many hops; this looks like a loop")
not_permitted_550 = Reply(550, "5.7.1", "Not permitted for this client")
priority_501 = Reply(501, "5.5.4", "MT-PRIORITY is -9 to 9")
no_such_help_504 = Reply(504, "5.5.4", "No help for that")
etrn_syntax_501 = Reply(501, "5.5.4", "Syntax: ETRN node")
queueing_started_250 = Reply(250, "2.0.0", "Queueing started")  # RFC 1985 5.3
node_not_allowed_459 = Reply(459, "4.7.1", "Node not allowed")
