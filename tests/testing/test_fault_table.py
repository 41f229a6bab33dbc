"""Each fault that can be asked for is seen by smtplib as the exception or reply that it should be.

One row a fault: how it is written, what the client does, what it sees. A row without an error sees the result.
"""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from smtpd_core.testing import TestServer
from tests.support.letters import send

PATIENCE = 0.3


def connect(server: TestServer) -> smtplib.SMTP:
    return server.client(timeout=PATIENCE)


def mail(server: TestServer) -> Any:
    with server.client(timeout=PATIENCE) as client:
        return send(client, "b@b.test", "c@full.test")


def mail_after_helo(server: TestServer) -> Any:
    with server.client(timeout=PATIENCE) as client:
        send(client)
        return client.does_esmtp


def extension(server: TestServer) -> Any:
    with server.client() as client:
        return client.has_extn("size")


def noop(server: TestServer) -> Any:
    with server.client(timeout=PATIENCE) as client:
        return client.noop()


def log_in_thrice(server: TestServer) -> Any:
    """How each of three tries with one mechanism ends."""
    codes = []
    with server.client(login=False) as client:
        for _ in range(3):
            client.user, client.password = "ann", "secret"
            try:
                codes.append(client.auth("PLAIN", client.auth_plain)[0])
            except smtplib.SMTPAuthenticationError as error:
                codes.append(error.smtp_code)
    return codes


def how_long_the_banner_took(server: TestServer) -> Any:
    began = time.monotonic()
    server.client().close()
    return time.monotonic() - began >= 0.2


@dataclass(frozen=True)
class Row:
    """`sees`: the exception, with its code or words; else the result of the act."""

    fault: str
    act: Callable[[TestServer], Any]
    sees: Any
    what: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    kept: int | None = None


LOGIN = {"accounts": {"ann": "secret"}}
STARTTLS = {"tls": "starttls"}
IMPLICIT = {"tls": "implicit"}
GONE = smtplib.SMTPServerDisconnected
CERTIFICATE = ssl.SSLCertVerificationError

ROWS = {
    "no banner, and the connection stays": Row("CONNECT stall", connect, GONE, "timed out"),
    "no banner, and the connection ends": Row("CONNECT close", connect, GONE),
    "a slow banner": Row("CONNECT delay 0.2", how_long_the_banner_took, True),
    "a banner that refuses": Row("CONNECT reply 554", connect, smtplib.SMTPConnectError, 554),
    "EHLO refused": Row("EHLO reply 502", mail_after_helo, False, kept=1),
    "EHLO and HELO refused": Row("*LO reply 502", mail, smtplib.SMTPHeloError, 502),
    "an extension dropped": Row("EHLO drop SIZE", extension, False),
    "STARTTLS refused": Row("STARTTLS reply 454", connect, smtplib.SMTPResponseException, 454, STARTTLS),
    "STARTTLS not offered": Row("EHLO drop STARTTLS", connect, smtplib.SMTPNotSupportedError, None, STARTTLS),
    "the handshake stalled": Row("HANDSHAKE stall", connect, TimeoutError, None, STARTTLS),
    "the handshake stalled, implicit": Row("HANDSHAKE stall", connect, TimeoutError, None, IMPLICIT),
    "expired": Row("HANDSHAKE certificate expired", connect, CERTIFICATE, "has expired", STARTTLS),
    "expired, implicit": Row("HANDSHAKE certificate expired", connect, CERTIFICATE, "has expired", IMPLICIT),
    "wrong host": Row("HANDSHAKE certificate wrong-host", connect, CERTIFICATE, "Hostname mismatch", STARTTLS),
    "wrong host, implicit": Row("HANDSHAKE certificate wrong-host", connect, CERTIFICATE, "Hostname mism", IMPLICIT),
    "untrusted": Row("HANDSHAKE certificate untrusted", connect, CERTIFICATE, "local issuer", STARTTLS),
    "untrusted, implicit": Row("HANDSHAKE certificate untrusted", connect, CERTIFICATE, "local issuer", IMPLICIT),
    "AUTH fails twice": Row("AUTH reply 454 times=2", log_in_thrice, [454, 454, 235], options=LOGIN),
    "AUTH fails always": Row("AUTH reply 535", connect, smtplib.SMTPAuthenticationError, 535, LOGIN),
    "MAIL refused": Row("MAIL reply 451", mail, smtplib.SMTPSenderRefused, 451, kept=0),
    "RCPT refused by pattern": Row(
        "RCPT to=*@full.test reply 452", mail, {"c@full.test": (452, b"Fault on purpose")}, kept=1
    ),
    "every RCPT refused": Row("RCPT reply 550", mail, smtplib.SMTPRecipientsRefused, kept=0),
    "354 withheld": Row("DATA stall", mail, GONE, "timed out", kept=0),
    "DATA refused": Row("DATA reply 451", mail, smtplib.SMTPDataError, 451, kept=0),
    "slow reading": Row("DATA read-late 0.1", mail, {}, kept=1),
    "cut after octet 3 of a reply": Row("MAIL cut 3", mail, GONE, kept=0),
    "cut after octet 5 of the content": Row("content hang-up 5", mail, (GONE, ConnectionError), kept=0),
    "refused after the dot": Row("content reply 554", mail, smtplib.SMTPDataError, 554, kept=0),
    "accepted and cut before the reply": Row("content close", mail, GONE, kept=1),
    "accepted and no reply": Row("content stall", mail, GONE, "timed out", kept=1),
    "a malformed reply": Row("MAIL send 'what?'", mail, smtplib.SMTPSenderRefused, -1),
    "a reply in pieces": Row("* split", mail, {}, kept=1),
    "a reply of several lines": Row("NOOP reply 250 'one\ntwo'", noop, (250, b"one\ntwo")),
    "421 instead of the banner": Row("CONNECT reply 421", connect, smtplib.SMTPConnectError, 421),
    "421 at EHLO": Row("EHLO reply 421", mail, (smtplib.SMTPHeloError, GONE), kept=0),
    "421 at MAIL": Row("MAIL reply 421", mail, smtplib.SMTPSenderRefused, 421, kept=0),
    "421 at RCPT": Row("RCPT reply 421", mail, smtplib.SMTPRecipientsRefused, kept=0),
    "421 at DATA": Row("DATA reply 421", mail, smtplib.SMTPDataError, 421, kept=0),
    "421 after the dot": Row("content reply 421", mail, smtplib.SMTPDataError, 421, kept=0),
    "421 at the sixth reply": Row("* reply 421 after=5", mail, smtplib.SMTPDataError, 421, kept=0),
    "421 at NOOP": Row("NOOP reply 421", noop, (421, b"Fault on purpose")),
    "an address that is full": Row("magic full.test", mail, {}, kept=1),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_a_fault_is_seen_as_what_it_is(row: Row) -> None:
    with TestServer(**row.options) as server:
        for fault in ("EHLO reply 502", "HELO reply 502") if row.fault.startswith("*LO") else (row.fault,):
            server.faults.add(fault)
        if isinstance(row.sees, type | tuple) and _are_errors(row.sees):
            with pytest.raises(row.sees) as seen:
                row.act(server)
            if isinstance(row.what, int):
                assert isinstance(seen.value, smtplib.SMTPResponseException) and seen.value.smtp_code == row.what
            elif row.what:
                assert row.what in str(seen.value)
        else:
            assert row.act(server) == row.sees
        if row.kept is not None:
            server.faults.clear()
            assert len(server.inbox) == row.kept


def _are_errors(sees: Any) -> bool:
    return all(isinstance(one, type) for one in (sees if isinstance(sees, tuple) else (sees,)))
