"""From the component's properties to what floor 2 and the protocol core want: listeners, doors, dialects, contexts.

Pure but for reading certificate files. Everything that can't work is said here: what, and what would be right.
Thread: the one that calls start() or changes a property.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from certs.contexts import ServerContexts
from certs.files import Pair, read_pair
from certs.issue import self_signed
from certs.policy import ClientCertificates, ServerPolicy
from certs.stream import TlsStream
from smtpd_core.net import Door, ListenerSettings, Timeouts
from smtpd_core.net.conversation import Conversation
from smtpd_core.server.hooks import Hook
from smtpd_core.server.login import added_mechanisms, usable_mechanisms
from smtpd_core.server.session import Session
from smtpd_core.wire.sasl.mechanisms import Mechanism
from smtpd_core.wire.sasl.salts import PROCESS_KEY
from smtpd_core.wire.settings import ProtocolSettings

if TYPE_CHECKING:
    from smtpd_core.server.server import SmtpServer


_IN_CHUNKS = {"": None, "refuse": False, "normalise": True}


def listeners_of(server: SmtpServer) -> list[ListenerSettings]:
    """What `listeners` says, or the one listener of port, local_binding, use_tls and use_auth."""
    if server.listeners:
        return list(server.listeners)
    return [
        ListenerSettings(
            bind=_bind(server.local_binding, server.port, server.use_ipv6),
            service=server.service,
            tls=server.use_tls.replace("_", "-"),
            auth=_auth(server),
            xclient_from=server.xclient_from,
        )
    ]


def _auth(server: SmtpServer) -> str:
    """Where use_auth was not said: accounts mean that log-in is offered."""
    offered = server.user_accounts is not None or server.on_authenticate
    return server.use_auth or ("offered" if offered else "off")


def _bind(where: str, port: int, ipv6: bool) -> str:
    if where.startswith(("unix:", "fd:")):
        return where
    if where in ("", "localhost"):
        return f"{'localhost' if ipv6 else '127.0.0.1'}:{port}"
    if where in ("*", "0.0.0.0"):
        return f"*:{port}" if ipv6 else f"0.0.0.0:{port}"
    return f"[{where.strip('[]')}]:{port}" if ":" in where else f"{where}:{port}"


def timeouts_of(server: SmtpServer) -> Timeouts:
    """`timeout` and `session_timeout` over the finer `timeouts`."""
    base = server.timeouts or Timeouts()
    return replace(base, greeting=server.timeout, command=server.timeout, session=server.session_timeout)


def dialect_of(server: SmtpServer, listener: ListenerSettings, *, must_all_work: bool = True) -> ProtocolSettings:
    """The protocol settings of one listener. ValueError names what can't work; with `must_all_work` each mechanism
    that was asked for has to, else one of them."""
    slots = server._slots
    tls = listener.tls
    auth = listener.auth if server.listeners else _auth(server)  # accounts may have come since start()
    mechanisms: tuple[str, ...] = ()
    added: tuple[Mechanism, ...] = ()
    chosen = listener.mechanisms or server.auth_mechanisms
    if auth != "off":
        try:
            added = added_mechanisms(chosen, version_1=server.ntlm_version_1)
            mechanisms = usable_mechanisms(
                chosen,
                server._house.accounts,
                slots.on_authenticate,
                tls_is_possible=tls != "none",
                clear_text=server.clear_text_without_tls,
                certificates=server.require_client_certificate != "no"
                or (server.contexts is not None and server.contexts.clients.mode != "no"),
                added=added,
                must_all_work=must_all_work,
            )
        except ValueError as error:
            raise ValueError(f"listener {listener.bind}: {error}") from None
    return ProtocolSettings(
        hostname=server._house.hostname,
        service=listener.service,
        banner=server.banner,
        help_text=server.help_text,
        max_message_size=server.max_data_size,
        max_recipients=server.max_recipients,
        max_errors=server.max_errors,
        starttls=tls in ("explicit-allow", "explicit-require"),
        tls_required=tls == "explicit-require",
        mechanisms=mechanisms,
        added_mechanisms=added,
        salt_key=server.scram_salt_key or getattr(server._house.accounts, "salt_key", PROCESS_KEY),
        login_required=auth == "required",
        clear_text_without_tls=server.clear_text_without_tls,
        expn=slots.on_expand is not None,
        etrn=slots.on_etrn is not None,
        normalise_line_ends=server.bare_line_ends == "normalise",
        normalise_chunks=_IN_CHUNKS[server.bare_line_ends_in_chunks],
        keep_nul=server.keep_nul,
        strict_lines=server.strict_lines,
        without=frozenset(server.without_extensions).union(listener.without),
        commands=server.commands.custom,
    )


def contexts_of(server: SmtpServer) -> ServerContexts:
    """The certificates to serve with. ValueError without one; CertificateError, OSError for one that is no good."""
    if server.contexts is not None:
        if server.require_client_certificate not in ("no", server.contexts.clients.mode):
            raise ValueError(
                "require_client_certificate with contexts=: give the contexts"
                f" ClientCertificates({server.require_client_certificate!r})"
            )
        return server.contexts
    certificate = server.certificate
    if isinstance(certificate, Pair):
        pair = certificate
    elif certificate == "self-signed":
        pair = Pair(*self_signed([server._house.hostname, "localhost", "127.0.0.1", "::1"]))
    elif certificate:
        pair = read_pair(certificate, server.key, server.key_password)
    else:
        raise ValueError(
            "use_tls without a certificate: set certificate= and key= (PEM or PFX), or certificate='self-signed'"
        )
    clients = ClientCertificates()
    mode = server.require_client_certificate
    if mode != "no":
        if not server.client_ca_file:
            raise ValueError("require_client_certificate needs client_ca_file: the authorities to check against")
        clients = ClientCertificates(mode, server.client_ca_file, server.client_crl_file)  # type: ignore[arg-type]
    elif server.client_crl_file:
        raise ValueError('client_crl_file counts only where clients are asked: set require_client_certificate="ask"')
    return ServerContexts(pair, policy=ServerPolicy(minimum=server.tls_minimum), clients=clients)  # type: ignore[arg-type]


def chooser(server: SmtpServer, session: Session | None) -> Callable[[str], Pair | None]:
    """on_get_certificate as the contexts call it. What it raises is reported and ends the handshake."""
    slots, house = server._slots, server._house

    def choose(name: str) -> Pair | None:
        hook: Hook | None = slots.on_get_certificate
        if hook is None:
            return None
        try:
            return _as_pair(hook.function(session, name))
        except Exception as error:
            house.report(session, "on_get_certificate", error)
            raise
        except BaseException as error:
            house.report(session, "on_get_certificate", error)
            raise RuntimeError("on_get_certificate failed") from error

    return choose


def _as_pair(found: Any) -> Pair | None:
    if found is None or isinstance(found, Pair):
        return found
    if isinstance(found, tuple) and len(found) == 2:
        return read_pair(*found)
    raise TypeError(f"on_get_certificate returned {found!r}: None, a Pair or (certificate path, key path) is due")


def doors_of(server: SmtpServer, listeners: list[ListenerSettings]) -> list[Door]:
    """The listeners with their TLS."""
    if not any(one.tls != "none" for one in listeners):
        if server.certificate or server.contexts is not None:
            raise ValueError("a certificate, and no listener with TLS: set use_tls (explicit_allow, implicit, ...)")
        if server.require_client_certificate != "no":
            raise ValueError("require_client_certificate, and no listener with TLS: set use_tls (implicit, ...)")
        return [Door(one) for one in listeners]
    contexts = contexts_of(server)
    hook: Hook | None = server._slots.on_get_certificate
    if hook is None:

        def stream() -> TlsStream:
            return (server.contexts or contexts).stream()

        return [Door(one, stream) if one.tls != "none" else Door(one) for one in listeners]

    def stream_for(conversation: Conversation) -> TlsStream:
        return (server.contexts or contexts).stream(chooser(server, getattr(conversation, "session", None)))

    meter = hook.meter
    return [
        Door(one, open_tls_for=stream_for, certificate_hook=meter) if one.tls != "none" else Door(one)
        for one in listeners
    ]
