"""[spool] reaches the spool: how much it may hold, what must stay free, and whose second copies are recognised."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from smtpd_core.app.build import Daemon
from smtpd_core.app.sanity import faults
from smtpd_core.app.settings import Listener, Settings, Spool

LETTER = b"From: bob@example.test\r\nMessage-ID: <1@example.test>\r\n\r\nhello\r\n"


def served(folder: Path, spool: Spool, service: str = "mx") -> Daemon:
    listener = Listener(bind="127.0.0.1:0", tls="none", service=service)
    daemon = Daemon(Settings(hostname="mx.test", state=str(folder / "state"), listener=(listener,), spool=spool))
    daemon.bind()
    daemon.start()
    return daemon


def two_copies(daemon: Daemon) -> list[str]:
    assert daemon.server is not None
    ids = []
    with smtplib.SMTP(*daemon.server.address, timeout=10) as client:
        for _ in range(2):
            client.ehlo("probe.test")
            client.mail("bob@example.test")
            client.rcpt("ann@example.test")
            code, text = client.data(LETTER)
            assert code == 250, text
            ids.append(text.decode().split()[-1])
    return ids


@pytest.mark.parametrize(
    ("resends", "service", "distinct"), [("all", "mx", 1), ("submission", "mx", 2), ("off", "mx", 2)]
)
def test_resends_says_whose_second_copies_are_recognised(
    resends: str, service: str, distinct: int, tmp_path: Path
) -> None:
    daemon = served(tmp_path, Spool(resends=resends), service)
    try:
        assert len(set(two_copies(daemon))) == distinct
    finally:
        daemon.stop(10)


def test_below_the_free_floor_mail_is_answered_452(tmp_path: Path) -> None:
    daemon = served(tmp_path, Spool(free_floor=1 << 60))
    try:
        assert daemon.server is not None
        with smtplib.SMTP(*daemon.server.address, timeout=10) as client:
            client.ehlo("probe.test")
            code, text = client.mail("bob@example.test")
            assert (code, text[:5]) == (452, b"4.3.1")
    finally:
        daemon.stop(10)


@pytest.mark.parametrize(
    ("spool", "key"),
    [
        (Spool(limit=1000), "spool.limit"),
        (Spool(free_floor=-1), "spool.free_floor"),
        (Spool(resend_window=601.0), "spool.resend_window"),
    ],
)
def test_a_spool_that_could_not_work_is_refused_at_the_start(spool: Spool, key: str) -> None:
    settings = Settings(hostname="mx.test", listener=(Listener(),), spool=spool)
    assert any(one.startswith(f"{key}: ") for one in faults(settings))
