"""ETRN wakes the daemon's queue for a domain, for whoever may relay to it."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

import pytest

from tests.app.daemon import DaemonProcess
from tests.support.peer import ScriptedPeer

TAKES = (
    "S: 220 p\nC: EHLO\nS: 250-p\nS: 250 PIPELINING\nC: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
    "C: <content>\nS: 250 ok\nC: QUIT\nS: 221 x\n"
)


@pytest.mark.parametrize("networks", [["127.0.0.0/8"], ["192.0.2.0/24"]])
def test_etrn_tries_deferred_mail_at_once(tmp_path: Path, networks: list[str]) -> None:
    with ScriptedPeer("S: 421 4.3.2 later\n", TAKES) as peer:
        config = tmp_path / "smtpd.toml"
        config.write_text(
            f'hostname = "mx.here.test"\nstate = "{tmp_path}/state"\n'
            '[[listener]]\nbind = "127.0.0.1:0"\nservice = "mx"\ntls = "none"\n'
            '[domains."here.test"]\nusers = "any"\n'
            f'[relay]\nenabled = true\nallow_networks = {networks!r}\nsmarthost = "127.0.0.1:{peer.port}"\n'
        )
        with (
            DaemonProcess(tmp_path / "state", "--config", str(config), listen="") as daemon,
            smtplib.SMTP(*daemon.address, timeout=20) as client,
        ):
            client.ehlo()
            assert client.has_extn("etrn")
            if "127.0.0.0/8" not in networks:
                assert client.docmd("ETRN", "far.test")[0] == 459
                return
            client.sendmail("a@b.test", ["c@far.test"], "Subject: x\r\n\r\nx\r\n")
            deadline = time.monotonic() + 20
            while not peer.contents:
                assert client.docmd("ETRN", "far.test")[0] == 250
                assert time.monotonic() < deadline, "it was never tried again"
        assert peer.sessions >= 2
