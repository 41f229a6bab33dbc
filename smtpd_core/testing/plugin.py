"""pytest's side of the testing kit: the fixtures `smtpd` and `smtpd_session`, and transcripts of failed tests.

Options come from the marker (`@pytest.mark.smtpd(tls="starttls", accounts={"ann": "secret"})`) over the ini settings
smtpd_tls, smtpd_accounts (NAME:PASSWORD, one a line) and smtpd_auth. Each xdist worker has servers of its own.
Thread: pytest's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smtpd_core.testing.server import TestServer

_SERVERS = pytest.StashKey[list["TestServer"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("smtpd_tls", "TLS of the smtpd fixtures: none, starttls, starttls-required, implicit", default="")
    parser.addini("smtpd_accounts", "accounts of the smtpd fixtures, NAME:PASSWORD a line", type="linelist")
    parser.addini("smtpd_auth", "whether clients log in: off, offered, required", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smtpd(**options): of the smtpd fixture, as smtpd_core.testing.TestServer")


def options_of(config: pytest.Config) -> dict[str, Any]:
    """What the ini file says."""
    found: dict[str, Any] = {}
    if config.getini("smtpd_tls"):
        found["tls"] = config.getini("smtpd_tls")
    if config.getini("smtpd_auth"):
        found["auth"] = config.getini("smtpd_auth")
    accounts = dict(line.partition(":")[::2] for line in config.getini("smtpd_accounts"))
    if accounts:
        found["accounts"] = accounts
    return found


def marked(item: pytest.Item) -> dict[str, Any]:
    """What the markers say: of module, class and test, the nearer one above the others."""
    found: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("smtpd"))):
        if marker.args:
            raise pytest.UsageError(f"pytest.mark.smtpd{marker.args}: options have names, as in smtpd(tls='starttls')")
        found |= marker.kwargs
    return found


@pytest.fixture
def smtpd(request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """A server for this test alone, on a free port; gone when the test ends."""
    from smtpd_core.testing.server import TestServer

    with TestServer(**(options_of(request.config) | marked(request.node))) as server:
        request.node.stash.setdefault(_SERVERS, []).append(server)
        yield server


@pytest.fixture(scope="session")
def smtpd_session_server(pytestconfig: pytest.Config) -> Iterator[TestServer]:
    """The server behind smtpd_session."""
    from smtpd_core.testing.server import TestServer

    with TestServer(**options_of(pytestconfig)) as server:
        yield server


@pytest.fixture
def smtpd_session(request: pytest.FixtureRequest, smtpd_session_server: TestServer) -> TestServer:
    """One server for the whole session (of this worker), with inbox and faults emptied before each test."""
    if marked(request.node):
        raise pytest.UsageError(
            "pytest.mark.smtpd: smtpd_session takes its options from the ini file, not from a marker"
        )
    smtpd_session_server.reset()
    request.node.stash.setdefault(_SERVERS, []).append(smtpd_session_server)
    return smtpd_session_server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test's report has the dialogues of its server, where a fixture failed too."""
    report = yield
    if report.failed:
        for server in item.stash.get(_SERVERS, []):
            report.sections.append(("smtpd transcript", server.transcript or "no session"))
    return report
