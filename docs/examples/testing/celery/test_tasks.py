"""Tasks that send mail: called where they stand, and handed to a worker in another thread."""

import smtplib
from collections.abc import Iterator

import pytest
import tasks
from celery.contrib.testing.worker import start_worker

from smtpd_core.testing import TestServer


@pytest.fixture(autouse=True)
def environment(smtpd: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in smtpd.environ().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def worker() -> Iterator[None]:
    """A worker on the broker in memory, which it asks often."""
    tasks.app.conf.broker_transport_options = {"polling_interval": 0.02}
    with start_worker(tasks.app, pool="solo", perform_ping_check=False):
        yield


def test_a_temporary_refusal_is_tried_again(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT").reply(451, times=2)
    assert tasks.receipt.apply(args=["ann@a.test"]).get() == 3
    assert len(smtpd.inbox) == 1


def test_a_permanent_refusal_is_not(smtpd: TestServer) -> None:
    smtpd.faults.on("RCPT").reply(550)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        tasks.receipt.apply(args=["ann@a.test"], throw=True).get()
    smtpd.inbox.assert_none()


@pytest.mark.usefixtures("worker")
def test_what_a_worker_sends_is_waited_for(smtpd: TestServer) -> None:
    smtpd.faults.on("content").close(times=1)  # accepted, and the task never heard of it
    tasks.receipt.delay("ann@a.test")
    assert smtpd.inbox.wait_for(to="ann@a.test", count=2).subject == "Receipt"  # so it sent it again
