"""What is refused before anything is bound."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from smtpd_core.app.cli import main
from smtpd_core.app.cmd_check import refuse
from smtpd_core.app.endpoint import bad_address
from smtpd_core.app.load import BadSettings, load
from smtpd_core.app.plan import explain
from smtpd_core.app.sanity import faults, warnings
from smtpd_core.app.settings import EMBEDDED, Accounts, Domain, Limits, Listener, Relay, Settings, Tls
from tests.app.mutants import EXAMPLES, mutate


def with_listener(**values: object) -> Settings:
    return replace(EMBEDDED, listener=(replace(Listener(), **values),))  # type: ignore[arg-type]


def test_the_embedded_defaults_are_sane(tmp_path: Path) -> None:
    settings = replace(EMBEDDED, state=str(tmp_path / "state"))
    assert faults(settings) == [] and warnings(settings) == []


def test_log_ins_are_possible_without_tls_where_no_password_is_shown() -> None:
    listening = with_listener(auth="required", tls="none", service="submission")
    for names, possible in ((("SCRAM-SHA-256",), True), (("CRAM-MD5", "PLAIN"), True), (("PLAIN", "LOGIN"), False)):
        found = faults(replace(listening, accounts=Accounts("file:u", mechanisms=names)))
        assert any("listener[1].auth" in fault for fault in found) != possible, found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (with_listener(auth="required"), "listener[1].auth: required needs [accounts] store"),
        (
            replace(with_listener(auth="required", tls="none", service="submission"), accounts=Accounts("file:u")),
            'listener[1].auth: required with tls = "none"',
        ),
        (
            replace(with_listener(auth="required"), accounts=Accounts("file:u")),
            "an mx listener takes mail from servers",
        ),
        (with_listener(bind="127.0.0.1"), "is no HOST:PORT"),
        (with_listener(bind="::1:25"), "stands in brackets"),
        (with_listener(service="lmtp", bind="127.0.0.1:25"), "RFC 2033"),
        (Settings(), "no [[listener]]"),
        (replace(EMBEDDED, listener=(Listener(), Listener())), "listener[2].bind: 127.0.0.1:2525 is taken"),
        (replace(EMBEDDED, relay=Relay(enabled=True, allow_networks=("0.0.0.0/0",))), "an open relay"),
        (replace(EMBEDDED, relay=Relay(enabled=True, allow_networks=("::/0",))), "an open relay"),
        (replace(EMBEDDED, relay=Relay(allow_networks=("10.0.0",))), "is no network"),
        (replace(EMBEDDED, relay=Relay(smarthost="mail")), "relay.smarthost: 'mail' is no HOST:PORT"),
        (replace(EMBEDDED, tls=Tls(certificate="/no/such.pem")), "tls.certificate: /no/such.pem: no such file"),
        (replace(EMBEDDED, tls=Tls(key="/no/such.pem")), "tls.key: given without its certificate"),
        (replace(EMBEDDED, domains={"a.test": Domain(deliver="mailbox:x")}), "is none of maildir:PATH"),
        (replace(EMBEDDED, domains={"a.test": Domain(deliver="maildir:{home}")}), "only {user} and {domain}"),
        (replace(EMBEDDED, domains={"a.test": Domain(users=("accounts",))}), '"accounts" needs [accounts] store'),
        (replace(EMBEDDED, domains={"a test": Domain()}), "no domain name"),
        (replace(EMBEDDED, accounts=Accounts(mechanisms=("PLAINN",))), "'PLAINN' is none of"),
        (replace(EMBEDDED, limits=Limits(without=("CHUNKNG",))), "did you mean CHUNKING?"),
        (replace(EMBEDDED, hostname="a b"), "hostname: 'a b' is no host name"),
        (replace(EMBEDDED, umask="9"), "umask: '9' is no octal number"),
        (replace(EMBEDDED, state="/etc/passwd"), "state: /etc/passwd is no directory"),
    ],
)
def test_what_can_not_work_is_refused_with_key_and_reason(settings: Settings, said: str) -> None:
    assert any(said in fault for fault in faults(settings)), faults(settings)


@pytest.mark.parametrize("text", ["[::1]:25", "127.0.0.1:25", "mx.example.test:65535"])
def test_good_addresses(text: str) -> None:
    assert not bad_address(text)


@pytest.mark.parametrize("text", ["", ":", "host", "host:0", "host:65536", "host:x", "[::1:25", "[zz]:25", "a b:25"])
def test_bad_addresses(text: str) -> None:
    assert bad_address(text)


def test_the_catcher_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(EXAMPLES / "catcher.toml")]) == 0
    said = capsys.readouterr().out
    assert "mx on 127.0.0.1:2525" in said and "Mail for other domains is refused." in said


@pytest.mark.parametrize("name", ["company.toml", "../deploy/etc/smtpd_core/smtpd_core.toml"])
def test_the_company_lacks_only_its_files(name: str) -> None:
    settings = load(EXAMPLES / name)
    here = ("state: ", "user: ")  # of the machine that it is for
    left = [fault for fault in faults(settings) if "no such file" not in fault and not fault.startswith(here)]
    assert left == []
    assert any("logged-in users" in line for line in explain(settings))


def test_check_exits_2_with_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[[listener]]\nauht = 'off'")
    assert main(["check", "--config", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}: listener[1].auht: unknown setting; did you mean auth?\n"


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("name", ["catcher.toml", "company.toml"])
def test_whatever_is_in_the_file_it_is_explained_or_refused(name: str, tmp_path: Path) -> None:
    """A mutated starter file gives settings or faults, never another exception."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    whole = (EXAMPLES / name).read_bytes()
    file = tmp_path / "mutant.toml"
    for _ in range(400):
        file.write_bytes(mutate(whole, dice))
        try:
            settings = load(file, {})
            explain(settings)
            warnings(settings)
            assert all(": " in fault for fault in faults(settings))
            refuse(settings, str(file))
        except BadSettings as bad:
            assert all(fault.startswith(str(file)) for fault in bad.faults)
