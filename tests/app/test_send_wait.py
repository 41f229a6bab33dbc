"""`send --wait`: a server that is just starting may come up first."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smtpd_core.app.cli import main
from smtpd_core.testing import TestServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def letter(tmp_path: Path) -> str:
    file = tmp_path / "letter.eml"
    file.write_text("Subject: hello\n\nHello Ann.\n")
    return str(file)


def words(port: int, letter: str, *more: str) -> list[str]:
    return ["send", *more, "--to", "ann@a.test", "--server", f"127.0.0.1:{port}", letter]


def test_a_server_that_comes_up_meanwhile_gets_the_mail(letter: str) -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as senders:
        sending = senders.submit(main, words(port, letter, "--wait", "30"))
        with pytest.raises(TimeoutError):
            sending.result(0.3)  # nobody is there, and it has not given up
        with TestServer(port=port) as smtpd:
            assert sending.result(30) == 0
            assert smtpd.inbox.wait_for(to="ann@a.test")


def test_without_it_nobody_there_is_the_end(letter: str, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main(words(free_port(), letter)) == 1
    assert time.monotonic() - began < 10 and "refused" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--wait", "--timeout"])
@pytest.mark.parametrize("seconds", ["nan", "-1", "inf", "soon", "0"])
def test_seconds_that_mean_nothing_are_refused(option: str, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["send", f"{option}={seconds}", "--to", "ann@a.test"])
    assert ended.value.code == 2 and "seconds above 0 are due" in capsys.readouterr().err
