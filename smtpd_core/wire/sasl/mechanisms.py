"""The mechanisms that the server knows, as rows: name, how an exchange is made, what it needs.

A new mechanism is a file beside this one and a row here; nothing else in the core knows their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smtpd_core.wire.sasl.cram import CramMd5
from smtpd_core.wire.sasl.exchange import Exchange, Surroundings
from smtpd_core.wire.sasl.external import Anonymous, External
from smtpd_core.wire.sasl.oauth import Bearer
from smtpd_core.wire.sasl.plain import Login, Plain
from smtpd_core.wire.sasl.scram import Scram


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One row. `kind` is what the store must be able to answer (accounts.store; no store has "anonymous" by itself);
    `clear_text` mechanisms show the secret and so want TLS; `server_first` mechanisms take no initial response."""

    name: str
    kind: str
    start: Callable[[Surroundings], Exchange]
    clear_text: bool = False
    server_first: bool = False
    needs_binding: bool = False
    needs_certificate: bool = False  # of the client, verified


def _scram(kind: str, plus: bool) -> Callable[[Surroundings], Exchange]:
    return lambda surroundings: Scram(kind, plus=plus, surroundings=surroundings)


_ROWS = (
    Mechanism("SCRAM-SHA-256-PLUS", "scram-sha-256", _scram("scram-sha-256", True), needs_binding=True),
    Mechanism("SCRAM-SHA-1-PLUS", "scram-sha-1", _scram("scram-sha-1", True), needs_binding=True),
    Mechanism("SCRAM-SHA-256", "scram-sha-256", _scram("scram-sha-256", False)),
    Mechanism("SCRAM-SHA-1", "scram-sha-1", _scram("scram-sha-1", False)),
    Mechanism("CRAM-MD5", "cleartext", lambda around: CramMd5(around.hostname), server_first=True),
    Mechanism("PLAIN", "password", lambda around: Plain(), clear_text=True),
    Mechanism("LOGIN", "password", lambda around: Login(), clear_text=True),
    Mechanism("OAUTHBEARER", "token", lambda around: Bearer("OAUTHBEARER"), clear_text=True),
    Mechanism("XOAUTH2", "token", lambda around: Bearer("XOAUTH2"), clear_text=True),
    Mechanism("EXTERNAL", "certificate", External, needs_certificate=True),
    Mechanism("ANONYMOUS", "anonymous", lambda around: Anonymous()),
)

MECHANISMS = {row.name: row for row in _ROWS}
