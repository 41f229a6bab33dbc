"""Contexts: which certificate a connection gets, and on which terms.

Rules: a context is never changed once it has served (OpenSSL's rule). Renewal builds a new set of contexts and swaps
one reference: handshakes in progress end as they began. Callbacks never raise; they note (stream.Handshake).

Thread: stream() from any; replace() from one at a time.
Not here: reading and watching files (renewal.py), the TLS connection (stream.py), OpenSSL's knobs (fitting.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from certs import binding, policy
from certs.files import Pair, PairFiles
from certs.fitting import (
    load_authorities,
    note_and_go_on,
    note_and_refuse,
    own_endpoint,
    peer_endpoint,
    set_terms,
    use_pairs,
)
from certs.names import to_ascii
from certs.peer import name_check
from certs.policy import ClientCertificates, ClientPolicy, ServerPolicy
from certs.stream import Choose, Handshake, Terms, TlsStream
from certs.trouble import CertificateError

Hosts = Mapping[str, "Pair | Sequence[Pair]"]

_SESSION_ID = b"smtpd_core"
_MAX_CHOSEN = 1_000  # contexts of pairs that a hook chose; beyond that it begins anew


class _Served:
    """The contexts of one moment; swapped whole. `plain` serves where there is nothing to choose: going back to Python
    for the name costs a tenth of what a server spends on a handshake beside the arithmetic."""

    __slots__ = ("by_name", "chosen", "main", "pairs", "plain")

    def __init__(
        self,
        main: SSL.Context,
        plain: SSL.Context | None,
        by_name: dict[str, SSL.Context],
        pairs: tuple[Pair, ...],
    ) -> None:
        self.main = main
        self.plain = plain
        self.by_name = by_name
        self.pairs = pairs
        self.chosen: dict[bytes, SSL.Context] = {}


class ServerContexts:
    """The certificates of a listener: a default, and others by host name (SNI).

    `default`: one pair, or several of different key types (RSA beside ECDSA) of which the client's abilities choose.
    `hosts`: pairs by name, "*.example.com" included; the names in the default pairs need not be told. `choose`: a
    program's on_get_certificate, called once in each handshake, from within it, with the SNI name or ""; it returns a
    Pair, or None for ours; what it raises ends the handshake. It must be quick, or run as a slow hook.
    """

    def __init__(
        self,
        default: Pair | Sequence[Pair],
        hosts: Hosts | None = None,
        *,
        policy: ServerPolicy | None = None,
        clients: ClientCertificates | None = None,
        choose: Choose | None = None,
    ) -> None:
        self.policy = policy or ServerPolicy()
        self.clients = clients or ClientCertificates()
        self.choose = choose
        asks = self.clients.mode != "no"
        self._terms = Terms(own_endpoint, asks_client=asks, verifies=asks)
        self._bare_terms = Terms(asks_client=asks, verifies=asks, binds=False)
        self._served = self._build(default, hosts or {})

    @classmethod
    def from_files(
        cls,
        files: Sequence[PairFiles],
        *,
        policy: ServerPolicy | None = None,
        clients: ClientCertificates | None = None,
        choose: Choose | None = None,
    ) -> ServerContexts:
        """Pairs from files, as `arranged` sorts them."""
        default, hosts = arranged(files, [one.read() for one in files])
        return cls(default, hosts, policy=policy, clients=clients, choose=choose)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs in use, the default first."""
        return self._served.pairs

    def stream(self, choose: Choose | None = None, *, bindings: bool = True) -> TlsStream:
        """The server side of a new connection, with the certificates of now. `choose` goes before the listener's own.
        Without `bindings` no channel bindings are worked out: for listeners where nobody logs in."""
        served = self._served
        choose = choose or self.choose
        context = served.plain if choose is None and served.plain is not None else served.main
        return TlsStream(context, True, terms=self._terms if bindings else self._bare_terms, choose=choose)

    def replace(self, default: Pair | Sequence[Pair], hosts: Hosts | None = None) -> None:
        """Serve new handshakes with these. CertificateError leaves all as it was."""
        self._served = self._build(default, hosts or {})

    # -- building

    def _build(self, default: Pair | Sequence[Pair], hosts: Hosts) -> _Served:
        main_pairs = _listed(default)
        if not main_pairs:
            raise CertificateError("no certificate to serve with")
        main = self._context(main_pairs)
        by_name = {host: main for pair in main_pairs for host in pair.hosts}
        everyone = list(main_pairs)
        made: dict[bytes, SSL.Context] = {}
        for name, found in hosts.items():
            pairs = _listed(found)
            mark = b"".join(pair.certificate.fingerprint(hashes.SHA256()) for pair in pairs)
            if mark not in made:
                made[mark] = self._context(pairs)
                everyone += pairs
            by_name[to_ascii(name)] = made[mark]
        plain = self._context(main_pairs, knows_names=False) if not made else None
        return _Served(main, plain, by_name, tuple(everyone))

    def _context(self, pairs: Sequence[Pair], knows_names: bool = True) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        wanted = self.policy
        set_terms(context, wanted.minimum, wanted.ciphers)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        binding.set_groups(context, *policy.SERVER_GROUPS)
        # Sessions live in tickets, sealed by OpenSSL with keys of this context; the server keeps none.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(_SESSION_ID)
        # A resumed session brings its client certificate along unchecked: where one is asked for, none is resumed.
        if not wanted.tickets or self.clients.mode != "no":
            context.set_options(SSL.OP_NO_TICKET)
        if wanted.alpn:
            context.set_alpn_select_callback(_agreed([one.encode() for one in wanted.alpn]))
        if knows_names:
            context.set_tlsext_servername_callback(self._on_server_name)
        self._ask_clients(context)
        use_pairs(context, pairs)
        return context

    def _ask_clients(self, context: SSL.Context) -> None:
        clients = self.clients
        if clients.mode == "no":
            return
        if not clients.ca_file:
            raise CertificateError("client certificates need a ca_file: the authorities that they are checked against")
        load_authorities(context, clients.ca_file, clients.crl_file)
        context.load_client_ca(clients.ca_file.encode())
        if clients.mode == "require":
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, note_and_refuse)
        else:
            context.set_verify(SSL.VERIFY_PEER, note_and_go_on)

    # -- within a handshake

    def _on_server_name(self, connection: SSL.Connection) -> None:
        """OpenSSL calls this for each ClientHello, with or without a name in it; a handshake may have two."""
        noted = connection.get_app_data()
        if not isinstance(noted, Handshake) or noted.is_named:
            return
        noted.is_named = True
        try:
            raw = connection.get_servername()
            noted.server_name = name = raw.decode("ascii", "replace").lower().rstrip(".") if raw else ""
            context = self._context_for(name, noted.choose)
            if context is not None:
                connection.set_context(context)
        except BaseException as error:  # a hook that calls sys.exit() must not be served with another certificate
            noted.trouble = error

    def _context_for(self, name: str, choose: Choose | None) -> SSL.Context | None:
        """The context for this name; None for the default."""
        served = self._served
        pair = choose(name) if choose is not None else None
        if pair is not None:
            mark = pair.certificate.fingerprint(hashes.SHA256())
            context = served.chosen.get(mark)
            if context is None:
                if len(served.chosen) >= _MAX_CHOSEN:
                    served.chosen.clear()
                context = served.chosen[mark] = self._context([pair])
            return context
        context = served.by_name.get(name) or served.by_name.get("*." + name.partition(".")[2])
        return context if context is not served.main else None


def _agreed(offered: list[bytes]) -> Callable[[SSL.Connection, list[bytes]], bytes | SSL._NoOverlappingProtocols]:
    """An ALPN callback: the first of ours that the client knows too; a client with none of them goes without."""

    def select(connection: SSL.Connection, theirs: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
        for one in offered:
            if one in theirs:
                noted = connection.get_app_data()
                if isinstance(noted, Handshake):
                    noted.alpn = one.decode()
                return one
        return SSL.NO_OVERLAPPING_PROTOCOLS

    return select


def arranged(files: Sequence[PairFiles], pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, list[Pair]]]:
    """Default and hosts of what was read from files. The first is the default; one without `names` that covers the
    same hosts with another type of key stands beside it. All others serve their `names`, or those they cover."""
    if not pairs:
        raise CertificateError("no certificate is named: a listener with TLS needs one")
    default = [pairs[0]]
    hosts: dict[str, list[Pair]] = {}
    for one, pair in zip(files[1:], pairs[1:], strict=True):
        if not one.names and set(pair.hosts) == set(default[0].hosts):
            default.append(pair)
            continue
        for name in one.names or pair.hosts:
            hosts.setdefault(to_ascii(name), []).append(pair)
    return default, hosts


def _listed(found: Pair | Sequence[Pair]) -> list[Pair]:
    return [found] if isinstance(found, Pair) else list(found)


class ClientContext:
    """The client side's context, made once per policy. Thread: stream() from any."""

    def __init__(self, wanted: ClientPolicy | None = None, pair: Pair | None = None) -> None:
        self.policy = wanted = wanted or ClientPolicy()
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        # Opportunistic TLS takes any cipher that OpenSSL thinks fit: the alternative is clear text.
        set_terms(context, wanted.minimum, wanted.ciphers or ("" if wanted.verify else "DEFAULT"))
        if wanted.plain_groups and not binding.set_groups(context, *policy.PLAIN_GROUPS):
            context.set_tmp_ecdh(ec.SECP256R1())  # the one group that pyOpenSSL alone can ask for
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if wanted.alpn:
            context.set_alpn_protos([one.encode() for one in wanted.alpn])
        if pair is not None:
            use_pairs(context, [pair])
        self._name_check = None
        if wanted.verify:
            self._name_check = name_check()
            if wanted.ca_file:
                load_authorities(context, wanted.ca_file)
            else:
                context.set_default_verify_paths()
            context.set_verify(SSL.VERIFY_PEER, note_and_refuse)

    def stream(self, server_name: str = "") -> TlsStream:
        """The client side of a new connection to the host of this name or address. With `verify` the name is what
        the server's certificate must cover."""
        terms = _OPPORTUNISTIC
        if self._name_check is not None:
            if not server_name:
                raise CertificateError("a verified connection needs the name of the server")
            terms = Terms(peer_endpoint, check_peer=self._name_check, verifies=True)
        return TlsStream(self._context, False, server_name, terms=terms)


_OPPORTUNISTIC = Terms(peer_endpoint)
