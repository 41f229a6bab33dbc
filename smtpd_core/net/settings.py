"""What the net room is told: where to listen, who the peer is, how long to wait.

Thread: frozen or never changed after they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from certs.side import TlsSide
from smtpd_core.net.conversation import Conversation
from smtpd_core.threads import HookMeter

SERVICES = ("mx", "submission", "lmtp")
TLS_MODES = ("none", "implicit", "explicit-allow", "explicit-require")
AUTH_RULES = ("off", "offered", "required")


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener.

    `bind`: "HOST:PORT" (port 0 is any), "[::1]:25", ":25" or "*:25" (IPv4 and IPv6), "unix:PATH", "fd:N" or
    "fd:NAME" (inherited by the LISTEN_FDS convention).
    `proxy_protocol`: a PROXY header of version 1 or 2 comes first; only `proxy_from` (CIDR) may connect then.
    `without`: ESMTP extensions that this listener does not offer, besides those of the server.
    `mechanisms`: SASL mechanisms to offer here, best first, instead of the server's.
    `ipv6_only`: for an IPv6 wildcard address; otherwise it takes IPv4 too.
    """

    bind: str = "127.0.0.1:2525"
    service: str = "mx"
    tls: str = "explicit-allow"
    auth: str = "off"
    proxy_protocol: bool = False
    proxy_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    xclient_from: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    ipv6_only: bool = False
    mechanisms: tuple[str, ...] = ()
    backlog: int = 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 means never. Keys are the values of Conversation.waiting_for, and what the connection waits for."""

    greeting: float = 300.0  # the banner's own wait (early talkers) and the first command
    handshake: float = 60.0
    command: float = 300.0  # RFC 5321 4.5.3.2.7; runs from the last reply, not from the last byte
    data: float = 180.0  # between two pieces of content, RFC 5321 4.5.3.2.5
    login: float = 120.0
    ticket: float = 300.0  # all that happens after the final dot; a client waits 600 s, RFC 5321 4.5.3.2.6
    send: float = 300.0  # between two pieces that a client takes of its replies
    session: float = 86_400.0
    hook_wait: float = 30.0  # in line for a slot
    proxy: float = 10.0
    linger: float = 2.0  # after the last reply of a refusal, for a client that still sends

    # Content must come at this rate, averaged over the window, after the first window. 0 bytes: any rate.
    minimum_rate: int = 1024
    rate_window: float = 60.0


class Peer:
    """The client as the conversation sees it. `address` is "" for a unix socket.

    Behind a trusted proxy these are the client's, and `proxy` is the address of the proxy.
    """

    __slots__ = ("address", "listener", "local", "port", "proxy")

    def __init__(
        self, address: str, port: int, listener: ListenerSettings, local: tuple[str, int] = ("", 0), proxy: str = ""
    ) -> None:
        self.address = address
        self.port = port
        self.listener = listener
        self.local = local
        self.proxy = proxy

    @property
    def is_local(self) -> bool:
        """The same machine: loopback or a unix socket."""
        return not self.address or self.address.startswith("127.") or self.address == "::1"

    def __repr__(self) -> str:
        if not self.address:
            return "unix"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Door:
    """A listener with what the engine needs to serve it.

    `open_tls` makes the TLS side of a new connection; needed where settings.tls is not "none".
    `open_tls_for` is asked instead where it is set, with the connection's conversation: for on_get_certificate, which
    sees the session. `certificate_hook` is set with it: the meter of that hook, which runs within the handshake.
    """

    settings: ListenerSettings
    open_tls: Callable[[], TlsSide] | None = None
    open_tls_for: Callable[[Conversation], TlsSide] | None = None
    certificate_hook: HookMeter | None = None

    @property
    def has_tls(self) -> bool:
        return self.open_tls is not None or self.open_tls_for is not None
