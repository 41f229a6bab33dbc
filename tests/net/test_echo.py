"""The engine driven by real sockets, without mail."""

from __future__ import annotations

import pytest

from smtpd_core.net.poller import EpollPoller, SelectorPoller
from tests.net.echo import Client, Club, serving


@pytest.mark.parametrize("poller", [EpollPoller, SelectorPoller])
def test_lines_come_back_in_order(poller):
    with serving(Club(), make_poller=poller) as engine, Client(engine.addresses[0]) as client:
        assert client.greeting == "220 hello"
        for number in range(50):
            assert client.ask(f"line {number}") == f"250 line {number}"
        assert client.ask("BYE") == "221 bye"
        assert client.read() == ""
