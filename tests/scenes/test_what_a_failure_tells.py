"""Whatever fails in a log-in, wherever: no log, traceback, transcript, view or error that is told has the secret.

The stores here are as careless as can be: they put what they were given, and what they keep, into all that they raise.
The watchers are as curious as can be: they write down tracebacks with the variables of every frame.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import logging
import smtplib
import ssl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from smtpd_core import SmtpServer, UserAccount, WithheldError
from smtpd_core.accounts import Account, MemoryStore, StoreUnavailable
from smtpd_core.net import GuardSettings
from smtpd_core.wire.sasl.client import Credentials, SaslError
from smtpd_core.wire.sasl.client import mechanism as client_side
from smtpd_core.wire.sasl.verifier import ScramVerifier

SECRET = "correcthorsebatterystaple"
MECHANISMS = (
    "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS",
    "NTLM", "XOAUTH2", "OAUTHBEARER", "EXTERNAL", "ANONYMOUS",
)  # fmt: skip


class Quote(Exception):
    """An exception with the secret in its words, its repr, its attributes, its notes and the one that it comes from."""

    def __init__(self) -> None:
        super().__init__(f"bind failed: {SECRET}")
        self.password = SECRET
        if hasattr(self, "add_note"):
            self.add_note(SECRET)


def quote() -> BaseException:
    try:
        raise KeyError(SECRET)
    except KeyError as cause:
        made = Quote()
        made.__cause__ = cause
        return made


def undecodable() -> BaseException:
    return UnicodeEncodeError("ascii", SECRET, 0, 1, "not ASCII")


FAILURES: dict[str, Callable[[], BaseException]] = {
    "an exception": quote,
    "unavailable": lambda: StoreUnavailable(SECRET),
    "an exit": lambda: SystemExit(SECRET),
    "an error with its object": undecodable,
}
# What no store should answer, and that makes a mechanism stumble.
NONSENSE: dict[str, object] = {
    "a text with a surrogate": SECRET + "\udcff",
    "a verifier of the wrong size": ScramVerifier(b"", 1, SECRET.encode(), b""),
    "bytes": SECRET.encode()[:16],
    "a list": [SECRET],
}


class Careless(MemoryStore):
    """Fails at one of its methods, with the secret in a variable of the frame too."""

    kinds = MemoryStore.kinds | {"token"}
    step = ""
    fails_with: Callable[[], BaseException] | None = None
    answers: object = None

    def _stumble(self, step: str) -> bool:
        password = SECRET  # noqa: F841 (for whoever looks at the variables of this frame)
        if step == self.step and self.fails_with is not None:
            raise self.fails_with()
        return step == self.step

    def verify(self, user: str, password: str) -> Account | None:
        return self.answers if self._stumble("verify") else super().verify(user, password)  # type: ignore[return-value]

    def secret(self, user: str, kind: str) -> object | None:
        return self.answers if self._stumble("secret") else super().secret(user, kind)

    def account(self, user: str) -> Account | None:
        return self.answers if self._stumble("account") else super().account(user)  # type: ignore[return-value]

    def verify_token(self, user: str, token: str) -> Account | None:
        if self._stumble("verify_token"):
            return self.answers  # type: ignore[return-value]
        return Account("ann") if token == SECRET else None


class Curious(logging.Handler):
    """Keeps every record as text, each exception with the variables of its frames, and each argument as it shows."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += [record.getMessage(), repr(record.args), repr(record.__dict__)]
        if record.exc_info and record.exc_info[1] is not None:
            self.seen.append(all_about(record.exc_info[1]))


def all_about(error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format()) + repr(error) + repr(error.args) + repr(vars(error)) + str(error)


class Scene:
    """A server with TLS and client certificates; all that anybody can see of it is in `seen`."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        authority.issue_cert(common_name="ann").private_key_and_cert_chain_pem.write_to_path(str(folder / "ann.pem"))
        self.tls = ssl.create_default_context()
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.tls.load_cert_chain(str(folder / "ann.pem"))
        self.store = Careless(
            [UserAccount("ann", SECRET, may_act_as=("bob",)), UserAccount("bob", "x"), UserAccount("anonymous", "y")]
        )
        self.log = folder / "debug.log"
        self.watcher = Curious()
        self.told: list[BaseException] = []
        self.said: list[str] = []
        known = tuple(name for name in MECHANISMS if name != "NTLM" or importlib.util.find_spec("spnego"))
        self.server = SmtpServer(
            port=0, server_name="mx.test", user_accounts=self.store, auth_mechanisms=known, use_tls="explicit_allow",
            certificate="self-signed", require_client_certificate="ask", client_ca_file=str(folder / "ca.pem"),
            guard=GuardSettings(login_delay=0.0, lock_out_after=0), debug_log=str(self.log), max_errors=0,
            on_server_error=lambda session, error: self._hear(error),
            on_receive_command=lambda session, text: self.said.append(repr(text)),
            on_send_response=lambda session, reply: self.said.append(repr(reply)),
        )  # fmt: skip

    def _hear(self, error: BaseException) -> None:
        self.told.append(error)
        logging.getLogger("program").exception("noted")  # the exception at hand, with the frames that it came through
        raise RuntimeError(f"the observer of errors fails too: {error!r}") from error

    def log_in(self, name: str) -> str:
        """The code of the last reply; "" where the server closed."""
        with smtplib.SMTP(*self.server.address, timeout=30) as client:
            client.starttls(context=self.tls)
            client.ehlo()
            try:
                return self._exchange(client, name)
            except SaslError:
                return str(client.docmd("*")[0])
            except smtplib.SMTPServerDisconnected:
                return ""
            finally:
                self.said += [repr(one) + repr(one.user) for one in self.server.connections]

    def _exchange(self, client: smtplib.SMTP, name: str) -> str:
        if name == "NTLM":
            step = ntlm_client()
        elif name == "ANONYMOUS":
            step = lambda challenge: b"probe"  # noqa: E731
        else:
            token = SECRET if "OAUTH" in name else ""
            binding = bindings(client) if name.endswith("-PLUS") else None
            one = client_side(name, Credentials("ann", SECRET, token), binding)
            first = one.first()
            step = lambda challenge: one.respond(challenge)  # noqa: E731
            if first is not None:
                step = pushed(first, step)
        code, told = client.docmd("AUTH", name)
        while code == 334:
            code, told = client.docmd(base64.b64encode(step(base64.b64decode(told))).decode())
        return str(code)

    def seen(self) -> str:
        transcripts = [self.server.transcript(one) or "" for one in self.server.failed_sessions]
        told = [all_about(error) + repr([getattr(error, "places", "")]) for error in self.told]
        return "\n".join([*self.watcher.seen, *transcripts, *told, *self.said, self.log.read_text()])


def pushed(first: bytes, then: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The initial response as the answer to an empty challenge."""
    left = [first]
    return lambda challenge: left.pop() if left else then(challenge)


def ntlm_client() -> Callable[[bytes], bytes]:
    spnego = pytest.importorskip("spnego")
    made = spnego.client("ann", SECRET, protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    return lambda challenge: made.step(challenge or None) or b""


def bindings(client: smtplib.SMTP) -> tuple[str, bytes]:
    sock = client.sock
    assert isinstance(sock, ssl.SSLSocket)
    certificate = sock.getpeercert(True)
    assert certificate is not None
    import hashlib

    return "tls-server-end-point", hashlib.sha256(certificate).digest()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("scene"))
    logging.getLogger().addHandler(made.watcher)
    before = {name: logging.getLogger(name).level for name in ("smtpd_core", "relay", "certs")}
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with made.server:
        yield made
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().removeHandler(made.watcher)


@pytest.fixture(params=MECHANISMS)
def mechanism(request: pytest.FixtureRequest) -> str:
    if request.param == "NTLM":
        pytest.importorskip("spnego")
    return str(request.param)


@pytest.fixture(autouse=True)
def healthy_again(scene: Scene) -> Iterator[None]:
    yield
    scene.store.step, scene.store.fails_with, scene.store.answers = "", None, None
    scene.server.on_authenticate = None


def secrets_of(mechanism: str) -> list[str]:
    return [SECRET, repr(SECRET.encode()), base64.b64encode(SECRET.encode())[:-4].decode(), SECRET.encode().hex()]


def assert_nothing_told(scene: Scene, mechanism: str) -> None:
    seen = scene.seen()
    assert f"AUTH {mechanism}" in seen, "the dialogue is there"
    assert not [secret for secret in secrets_of(mechanism) if secret in seen]


STEP_OF = {"PLAIN": "verify", "LOGIN": "verify", "XOAUTH2": "verify_token", "OAUTHBEARER": "verify_token"}


def steps_of(mechanism: str) -> tuple[str, ...]:
    """The methods of the store that a right log-in by this mechanism comes to."""
    if mechanism in ("EXTERNAL", "ANONYMOUS"):
        return ("account",)
    return (STEP_OF[mechanism],) if mechanism in STEP_OF else ("secret", "account")


def test_a_log_in_that_goes_well_tells_nothing(scene: Scene, mechanism: str) -> None:
    assert scene.log_in(mechanism) == "235"
    assert_nothing_told(scene, mechanism)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_store_that_fails_at_any_step(scene: Scene, mechanism: str, failure: str) -> None:
    for step in steps_of(mechanism):
        scene.store.step, scene.store.fails_with = step, FAILURES[failure]
        assert scene.log_in(mechanism) == "454", step
        assert_nothing_told(scene, mechanism)
        if failure != "unavailable":
            error = scene.told[-1]
            assert isinstance(error, WithheldError) and error.where == "the account store"
            assert error.kind is type(error.original) and f"in {step}" in error.places


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_store_that_answers_nonsense_at_any_step(scene: Scene, mechanism: str, nonsense: str) -> None:
    for step in steps_of(mechanism):
        scene.store.step, scene.store.answers = step, NONSENSE[nonsense]
        assert scene.log_in(mechanism) in ("454", "535", "501", "421", ""), step
        assert_nothing_told(scene, mechanism)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_program_that_fails_in_on_authenticate(scene: Scene, mechanism: str, failure: str) -> None:
    def fail(session: object, login: object) -> None:
        raise FAILURES[failure]()

    scene.server.on_authenticate = fail
    assert scene.log_in(mechanism) == "454"
    assert_nothing_told(scene, mechanism)
    error = scene.told[-1]
    assert isinstance(error, WithheldError) and error.where == "on_authenticate" and "in fail" in error.places


@pytest.mark.parametrize("answer", ["text", "list"])
def test_a_program_that_answers_nonsense(scene: Scene, mechanism: str, answer: str) -> None:
    scene.server.on_authenticate = lambda session, login: SECRET if answer == "text" else [SECRET]
    assert scene.log_in(mechanism) == "454"
    assert_nothing_told(scene, mechanism)


def test_hooks_that_see_the_raw_bytes_and_fail(tmp_path: Path) -> None:
    """on_read_connection, and a verb AUTH of the program's own in front of the built-in one."""
    watcher, told = Curious(), []
    logging.getLogger().addHandler(watcher)
    try:
        server = SmtpServer(port=0, user_accounts=[UserAccount("ann", SECRET)], clear_text_without_tls=True)
        server.on_server_error = lambda session, error: told.append(error)

        def read(session: object, data: bytes) -> None:
            raise ValueError(data)

        def before_auth(session: object, argument: str) -> object:
            if argument.startswith("PLAIN"):
                raise ValueError(argument)
            return argument  # no verdict, and it has the secret in it

        server.on_read_connection = read
        server.commands.wrap("AUTH", before_auth)
        response = base64.b64encode(f"\0ann\0{SECRET}".encode()).decode()
        with server, smtplib.SMTP(*server.address) as client:
            client.ehlo()
            assert client.docmd("AUTH", f"PLAIN {response}")[0] == 451
            assert client.docmd("AUTH", f"LOGIN {response}")[0] == 451
    finally:
        logging.getLogger().removeHandler(watcher)
    seen = "\n".join(watcher.seen + [all_about(error) for error in told])
    assert len(told) >= 4 and response not in seen and SECRET not in seen


def test_the_original_is_there_for_a_program_that_asks_for_it_and_goes_nowhere_by_itself() -> None:
    import copy
    import pickle

    error = WithheldError("the account store", quote())
    assert str(error) == "the account store failed: Quote, its text withheld"
    assert isinstance(error.original, Quote) and error.original.password == SECRET
    assert SECRET not in all_about(error)
    for carry in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            carry(error)


def test_no_value_with_a_secret_in_it_shows_it() -> None:
    """Every class of values in which a secret travels or is kept, by repr, str and format."""
    from smtpd_core.accounts.entry import Entry, stored_forms
    from smtpd_core.accounts.ldap import LdapSettings
    from smtpd_core.server.login import Answer, Login
    from smtpd_core.wire.events import NeedSecret
    from smtpd_core.wire.sasl.exchange import Ask, Surroundings
    from smtpd_core.wire.sasl.verifier import make_verifier

    stored = stored_forms(SECRET, ["cleartext"])
    event = NeedSecret("PLAIN", "ann", "password", SECRET)
    verifier = make_verifier(SECRET, "scram-sha-256")
    values = [
        UserAccount("ann", SECRET), Entry(Account("ann"), stored), event, Login(event), Answer(SECRET),
        Ask("ann", "password", SECRET), Surroundings(salt_key=SECRET.encode()), Credentials("ann", SECRET, SECRET),
        LdapSettings("ldap://x", base="dc=x", service_password=SECRET), verifier,
        MemoryStore([UserAccount("ann", SECRET)]),
    ]  # fmt: skip
    hidden = [SECRET, stored[0], base64.b64encode(SECRET.encode()).decode(), repr(verifier.stored_key)]
    for value in values:
        shown = f"{value!r} {value}" if not isinstance(value, ScramVerifier) else repr(value)
        assert not [one for one in hidden if one in shown], type(value)
        if dataclasses.is_dataclass(value):
            assert repr(dataclasses.replace(value)) == repr(value)
