"""`check`: everything that can be found wrong without binding a port, then the plan in words."""

from __future__ import annotations

import argparse
import json
import os
import sys

from smtpd_core.app.certificates import verdict_on_certificates
from smtpd_core.app.load import BadSettings, load
from smtpd_core.app.plan import explain
from smtpd_core.app.routing import Routing
from smtpd_core.app.sanity import faults, warnings
from smtpd_core.app.settings import Settings
from smtpd_core.app.terminal import show_pairs
from smtpd_core.app.values import path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, required=True, metavar="F", help="the configuration")
    parser.add_argument("--json", action="store_true", help="faults, warnings and plan as JSON")


def run(options: argparse.Namespace) -> int:
    try:
        settings = checked(options.config)
        certificate_faults, certificate_warnings = verdict_on_certificates(settings)
        if certificate_faults:
            raise BadSettings([f"{options.config}: {fault}" for fault in certificate_faults])
    except BadSettings as bad:
        if not options.json:
            raise
        print(json.dumps({"faults": bad.faults, "warnings": [], "plan": []}, indent=2))
        return 2
    doubts = [*warnings(settings), *certificate_warnings]
    if options.json:
        print(json.dumps({"faults": [], "warnings": doubts, "plan": explain(settings)}, indent=2))
        return 0
    for line in doubts:
        print(f"{options.config}: {line}", file=sys.stderr)
    plan = explain(settings)
    if not show_pairs(_parted(line) for line in plan):
        print("\n".join(plan))
    return 0


def _parted(line: str) -> tuple[str, str]:
    """What a line is about, and what it says."""
    about, _, said = line.partition(": ")
    return (about, said) if said else ("", line)


def checked(path: str) -> Settings:
    """The settings of a file that can be started with. Raises BadSettings."""
    settings = load(path, os.environ)
    refuse(settings, path)
    return settings


def refuse(settings: Settings, name: str) -> None:
    """Raise BadSettings where the settings can't be started with."""
    found = faults(settings)
    if not found:
        try:
            Routing(settings)
        except (ValueError, OSError) as error:
            found.append(f"domains: {error}")
    if found:
        raise BadSettings([f"{name}: {fault}" for fault in found])
