"""`conform`: try a server's protocol, rule by rule, on loopback or on a host of one's own.

0: no rule is broken. 1: one is, or the server is not there. 2: the call is wrong.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections import Counter
from dataclasses import asdict

from smtpd_core.app.endpoint import bad_address
from smtpd_core.app.values import patience
from smtpd_core.testing.conform import Finding, findings
from smtpd_core.testing.probe import PATIENCE, Target, is_loopback
from smtpd_core.wire.sasl.client import Credentials
from smtpd_core.wire.shown import shown

_WORDS = {True: "ok", False: "BROKEN", None: "not offered"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("server", metavar="HOST:PORT", help="the server to try")
    parser.add_argument("--to", default="postmaster@localhost", help="a recipient that it takes, default %(default)s")
    parser.add_argument("--from", dest="sender", default="probe@probe.test", help="a sender, default %(default)s")
    parser.add_argument(
        "--tls", choices=["none", "starttls", "implicit"], default="none", help="try it under TLS, default %(default)s"
    )
    parser.add_argument(
        "--user", default="", help="log in by PLAIN; the password comes from SMTPD_PASSWORD or the prompt"
    )
    parser.add_argument(
        "--timeout", type=patience, default=PATIENCE, help="seconds for each reply, default %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a rule")
    parser.add_argument(
        "--i-own-this", action="store_true", help="the server is mine: needed for any address beyond loopback"
    )


def run(options: argparse.Namespace) -> int:
    if reason := bad_address(options.server):
        print(f"conform: {reason}", file=sys.stderr)
        return 2
    host, _, port = options.server.rpartition(":")
    host = host.strip("[]")
    if not options.i_own_this and not is_loopback(host, int(port)):
        print(f"conform: {host} is not on loopback; add --i-own-this where it is yours", file=sys.stderr)
        return 2
    credentials = None
    if options.user:
        password = os.environ.get("SMTPD_PASSWORD") or getpass.getpass(f"Password of {options.user}: ")
        credentials = Credentials(options.user, password)
    target = Target(host, int(port), options.sender, options.to, options.timeout, options.tls, credentials)
    count: Counter[bool | None] = Counter()
    for finding in findings(target):
        count[finding.passed] += 1
        print(json.dumps(asdict(finding)) if options.json else _row(finding), flush=True)
    if not options.json:
        print(", ".join(f"{count[passed]} {word.lower()}" for passed, word in _WORDS.items()))
    return 1 if count[False] else 0


def _row(finding: Finding) -> str:
    tail = f"  ({shown(finding.why)})" if finding.why else ""
    return f"{_WORDS[finding.passed]:12} RFC {finding.section:16} {finding.rule}{tail}"
