"""`replay`: play a recorded transcript's client against a server, and show where the replies differ."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from smtpd_core.app.sanity import bad_address
from smtpd_core.testing.conform import Broken
from smtpd_core.testing.replay import Difference, replay, steps


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help='the transcript: lines with "C: " and "S: "')
    parser.add_argument("--server", default="127.0.0.1:2525", metavar="H:P", help="default %(default)s")


def run(options: argparse.Namespace) -> int:
    if reason := bad_address(options.server):
        print(f"replay: --server: {reason}", file=sys.stderr)
        return 2
    try:
        script = steps(options.file.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        print(f"replay: {options.file}: {error}", file=sys.stderr)
        return 2
    host, _, port = options.server.rpartition(":")
    differs = False
    try:
        for played in replay(script, host.strip("[]"), int(port)):
            if isinstance(played, Difference):
                differs = True
                recorded = " ".join(played.step.codes)
                print(f"differs  {played.step.shown}: recorded {recorded}, now {' '.join(played.codes)}")
            else:
                print(f"same     {played.shown}: {' '.join(played.codes)}")
    except (Broken, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    return 1 if differs else 0
