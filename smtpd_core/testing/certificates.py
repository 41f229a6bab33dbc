"""Certificates of a test server: a good one that clients can trust, and others that are bad in one way each.

Thread: any.
Not here: how each of them is made (certs.samples).
"""

from __future__ import annotations

import datetime

from certs.contexts import ServerContexts
from certs.files import Pair, pem_of
from certs.issue import authority
from certs.samples import LEAVES
from certs.stream import TlsStream
from smtpd_core.threads import Lock

# Signed well, by an authority that nobody knows.
UNTRUSTED = "untrusted"

# What a test may name.
CERTIFICATES = (*LEAVES, UNTRUSTED)


def checked(name: str) -> str:
    """The name of a certificate. ValueError where there is none of this name."""
    if name not in CERTIFICATES:
        raise ValueError(f"certificate {name!r}: one of {', '.join(CERTIFICATES)} is due")
    return name


class Certificates:
    """One test authority, and the server's certificates by name; each is made when it is first asked for."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._root = authority("Test authority")
        self._contexts: dict[str, ServerContexts] = {}
        self._lock = Lock()

    @property
    def authority_pem(self) -> str:
        """What a client has to trust."""
        return pem_of(self._root.certificate).decode()

    def pair(self, name: str) -> Pair:
        issuer = authority("Unknown authority") if name == UNTRUSTED else self._root
        make = LEAVES["good" if name == UNTRUSTED else name]
        return make(issuer, self._host, datetime.datetime.now(datetime.UTC).replace(microsecond=0))

    def stream(self, name: str) -> TlsStream:
        """The server's side of a connection that shows this certificate."""
        with self._lock:
            if name not in self._contexts:
                self._contexts[name] = ServerContexts(self.pair(name))
            return self._contexts[name].stream()
