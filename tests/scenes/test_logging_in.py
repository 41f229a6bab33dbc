"""Logging in over real sockets: smtplib, curl, swaks and msmtp with every mechanism that each knows."""

from __future__ import annotations

import base64
import importlib.util
import os
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from smtpd_core import SmtpServer, UserAccount
from smtpd_core.accounts import MemoryStore
from smtpd_core.accounts.chain import ChainStore
from smtpd_core.accounts.oauth import TokenStore
from smtpd_core.accounts.password_file import PasswordFileStore
from smtpd_core.net import GuardSettings
from smtpd_core.server.login import Login
from smtpd_core.wire.sasl.client import Credentials, Mechanism
from smtpd_core.wire.sasl.client import mechanism as client_side

PEOPLE = [
    UserAccount("ann", "correct horse", "Ann", "ann@mx.test", may_act_as=("bob",)),
    UserAccount("bob", "b\xe4h, with = and ,", "Bob", "bob@mx.test"),
]
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg"
PASSWORD_MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "NTLM")
MESSAGE = "Subject: hello\r\n\r\nBody\r\n"


class OneToken:
    """An authority that knows one token."""

    def claims(self, token: str) -> dict[str, str] | None:
        return {"sub": "ann"} if token == TOKEN else None


class Served:
    """A running server and the names of those who sent a message."""

    def __init__(self, server: SmtpServer) -> None:
        self.sent: list[str] = []
        server.on_message_received = lambda session, message: self.sent.append(session.user_name)
        server.start()
        self.address: tuple[str, int] = server.address


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server with our people."""
    running = []

    def start(**more: object) -> Served:
        people = ChainStore([MemoryStore(PEOPLE), TokenStore(OneToken())])
        settings = {"certificate": "self-signed", "use_tls": "explicit_allow", "user_accounts": people, **more}
        settings.setdefault("guard", GuardSettings(login_delay=0.0))
        server = SmtpServer(port=0, server_name="mx.test", **settings)
        running.append(server)
        return Served(server)

    yield start
    for server in running:
        server.stop(5)


def wants(mechanism: str) -> None:
    if mechanism == "NTLM" and importlib.util.find_spec("spnego") is None:
        pytest.skip("needs the extra ntlm")


@pytest.fixture
def server(serve: Serve, mechanism: str, request: pytest.FixtureRequest) -> Served:
    wants(mechanism)
    # libntlm (msmtp) and Authen::NTLM (swaks) know the first version only.
    return serve(auth_mechanisms=(mechanism,), ntlm_version_1=request.node.originalname != "test_curl")


def run(*command: str, data: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=data, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtplib(server: Served, mechanism: str) -> None:
    with smtplib.SMTP(*server.address, timeout=20) as client:
        client.starttls()
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann", "wrong")
        client.ehlo()
        client.login("ann", "correct horse")
        client.sendmail("ann@mx.test", ["x@mx.test"], MESSAGE)
    assert server.sent == ["ann"]


def curl(server: Served, *options: str) -> subprocess.CompletedProcess[str]:
    host, port = server.address
    return run(
        "curl", "-sS", "-k", "--ssl-reqd", f"smtp://{host}:{port}/probe", "--mail-from", "ann@mx.test",
        "--mail-rcpt", "x@mx.test", "-T", "-", *options, data=MESSAGE,
    )  # fmt: skip


@pytest.mark.debian("curl")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "NTLM"])
def test_curl(server: Served, mechanism: str) -> None:
    good = curl(server, "-u", "ann:correct horse", "--login-options", f"AUTH={mechanism}")
    assert (good.returncode, server.sent) == (0, ["ann"]), good.stderr
    bad = curl(server, "-u", "ann:wrong", "--login-options", f"AUTH={mechanism}")
    assert bad.returncode == 67 and server.sent == ["ann"]


@pytest.mark.debian("curl")
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_curl_with_a_token(server: Served, mechanism: str) -> None:
    options = ("-u", "ann", "--login-options", f"AUTH={mechanism}", "--oauth2-bearer")
    good = curl(server, *options, TOKEN)
    assert (good.returncode, server.sent) == (0, ["ann"]), good.stderr
    assert curl(server, *options, "another").returncode == 67 and server.sent == ["ann"]


@pytest.mark.debian("curl")
def test_curl_with_a_certificate(serve: Serve, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert(common_name="ann").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ann.pem"))
    server = serve(
        require_client_certificate=True, client_ca_file=str(tmp_path / "ca.pem"), auth_mechanisms=("EXTERNAL", "PLAIN")
    )
    made = curl(
        server, "-u", "ann:", "--login-options", "AUTH=EXTERNAL",
        "--cert", str(tmp_path / "ann.pem"),
    )  # fmt: skip
    assert (made.returncode, server.sent) == (0, ["ann"]), made.stderr


def swaks_has_ntlm() -> bool:
    return "NTLM supported" in run("swaks", "--support").stdout


@pytest.mark.debian("swaks")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "NTLM"])
def test_swaks(server: Served, mechanism: str) -> None:
    if mechanism == "NTLM" and os.environ.get("CI") != "true" and not swaks_has_ntlm():
        pytest.skip("needs libauthen-ntlm-perl from Debian's packages")
    host, port = server.address

    def swaks(password: str) -> subprocess.CompletedProcess[str]:
        return run(
            "swaks", "-s", f"{host}:{port}", "-tls", "-a", mechanism, "-au", "ann", "-ap", password,
            "-f", "ann@mx.test", "-t", "x@mx.test",
        )  # fmt: skip

    good = swaks("correct horse")
    assert (good.returncode, server.sent) == (0, ["ann"]), good.stdout
    assert swaks("wrong").returncode == 28 and server.sent == ["ann"]


@pytest.mark.debian("msmtp")
@pytest.mark.parametrize("mechanism", [*PASSWORD_MECHANISMS, "OAUTHBEARER", "XOAUTH2"])
def test_msmtp(server: Served, mechanism: str, tmp_path: Path) -> None:
    host, port = server.address

    def msmtp(user: str, password: str) -> subprocess.CompletedProcess[str]:
        config = tmp_path / "msmtprc"
        config.write_text(
            f"account default\nhost {host}\nport {port}\ntls on\ntls_starttls on\ntls_certcheck off\n"
            f'auth {mechanism.lower()}\nuser {user}\npassword "{password}"\nfrom {user}@mx.test\n'
        )
        config.chmod(0o600)
        return run("msmtp", "-C", str(config), "x@mx.test", data=MESSAGE)

    secret = TOKEN if mechanism in ("OAUTHBEARER", "XOAUTH2") else "correct horse"
    good = msmtp("ann", secret)
    assert (good.returncode, server.sent) == (0, ["ann"]), good.stderr
    assert msmtp("ann", "wrong").returncode == 77 and server.sent == ["ann"]
    if secret != TOKEN and mechanism != "NTLM":  # libntlm has no idea of what is beyond ASCII
        assert msmtp("bob", PEOPLE[1].password).returncode == 0 and server.sent == ["ann", "bob"]


@pytest.mark.debian("msmtp")
def test_msmtp_with_a_certificate(serve: Serve, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert(common_name="ann")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "ann.pem"))
    server = serve(
        require_client_certificate="ask", client_ca_file=str(tmp_path / "ca.pem"), auth_mechanisms=("EXTERNAL", "PLAIN")
    )
    host, port = server.address
    config = tmp_path / "msmtprc"
    lines = (
        f"account default\nhost {host}\nport {port}\ntls on\ntls_starttls on\ntls_certcheck off\n"
        "auth external\nuser ann\nfrom ann@mx.test\n"
    )
    certified = f"tls_cert_file {tmp_path}/ann.pem\ntls_key_file {tmp_path}/key.pem\n"
    for more, code, sent in (("", 69, []), (certified, 0, ["ann"])):
        config.write_text(lines + more)
        config.chmod(0o600)
        made = run("msmtp", "-C", str(config), "x@mx.test", data=MESSAGE)
        assert (made.returncode, server.sent) == (code, sent), made.stderr


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"])
def test_our_own_client_binds_the_login_to_the_channel(server: Served, mechanism: str, tmp_path: Path) -> None:
    host, port = server.address
    sent = run(
        "env", "SMTPD_PASSWORD=correct horse", sys.executable, "-m", "smtpd_core", "send", "--server", f"{host}:{port}",
        "--tls", "require", "--user", "ann", "--to", "x@mx.test", "--from", "ann@mx.test", "--verbose", "-",
        data=MESSAGE,
    )  # fmt: skip
    assert sent.returncode == 0 and server.sent == ["ann"], sent.stderr
    assert f"AUTH {mechanism}" in sent.stdout + sent.stderr
    assert "correct horse" not in sent.stdout + sent.stderr


def test_acting_as_another_needs_the_stores_permission(serve: Serve) -> None:
    server = serve(restrict_senders="enforce")
    with smtplib.SMTP(*server.address, timeout=20) as client:
        client.starttls()
        client.ehlo()
        client.user, client.password = "ann", "correct horse"
        assert client.auth("PLAIN", lambda challenge=None: "bob\0ann\0correct horse")[0] == 235
        client.sendmail("bob@mx.test", ["x@mx.test"], MESSAGE)
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("ann@mx.test", ["x@mx.test"], MESSAGE)
        assert refused.value.smtp_code == 553
    assert server.sent == ["bob"]
    with smtplib.SMTP(*server.address, timeout=20) as client:
        client.starttls()
        client.ehlo()
        response = base64.b64encode(f"ann\0bob\0{PEOPLE[1].password}".encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {response}")[0] == 535


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_acting_as_oneself_needs_no_permission_however_the_name_is_spelt(serve: Serve, mechanism: str) -> None:
    server = serve(user_accounts=MemoryStore(PEOPLE, case_insensitive=True))
    for acts_as, code in (("ANN", 235), ("ann", 235), ("Bob", 535)):
        one = client_side(mechanism, Credentials("ANN", "correct horse", act_as=acts_as))
        with smtplib.SMTP(*server.address, timeout=20) as client:
            client.starttls()
            client.ehlo()
            assert exchange(client, one) == code, acts_as


@pytest.mark.parametrize(
    ("rule", "code", "is_told"), [("off", 250, False), ("warn", 250, True), ("enforce", 553, True)]
)
def test_the_sender_rule(serve: Serve, caplog: pytest.LogCaptureFixture, rule: str, code: int, is_told: bool) -> None:
    server = serve(restrict_senders=rule)
    with smtplib.SMTP(*server.address, timeout=20) as client:
        client.starttls()
        client.login("ann", "correct horse")
        for own in ("ann@mx.test", "Ann+list@MX.test", ""):
            assert client.mail(own)[0] == 250
            client.rset()
        assert not [record for record in caplog.records if "sends as" in record.getMessage()]
        assert client.mail("bob@mx.test")[0] == code
    assert ("user ann sends as <bob@mx.test>" in caplog.text) is is_told


@pytest.mark.parametrize("mechanism", ["PLAIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_a_program_supplies_an_account_that_the_store_does_not_know(serve: Serve, mechanism: str) -> None:
    def supply(session: object, login: Login) -> UserAccount | None:
        return UserAccount("guest", "welcome", email="guest@mx.test") if login.user == "guest" else None

    server = serve(on_authenticate=supply, restrict_senders="enforce")
    for user, password, code in (("guest", "welcome", 235), ("guest", "wrong", 535), ("ann", "correct horse", 235)):
        with smtplib.SMTP(*server.address, timeout=20) as client:
            client.starttls()
            client.ehlo()
            assert exchange(client, client_side(mechanism, Credentials(user, password))) == code
            if code == 235:
                client.sendmail(f"{user}@mx.test", ["x@mx.test"], MESSAGE)
    assert server.sent == ["guest", "ann"]


def exchange(client: smtplib.SMTP, one: Mechanism) -> int:
    """One AUTH from its command to its last reply."""
    first = one.first()
    code, told = client.docmd("AUTH", one.name + (f" {base64.b64encode(first).decode()}" if first is not None else ""))
    while code == 334:
        code, told = client.docmd(base64.b64encode(one.respond(base64.b64decode(told))).decode())
    return code


def test_anonymous_is_offered_only_by_name_and_needs_its_account(serve: Serve) -> None:
    for accounts, code in (([*PEOPLE, UserAccount("anonymous", "nobody knows it")], 235), (PEOPLE, 535)):
        with smtplib.SMTP(*serve(user_accounts=accounts).address) as client:
            client.starttls()
            client.ehlo()
            assert "ANONYMOUS" not in client.esmtp_features["auth"]
            assert client.docmd("AUTH", "ANONYMOUS eA==")[0] == 504
        with smtplib.SMTP(*serve(user_accounts=accounts, auth_mechanisms=("ANONYMOUS",)).address) as client:
            client.ehlo()
            assert client.docmd("AUTH", "ANONYMOUS eA==")[0] == code


def test_an_anonymous_user_may_not_relay(serve: Serve) -> None:
    people = [*PEOPLE, UserAccount("anonymous", "nobody knows it")]
    server = serve(user_accounts=people, auth_mechanisms=("ANONYMOUS", "PLAIN"), outbox=Outbox(), relay_from=())
    for login, code in (("ANONYMOUS eA==", 550), ("PLAIN " + base64.b64encode(b"\0ann\0correct horse").decode(), 250)):
        with smtplib.SMTP(*server.address) as client:
            client.starttls()
            client.ehlo()
            assert client.docmd("AUTH", login)[0] == 235
            client.mail("ann@mx.test")
            assert client.rcpt("x@elsewhere.test")[0] == code


class Outbox:
    """Takes mail for the whole world and keeps none."""

    drafts = None

    def holds(self, address: str) -> bool:
        return True

    def has_room(self) -> None:
        return None

    def keep(self, envelope: object, draft: object) -> None:
        raise AssertionError("nothing is sent")


def test_an_account_that_is_shut_stays_out_with_its_certificate_too(serve: Serve, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert(common_name="ann").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ann.pem"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(str(tmp_path / "ann.pem"))
    users = tmp_path / "users"
    users.write_text("ann:{PLAIN}x\n")
    server = serve(
        user_accounts=PasswordFileStore(users), require_client_certificate=True,
        client_ca_file=str(tmp_path / "ca.pem"), auth_mechanisms=("EXTERNAL", "PLAIN"),
    )  # fmt: skip
    for line, code in (("ann:{PLAIN}x", 235), ("ann:{PLAIN}x::::::nologin", 535), ("ann:*", 535)):
        users.write_text(line + "\n")
        with smtplib.SMTP(*server.address) as client:
            client.starttls(context=context)
            client.ehlo()
            assert client.docmd("AUTH", "EXTERNAL =")[0] == code, line
