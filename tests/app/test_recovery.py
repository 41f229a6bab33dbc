"""A start that takes long, since much lies in the spool, says so: in the log, on a terminal, to the supervisor."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from relay import backlog
from relay.intake import Intake
from relay.queue_memory import MemoryQueue
from relay.resends import Resends
from relay.spool import Spool
from smtpd_core.app import recovery
from smtpd_core.draft import Draft
from smtpd_core.wire.envelope import Envelope, Origin, Recipient
from tests.app.daemon import DaemonProcess
from tests.app.test_terminal import ESCAPE, seen
from tests.support.spooling import to_one_maildir

# Every message that is read takes a moment, and patience ends sooner. While it starts nobody empties the supervisor's
# socket, which holds ten words.
SLOW = """
import sys, time
from relay import kept_before
from smtpd_core.app import recovery
recovery.PATIENCE = 0.1
unpack = kept_before.unpack
kept_before.unpack = lambda packed: (time.sleep(0.02), unpack(packed))[1]
from smtpd_core.app.cli import main
sys.exit(main({words}))
"""


def left_behind(state: Path, count: int) -> None:
    """Promised just now by a process that was killed."""
    state.mkdir()
    spool = Spool(state / "spool", resends=Resends(time.time))
    origin = Origin("192.0.2.1", listener="submission")
    envelope = Envelope("bob@here.test", (Recipient("ann@our.test"),), origin=origin, arrived=time.time())
    for n in range(count):
        draft = Draft(spool.drafts)
        draft.append(b"Message-ID: <%d@here.test>\r\n\r\n" % n + b"x" * 2000)
        assert spool.promise(draft, envelope).wait(10)
    spool.stop()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_supervisor_is_asked_for_time_and_the_log_says_how_long_it_took(processes: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    left_behind(state, 20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(60)
        daemon = DaemonProcess(state)
        daemon.command = [sys.executable, "-c", SLOW.format(words=daemon.command[3:])]
        daemon.start({"NOTIFY_SOCKET": str(tmp_path / "notify"), "SMTPD_CORE_THREADS_PROCESSES": processes})
        try:
            heard = [supervisor.recv(1000).decode()]
            while not heard[-1].startswith("READY=1"):
                heard.append(supervisor.recv(1000).decode())
            daemon.wait_for(20)
            daemon.wait_for_log("recovery: read 20 messages that lie in the spool in 0.")
        finally:
            assert daemon.stop() == 0
    asked = [one for one in heard if one.startswith("EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the mail")]
    assert asked and any(one.startswith("STATUS=\n") or one == "STATUS=" for one in heard)
    assert re.search(r"recovery: reading the mail that lies in the spool, \d{5} bytes", daemon.log.read_text())


def test_a_terminal_has_a_bar(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    left_behind(tmp_path / "state", 20)
    program = f"""
import time
from relay.outbox import Outbox
from smtpd_core.app import recovery, terminal
terminal.PATIENCE = 0.0
with recovery.recovery(lambda states: None) as recovering:
    slowly = lambda *at: (time.sleep(0.05), recovering(*at))
    Outbox({str(tmp_path / "state")!r}, spools_only=True, recovering=slowly).start()
"""
    assert re.search(r"reading the spool, KiB .* \d\d/\d\d ", ESCAPE.sub("", seen([sys.executable, "-c", program])))


def test_a_start_that_takes_no_second_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with caplog.at_level(logging.INFO), recovery.recovery(told.append) as recovering:
        recovering(10, 10)
    assert told == [] and caplog.messages == []


def test_a_long_import_is_logged_when_it_is_long_and_when_it_is_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog, "PATIENCE", 0.0)
    left_behind(tmp_path / "state", 3)
    spool = os.fspath(tmp_path / "state" / "spool")
    with caplog.at_level(logging.INFO, logger="relay.backlog"):
        intake = Intake(spool, MemoryQueue(), to_one_maildir)
        intake.start()
        intake.stop()
    assert caplog.messages[0] == f"intake: importing what lay in {spool}, 3 messages so far"
    assert caplog.messages[1].startswith(f"intake: imported 3 messages that lay in {spool} in 0.")
