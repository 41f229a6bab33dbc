"""pytest's side of the testing kit: fixtures smtpd, smtpd_session and smtpd_factory, and transcripts of failed tests.

Options come from keywords of the factory over the marker (`@pytest.mark.smtpd(tls="starttls", accounts={"ann": "x"})`)
over the ini settings. Each xdist worker has servers of its own.
Rule: pytest imports this module at every start, in every project of its environment; so it imports nothing of ours.
Thread: pytest's.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smtpd_core.testing.server import TestServer

_SERVERS = pytest.StashKey[list["TestServer"]]()

# Ini settings that are an option of TestServer under the same name; the others are in smtpd_options.
_PLAIN = {
    "tls": "TLS of the smtpd fixtures: none, starttls, starttls-required, implicit",
    "certificate": "their certificate: good, expired, wrong-host, untrusted, self-signed, ...",
    "auth": "whether clients log in: off, offered, required",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, meaning in _PLAIN.items():
        parser.addini(f"smtpd_{name}", meaning, default="")
    parser.addini("smtpd_accounts", "accounts of the smtpd fixtures, NAME:PASSWORD a line", type="linelist")
    parser.addini("smtpd_without", "extensions that their EHLO does not show", type="args")
    parser.addini(
        "smtpd_options", "other options of smtpd_core.testing.TestServer, NAME = VALUE a line", type="linelist"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smtpd(**options): of the smtpd fixture, as smtpd_core.testing.TestServer")


def options_of(config: pytest.Config) -> dict[str, Any]:
    """What the ini file says. UsageError names a line that is wrong."""
    found: dict[str, Any] = {name: value for name in _PLAIN if (value := config.getini(f"smtpd_{name}"))}
    accounts = dict(_pair("smtpd_accounts", line, ":") for line in config.getini("smtpd_accounts"))
    if accounts:
        found["accounts"] = accounts
    if without := config.getini("smtpd_without"):
        found["without"] = without
    for line in config.getini("smtpd_options"):
        name, value = _pair("smtpd_options", line, "=")
        try:
            found[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            raise pytest.UsageError(
                f"smtpd_options: {line!r}: {value.strip()!r} is no value as Python writes it"
            ) from None
    return found


def _pair(setting: str, line: str, between: str) -> tuple[str, str]:
    name, found, value = line.partition(between)
    if not found:
        raise pytest.UsageError(f"{setting}: {line!r}: NAME{between}VALUE is due")
    return name, value


def marked(item: pytest.Item) -> dict[str, Any]:
    """What the markers say: of module, class and test, the nearer one above the others."""
    found: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("smtpd"))):
        if marker.args:
            raise pytest.UsageError(f"pytest.mark.smtpd{marker.args}: options have names, as in smtpd(tls='starttls')")
        found |= marker.kwargs
    return found


@pytest.fixture
def smtpd_factory(request: pytest.FixtureRequest) -> Iterator[Callable[..., TestServer]]:
    """smtpd_factory(**options): one more server for this test, started; gone when the test ends."""
    from smtpd_core.testing.server import TestServer

    given = options_of(request.config) | marked(request.node)
    with ExitStack() as stack:

        def make(**options: Any) -> TestServer:
            server = stack.enter_context(TestServer(**(given | options)))
            request.node.stash.setdefault(_SERVERS, []).append(server)
            return server

        yield make


@pytest.fixture
def smtpd(smtpd_factory: Callable[..., TestServer]) -> TestServer:
    """A server for this test alone, on a free port; gone when the test ends."""
    with _wrong_options_told():
        return smtpd_factory()


@contextmanager
def _wrong_options_told() -> Iterator[None]:
    """One line for whoever wrote the marker or the ini file; a traceback of ours would show the accounts' passwords."""
    try:
        yield
    except (TypeError, ValueError) as wrong:
        pytest.fail(f"options of the smtpd fixture: {wrong}", pytrace=False)


@pytest.fixture(scope="session")
def smtpd_session_server(pytestconfig: pytest.Config) -> Iterator[TestServer]:
    """The server behind smtpd_session."""
    from smtpd_core.testing.server import TestServer

    with _wrong_options_told():
        made = TestServer(**options_of(pytestconfig))
    with made as server:
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
    """A failed test's report has the dialogues of its servers, and the faults that did not come into play; so it has
    where a fixture failed."""
    report = yield
    if report.failed:
        for server in item.stash.get(_SERVERS, []):
            report.sections.append(("smtpd transcript", server.transcript or "no session"))
            if idle := server.faults.idle:
                report.sections.append(("smtpd faults that have not acted", "\n".join(map(str, idle))))
    return report
