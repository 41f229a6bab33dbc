"""`replay`: play a recorded transcript's client against a server, and show where the replies differ.

0: every reply has the code that was recorded. 1: one differs, or the server is not there. 2: the call or the file is
wrong.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from pathlib import Path

from smtpd_core.app.endpoint import bad_address
from smtpd_core.app.values import patience
from smtpd_core.testing.probe import trusting
from smtpd_core.testing.recorded import Recorded, recorded
from smtpd_core.testing.replay import Played, replay
from smtpd_core.wire.sasl.client import Credentials
from smtpd_core.wire.shown import shown

_IMPLICIT = {"as-recorded": None, "implicit": True, "explicit": False}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help='the transcript: lines with "C: " and "S: "; - is standard input')
    parser.add_argument("--server", default="127.0.0.1:2525", metavar="H:P", help="default %(default)s")
    parser.add_argument(
        "--tls",
        choices=[*_IMPLICIT],
        default="as-recorded",
        help="whether TLS comes first; STARTTLS is played where it was recorded (default %(default)s)",
    )
    parser.add_argument("--ca", metavar="F", help="the authorities to trust (PEM); without it any certificate is taken")
    parser.add_argument(
        "--user",
        default="",
        help="log in as this user where a log-in was recorded; the password comes from SMTPD_PASSWORD, from standard"
        " input or the prompt",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a step")
    parser.add_argument("--timeout", type=patience, default=10.0, help="seconds for each reply, default %(default)s")


def run(options: argparse.Namespace) -> int:
    if reason := bad_address(options.server):
        print(f"replay: --server: {reason}", file=sys.stderr)
        return 2
    try:
        context = trusting(options.ca)
    except OSError as error:
        print(f"replay: --ca {options.ca}: {error.strerror}", file=sys.stderr)
        return 2
    try:
        sessions = recorded(_lines(options.file))
        credentials = _credentials(sessions, options)
    except (OSError, ValueError) as error:
        print(f"replay: {options.file}: {error}", file=sys.stderr)
        return 2
    host, _, port = options.server.rpartition(":")
    is_same = True
    try:
        for session in sessions:
            if len(sessions) > 1 and not options.json:
                print(f"-- {session.name}")
            for played in replay(
                session,
                host.strip("[]"),
                int(port),
                context,
                credentials,
                implicit_tls=_IMPLICIT[options.tls],
                patience=options.timeout,
            ):
                is_same &= played.is_same
                print(_as_json(session, played) if options.json else shown(_row(played)), flush=True)
    except OSError as error:
        print(f"replay: {options.server}: {error}", file=sys.stderr)
        return 1
    return 0 if is_same else 1


def _lines(name: str) -> list[str]:
    if name == "-":
        return sys.stdin.read().splitlines()
    return Path(name).read_text(encoding="utf-8").splitlines()


def _credentials(sessions: list[Recorded], options: argparse.Namespace) -> Credentials | None:
    """Asked for only where a log-in is to be played. ValueError where there is one, and no user."""
    if not any(step.mechanism for session in sessions for step in session.steps):
        return None
    if not options.user:
        raise ValueError("a log-in was recorded, its words masked: give --user, and its password")
    password = os.environ.get("SMTPD_PASSWORD", "")
    if not password and options.file != "-" and not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    elif not password and options.file != "-":
        password = getpass.getpass(f"Password of {options.user}: ")
    if not password:
        raise ValueError(f"no password for {options.user}: set SMTPD_PASSWORD, or give it on standard input")
    return Credentials(options.user, password)


def _as_json(session: Recorded, played: Played) -> str:
    step = played.step
    return json.dumps(
        {
            "session": session.name,
            "step": step.shown,
            "is_same": played.is_same,
            "recorded": step.replies or step.codes,
            "replies": played.replies,
            "why": played.why,
        }
    )


def _row(played: Played) -> str:
    step = played.step
    replies = " / ".join(played.replies)
    if played.is_same:
        return f"same     {step.shown}: {' '.join(step.codes) or 'no reply is due'}"
    said = replies + (f" ({played.why})" if replies and played.why else played.why)
    return f"differs  {step.shown}: recorded {' / '.join(step.replies) or 'no reply'}; here {said or 'no reply'}"
