"""`mx`: the way that mail for a domain would take, as the configured relay would take it, step by step."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace

from relay.mx import Planner
from relay.plan import NoRoute
from relay.relaying import Customs
from smtpd_core.app.load import load
from smtpd_core.app.relaying import relaying_of
from smtpd_core.app.routing import Routing
from smtpd_core.app.settings import Relay, Settings
from smtpd_core.app.values import path
from smtpd_core.app.ways import fold
from smtpd_core.wire.shown import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", metavar="DOMAIN", help="a domain, or an address")
    parser.add_argument(
        "--config", type=path, metavar="F", help="a configuration; without one, a relay with its defaults"
    )
    parser.add_argument("--dns-server", metavar="A", default="", help="ask this name server, HOST or HOST:PORT")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    settings = load(options.config, os.environ) if options.config else Settings(relay=Relay(enabled=True))
    if options.dns_server:
        settings = replace(settings, relay=replace(settings.relay, dns_server=options.dns_server))
    domain = fold(options.domain.rpartition("@")[2])
    destination = Routing(settings).routes.destination(f"postmaster@{domain}")
    steps = [f"{domain} goes to {destination}"]
    scheme = destination.partition(":")[0]
    if scheme not in ("mx", "smtp", "lmtp"):
        return _say(options, destination, steps, [], "")
    relaying = relaying_of(settings)
    customs = Customs(relaying)
    try:
        plan = Planner(relaying, customs.port_of).plan(destination)
    except NoRoute as reason:
        return _say(options, destination, [*steps, *reason.steps], [], str(reason))
    tls = customs.manners_of(destination).tls.value
    hops = [f"{hop} (TLS {tls})" for hop in plan.hops]
    return _say(options, destination, [*steps, *plan.steps], hops, "")


def _say(options: argparse.Namespace, destination: str, steps: list[str], hops: list[str], trouble: str) -> int:
    if options.json:
        print(json.dumps({"destination": destination, "steps": steps, "hops": hops, "trouble": trouble}, indent=2))
        return 1 if trouble else 0
    print("\n".join(map(shown, steps)))
    for number, hop in enumerate(hops, 1):
        print(shown(f"{number}. {hop}"))
    if trouble:
        print(shown(f"no way: {trouble}"), file=sys.stderr)
    return 1 if trouble else 0
