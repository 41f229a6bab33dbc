"""`demo`: two servers and one mail. It goes to the first with STARTTLS, which relays it to the second; both dialogues
and the mail as delivered are shown. Nothing leaves the machine, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from certs.contexts import ClientContext
from certs.policy import ClientPolicy
from relay.hop import Load, Manners, TlsLevel
from smtpd_core.app.build import Daemon
from smtpd_core.app.cmd_send import as_content, send
from smtpd_core.app.sanity import LOOPBACK
from smtpd_core.app.settings import EMBEDDED, Listener, Relay, Settings
from smtpd_core.wire.envelope import MailParameters, Recipient

LETTER = b"""From: Ann <ann@first.test>
To: Bob <bob@second.test>
Subject: From one server to the other
Date: Thu, 01 Jan 2026 12:00:00 +0000
Message-ID: <demo@first.test>

Hello Bob,
.
the line above is a single dot, and arrives as one.
"""

# Long enough for the slowest machine, short enough for whoever watches.
PATIENCE = 15.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="show only the delivered mail")


def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="smtpd-demo-") as folder:
        second = _server("second.test", Path(folder) / "second")
        first: Daemon | None = None
        try:
            there = second.listeners[0].text
            first = _server("first.test", Path(folder) / "first", there)
            here = first.listeners[0].text
            content = as_content(LETTER)
            bob = Recipient("bob@second.test")
            load = Load("ann@first.test", (bob,), MailParameters(), len(content), partial(_cut, content))
            tls = ClientContext(ClientPolicy()).stream
            words = send(here, Manners(hello="demo.test", tls=TlsLevel.REQUIRE, open_tls=tls), load)
            if words[0].answer is None or not words[0].answer.is_positive:
                print(f"the first server said: {words[0].answer or words[0].error}", file=sys.stderr)
                return 1
            delivered = _wait(Path(folder) / "second" / "mail" / "new")
        finally:
            if first is not None:
                first.stop(5.0)
            second.stop(5.0)
        if delivered is None:
            print("the mail did not arrive in time", file=sys.stderr)
            return 1
        if not options.quiet:
            _show("dialogue 1: demo.test to first.test", _dialogue(Path(folder) / "first"))
            _show("dialogue 2: first.test to second.test", _dialogue(Path(folder) / "second"))
        _show("delivered by second.test", delivered.decode("utf-8", "replace").splitlines())
    return 0


def _server(hostname: str, state: Path, smarthost: str = "") -> Daemon:
    listener = Listener(bind="127.0.0.1:0")
    settings: Settings = replace(EMBEDDED, hostname=hostname, state=str(state), listener=(listener,))
    if smarthost:
        relay = Relay(enabled=True, smarthost=smarthost, smarthost_tls="require", allow_networks=LOOPBACK)
        settings = replace(settings, relay=relay)
    daemon = Daemon(settings)
    daemon.bind()
    daemon.start()
    assert daemon.server is not None
    daemon.server.debug_log = str(_transcript(state))
    return daemon


def _transcript(state: Path) -> Path:
    return state.with_suffix(".transcript")


def _dialogue(state: Path) -> list[str]:
    """What a server noted, without date, time and session."""
    return [line.split(" ", 3)[3] for line in _transcript(state).read_text(encoding="utf-8").splitlines()]


def _wait(folder: Path) -> bytes | None:
    """The one mail in a Maildir, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for file in folder.iterdir() if folder.is_dir() else ():
            return file.read_bytes()
        time.sleep(0.02)
    return None


def _cut(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def _show(title: str, lines: list[str]) -> None:
    print(f"--- {title}")
    print("\n".join(lines))
    print()
