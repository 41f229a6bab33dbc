"""Which certificate a client gets and on which terms: SNI, key types, client certificates, versions."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs.contexts import ClientContext, ServerContexts, arranged
from certs.files import Pair, PairFiles, pem_of, write_file, write_pair
from certs.issue import Wish, issue, self_signed
from certs.policy import ClientCertificates, ClientPolicy, ServerPolicy
from certs.samples import Samples, make_samples
from certs.stream import TlsStream
from certs.trouble import CertificateError, TlsError
from tests.certs.talk import shake_hands

HOST = "mx.example.test"


@pytest.fixture(scope="module")
def samples() -> Samples:
    return make_samples(HOST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, samples: Samples) -> Path:
    """ca.pem and crl.pem."""
    path = tmp_path_factory.mktemp("trust")
    write_file(path / "ca.pem", pem_of(samples.root.certificate, samples.between.certificate))
    write_file(path / "crl.pem", samples.crl.public_bytes(Encoding.PEM))
    return path


def talk(server: ServerContexts, client: ClientContext, name: str = HOST) -> tuple[TlsStream, TlsStream]:
    one, other = server.stream(), client.stream(name)
    shake_hands(one, other)
    return one, other


def shown(server: ServerContexts, name: str, policy: ClientPolicy | None = None) -> x509.Certificate:
    facts = talk(server, ClientContext(policy), name)[1].facts
    return x509.load_der_x509_certificate(facts.peer_certificate)


@pytest.fixture(scope="module")
def named(between: Pair) -> ServerContexts:
    def made(*names: str) -> Pair:
        return issue(Wish(names), between)

    return ServerContexts(
        made("mx.one.test", "also.one.test"),
        {"mx.two.test": made("mx.two.test"), "*.three.test": made("*.three.test", "three.test")},
    )


class TestServerName:
    @pytest.mark.parametrize(
        "name, common_name",
        [
            ("mx.one.test", "mx.one.test"),
            ("also.one.test", "mx.one.test"),
            ("MX.Two.test", "mx.two.test"),
            ("any.three.test", "*.three.test"),
            ("a.b.three.test", "mx.one.test"),
            ("unknown.test", "mx.one.test"),
            ("", "mx.one.test"),
            ("192.0.2.1", "mx.one.test"),
        ],
    )
    def test_a_name_chooses_the_certificate(self, named: ServerContexts, name: str, common_name: str) -> None:
        assert shown(named, name).subject.rfc4514_string() == f"CN={common_name}"

    def test_the_channel_binding_is_that_of_the_certificate_shown(self, named: ServerContexts) -> None:
        for name in ("mx.one.test", "mx.two.test"):
            server, client = talk(named, ClientContext(), name)
            assert server.facts.bindings == client.facts.bindings
            assert server.facts.server_name == name

    def test_names_come_from_the_files_or_from_the_settings(self, tmp_path: Path, between: Pair) -> None:
        files = []
        for n, (names, served) in enumerate([(("a.test",), ()), (("b.test",), ()), (("c.test",), ("d.test",))]):
            certificate, key = tmp_path / f"{n}.pem", tmp_path / f"{n}.key"
            write_pair(issue(Wish(names), between), certificate, key)
            files.append(PairFiles(str(certificate), str(key), names=served))
        contexts = ServerContexts.from_files(files)
        told = [shown(contexts, name).subject.rfc4514_string() for name in ("a.test", "b.test", "c.test", "d.test")]
        assert told == ["CN=a.test", "CN=b.test", "CN=a.test", "CN=c.test"]


@pytest.fixture(scope="module")
def beside(between: Pair) -> ServerContexts:
    return ServerContexts([issue(Wish((HOST,)), between), issue(Wish((HOST,)), between, kind="rsa-2048")])


def test_where_nobody_logs_in_no_bindings_are_worked_out(leaf: Pair) -> None:
    server, client = ServerContexts(leaf).stream(bindings=False), ClientContext().stream("mx.test")
    shake_hands(server, client)
    assert server.facts.bindings == {} and server.facts.server_name == "mx.test"


class TestSideBySide:
    @pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
    def test_the_clients_abilities_choose_between_rsa_and_ecdsa(self, beside: ServerContexts, kind: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client, server = context.wrap_bio(into, out), beside.stream()
        for _ in range(4):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            server.feed(out.read())
            server.handshake()
            into.write(server.take_output())
        assert kind in server.facts.cipher
        der = client.getpeercert(binary_form=True)
        assert der is not None
        binding = hashes.Hash(hashes.SHA256())
        binding.update(der)
        assert server.facts.bindings["tls-server-end-point"] == binding.finalize()

    def test_each_brings_its_own_chain(self, beside: ServerContexts, between: Pair, tmp_path: Path, root: Pair) -> None:
        ca = tmp_path / "root.pem"
        ca.write_bytes(pem_of(root.certificate))
        _, client = talk(beside, ClientContext(ClientPolicy(verify=True, ca_file=str(ca))))
        assert client.facts.peer_verified

    def test_files_that_cover_the_same_hosts_stand_side_by_side(self, between: Pair) -> None:
        ec, rsa = issue(Wish((HOST,)), between), issue(Wish((HOST,)), between, kind="rsa-2048")
        assert arranged([PairFiles("a"), PairFiles("b")], [ec, rsa]) == ([ec, rsa], {})

    def test_two_of_one_type_are_refused(self, between: Pair) -> None:
        with pytest.raises(CertificateError, match="one of each"):
            ServerContexts([issue(Wish((HOST,)), between), issue(Wish((HOST,)), between)])


class TestChosenByTheProgram:
    def test_the_hook_is_asked_once_with_the_name_and_decides(self, leaf: Pair, between: Pair) -> None:
        asked: list[str] = []
        other = issue(Wish(("chosen.test",)), between)

        def choose(name: str) -> Pair | None:
            asked.append(name)
            return other if name == "chosen.test" else None

        contexts = ServerContexts(leaf, choose=choose)
        assert shown(contexts, "chosen.test") == other.certificate
        assert shown(contexts, "mx.test") == leaf.certificate
        assert shown(contexts, "") == leaf.certificate
        assert asked == ["chosen.test", "mx.test", ""]

    def test_a_hook_for_one_connection_goes_before_the_listeners(self, leaf: Pair, between: Pair) -> None:
        other = issue(Wish(("chosen.test",)), between)
        contexts = ServerContexts(leaf, choose=lambda name: None)
        server, client = contexts.stream(choose=lambda name: other), ClientContext().stream("mx.test")
        shake_hands(server, client)
        assert client.facts.peer_names == ("chosen.test",)

    def test_a_hook_that_raises_ends_that_handshake_alone(self, leaf: Pair) -> None:
        def choose(name: str) -> Pair | None:
            if name == "bad.test":
                raise LookupError("the certificate data base is away")
            return None

        contexts = ServerContexts(leaf, choose=choose)
        with pytest.raises(TlsError, match="data base is away") as caught:
            talk(contexts, ClientContext(), "bad.test")
        assert isinstance(caught.value.__cause__, LookupError)
        assert shown(contexts, "mx.test") == leaf.certificate

    @pytest.mark.parametrize("trouble", [LookupError, SystemExit, KeyboardInterrupt])
    def test_where_the_hook_fails_no_other_certificate_is_shown(self, leaf: Pair, trouble: type[BaseException]) -> None:
        """The client gets an alert, not the default certificate and a closed connection."""

        def choose(name: str) -> Pair | None:
            raise trouble("away")

        server, client = ServerContexts(leaf, choose=choose).stream(), ClientContext().stream("mx.test")
        client.handshake()
        server.feed(client.take_output())
        with pytest.raises(TlsError, match="away"):
            server.handshake()
        client.feed(server.take_output())
        assert server.take_output() == b""
        with pytest.raises(TlsError, match="internal error"):
            client.handshake()


class TestVersions:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("minimum, is_served", [("1.2", False), ("1.0", True)])
    def test_old_versions_need_an_explicit_setting(
        self, leaf: Pair, version: ssl.TLSVersion, minimum: str, is_served: bool
    ) -> None:
        contexts = ServerContexts(leaf, policy=ServerPolicy(minimum=minimum))  # type: ignore[arg-type]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client, server = context.wrap_bio(into, out), contexts.stream()

        def go() -> bool:
            for _ in range(5):
                try:
                    client.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                server.feed(out.read())
                if server.handshake():
                    return True
                into.write(server.take_output())
            return False

        if is_served:
            assert (go() and server.facts.version == client.version()) or "TLSv1" in server.facts.version
            return
        with pytest.raises(TlsError, match="versions that are refused"):
            go()
        assert server.take_output()[:1] == b"\x15", "the alert tells the client why"

    def test_the_minimum_can_be_raised(self, leaf: Pair) -> None:
        contexts = ServerContexts(leaf, policy=ServerPolicy(minimum="1.3"))
        server, _ = talk(contexts, ClientContext())
        assert server.facts.version == "TLSv1.3"

    def test_the_key_exchange_is_hybrid_where_both_can_and_plain_where_asked(self, leaf: Pair) -> None:
        contexts = ServerContexts(leaf)
        if talk(contexts, ClientContext())[0].facts.group in ("", "x25519", "X25519"):
            pytest.skip("the linked OpenSSL has no hybrid group, or does not tell")
        assert talk(contexts, ClientContext())[0].facts.group.upper() == "X25519MLKEM768"
        plain = ClientContext(ClientPolicy(plain_groups=True))
        assert talk(contexts, plain)[0].facts.group.upper() in ("X25519", "SECP256R1")

    def test_a_cipher_list_that_openssl_does_not_know_is_refused(self, leaf: Pair) -> None:
        with pytest.raises(CertificateError, match="NONSENSE"):
            ServerContexts(leaf, policy=ServerPolicy(ciphers="NONSENSE"))

    def test_a_client_with_another_protocol_name_is_served(self, leaf: Pair) -> None:
        server, client = talk(ServerContexts(leaf), ClientContext(ClientPolicy(alpn=("h2",))))
        assert server.facts.alpn == client.facts.alpn == ""

    def test_a_weak_key_is_refused_in_plain_words(self, samples: Samples) -> None:
        with pytest.raises(CertificateError, match="key is too small"):
            ServerContexts(samples.leaves["weak"])


class TestClientCertificates:
    def contexts(self, samples: Samples, folder: Path, mode: str, crl: bool = False) -> ServerContexts:
        clients = ClientCertificates(
            mode,  # type: ignore[arg-type]
            ca_file=str(folder / "ca.pem"),
            crl_file=str(folder / "crl.pem") if crl else "",
        )
        return ServerContexts(samples.leaves["good"], clients=clients)

    def test_a_good_one_is_told_with_its_names(self, samples: Samples, folder: Path) -> None:
        contexts = self.contexts(samples, folder, "require")
        facts = talk(contexts, ClientContext(pair=samples.leaves["client"]))[0].facts
        assert facts.peer_verified and not facts.peer_error
        assert facts.peer_names == ("client@example.test", "client.example.test")
        assert facts.peer_subject == "CN=client"

    def test_none_is_no_fault_where_it_is_only_asked_for(self, samples: Samples, folder: Path) -> None:
        facts = talk(self.contexts(samples, folder, "ask"), ClientContext())[0].facts
        assert not facts.peer_verified and not facts.peer_certificate

    def test_none_ends_the_handshake_where_one_is_required(self, samples: Samples, folder: Path) -> None:
        with pytest.raises(TlsError, match="one is required"):
            talk(self.contexts(samples, folder, "require"), ClientContext())

    def test_a_bad_one_is_told_where_it_is_only_asked_for(self, samples: Samples, folder: Path) -> None:
        stranger = Pair(*self_signed(["stranger.test"], usages=["client"]))
        facts = talk(self.contexts(samples, folder, "ask"), ClientContext(pair=stranger))[0].facts
        assert not facts.peer_verified and "self-signed" in facts.peer_error
        assert facts.peer_names == ("stranger.test",)

    def test_a_bad_one_is_refused_where_it_is_required(self, samples: Samples, folder: Path) -> None:
        stranger = Pair(*self_signed(["stranger.test"], usages=["client"]))
        with pytest.raises(TlsError, match="self-signed"):
            talk(self.contexts(samples, folder, "require"), ClientContext(pair=stranger))

    def test_a_revoked_one_is_found_by_the_list(self, samples: Samples, folder: Path) -> None:
        wish = Wish(("revoked.test",), usages=("client",))
        mine = issue(wish, samples.between)
        assert talk(self.contexts(samples, folder, "require", crl=True), ClientContext(pair=mine))[
            0
        ].facts.peer_verified
        revoked = samples.leaves["revoked"]  # a server's, as mail servers show when they are clients
        contexts = self.contexts(samples, folder, "ask", crl=True)
        facts = talk(contexts, ClientContext(pair=revoked))[0].facts
        assert not facts.peer_verified and "revoked" in facts.peer_error

    def test_a_servers_certificate_will_do_for_a_client(self, samples: Samples, folder: Path) -> None:
        """Public authorities no longer issue certificates for clients."""
        contexts = self.contexts(samples, folder, "require")
        assert talk(contexts, ClientContext(pair=samples.leaves["good"]))[0].facts.peer_verified
        mail = issue(Wish(("ann@example.test",), usages=("email",)), samples.between)
        with pytest.raises(TlsError, match="not made for this use"):
            talk(contexts, ClientContext(pair=mail))

    def test_a_session_with_a_bad_certificate_is_never_resumed_as_a_good_one(
        self, samples: Samples, folder: Path
    ) -> None:
        """A resumed handshake runs no verification: the certificate in the session would pass unchecked."""
        contexts = self.contexts(samples, folder, "ask")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        assert resumed(contexts, context) == [False, False]

    def test_authorities_are_needed(self, samples: Samples) -> None:
        with pytest.raises(CertificateError, match="ca_file"):
            ServerContexts(samples.leaves["good"], clients=ClientCertificates("ask"))


def resumed(contexts: ServerContexts, context: ssl.SSLContext) -> list[bool]:
    """Two handshakes of one client of the standard library; whether each was a resumption."""
    told: list[bool] = []
    session: ssl.SSLSession | None = None
    for _ in range(2):
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(into, out, session=session)
        server = contexts.stream()
        for _ in range(4):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            server.feed(out.read())
            server.handshake()
            into.write(server.take_output())
        server.write(b"220 ready\r\n")
        into.write(server.take_output())
        client.read()
        session = client.session
        told.append(server.facts.resumed)
    return told


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("tickets", [True, False])
def test_sessions_are_resumed_by_ticket_alone(leaf: Pair, version: ssl.TLSVersion, tickets: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    assert resumed(ServerContexts(leaf, policy=ServerPolicy(tickets=tickets)), context) == [False, tickets]


class TestVerifiedServers:
    def policy(self, folder: Path) -> ClientPolicy:
        return ClientPolicy(verify=True, ca_file=str(folder / "ca.pem"))

    def test_a_good_server_is_told_verified(self, samples: Samples, folder: Path) -> None:
        client = talk(ServerContexts(samples.leaves["good"]), ClientContext(self.policy(folder)))[1]
        assert client.facts.peer_verified and not client.facts.peer_error

    def test_an_address_is_checked_too(self, samples: Samples, folder: Path) -> None:
        contexts = ServerContexts(samples.leaves["good"])
        assert talk(contexts, ClientContext(self.policy(folder)), "127.0.0.1")[1].facts.peer_verified
        with pytest.raises(TlsError, match=r"not for 192\.0\.2\.1"):
            talk(contexts, ClientContext(self.policy(folder)), "192.0.2.1")

    @pytest.mark.parametrize(
        "name, why",
        [
            ("wrong-host", "is for elsewhere.example.test, not for mx.example.test"),
            ("expired", "expired"),
            ("not-yet-valid", "not yet valid"),
            ("self-signed", "self-signed"),
        ],
    )
    def test_each_bad_server_is_refused_with_its_fault(
        self, samples: Samples, folder: Path, name: str, why: str
    ) -> None:
        with pytest.raises(TlsError, match=why):
            talk(ServerContexts(samples.leaves[name]), ClientContext(self.policy(folder)))

    def test_opportunistic_tls_takes_them_all_and_tells(self, samples: Samples) -> None:
        for name in ("wrong-host", "expired", "self-signed"):
            facts = talk(ServerContexts(samples.leaves[name]), ClientContext())[1].facts
            assert not facts.peer_verified and facts.peer_error == "not checked"

    def test_a_verified_connection_needs_a_name(self, folder: Path) -> None:
        with pytest.raises(CertificateError, match="name of the server"):
            ClientContext(self.policy(folder)).stream()

    def test_without_service_identity_it_says_which_extra_to_install(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "service_identity", None)
        with pytest.raises(CertificateError, match=r"smtpd_core\[relay\]"):
            ClientContext(self.policy(folder))
