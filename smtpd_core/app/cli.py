"""The command line: names, help and examples of every command; each one's work is in its own module.

Exit codes: 0 done, 1 it did not work, 2 the call or the configuration is wrong, 130 interrupted.
Thread: main.
Not here: what the commands do (cmd_*.py), loaded only when they are called so that start-up stays short.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from certs.program import FAILED, WRONG, ended
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app.load import BadSettings

PROGRAM = "python -m smtpd_core"


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. Its module has `arguments(parser)` and `run(options) -> int`."""

    name: str
    module: str
    meaning: str
    examples: tuple[str, ...]


COMMANDS = (
    Command(
        "serve",
        "smtpd_core.app.cmd_serve",
        "accept mail, keep it, deliver it (the default)",
        ("python -m smtpd_core serve --listen 127.0.0.1:2525 --state ./state", "python -m smtpd_core serve --config F"),
    ),
    Command(
        "check",
        "smtpd_core.app.cmd_check",
        "validate a configuration and explain what it would do",
        ("python -m smtpd_core check --config docs/examples/catcher.toml",),
    ),
    Command(
        "reference",
        "smtpd_core.app.cmd_reference",
        "every setting with its default, unit and meaning",
        ("python -m smtpd_core reference",),
    ),
    Command(
        "user",
        "smtpd_core.app.cmd_user",
        "add, change, delete, list and check accounts",
        (
            "python -m smtpd_core user add --store file:users.toml --email ann@example.test ann",
            "python -m smtpd_core user passwd --config smtpd.toml ann",
            "python -m smtpd_core user check --config smtpd.toml",
            "python -m smtpd_core user list --store file:users.toml --json",
            "python -m smtpd_core user del --store file:users.toml ann",
        ),
    ),
    Command(
        "queue",
        "smtpd_core.app.cmd_queue",
        "look at and change the queue",
        ("python -m smtpd_core queue list --state ./smtpd-state",),
    ),
    Command(
        "send",
        "smtpd_core.app.cmd_send",
        "send a message: a small client with STARTTLS and AUTH",
        ("python -m smtpd_core send --to ann@example.test --server 127.0.0.1:2525 letter.eml",),
    ),
    Command(
        "demo",
        "smtpd_core.app.cmd_demo",
        "two servers and one mail, from one to the other, with both dialogues",
        ("python -m smtpd_core demo",),
    ),
    Command(
        "mx",
        "smtpd_core.app.cmd_mx",
        "the delivery plan for a domain, step by step",
        ("python -m smtpd_core mx example.test",),
    ),
    Command(
        "trace",
        "smtpd_core.app.cmd_trace",
        "the whole story of a message or session, from the log",
        ("python -m smtpd_core trace --log smtpd.log 6KZTC0V6V00JXNF",),
    ),
    Command(
        "top", "smtpd_core.app.cmd_top", "a live view of a running server", ("python -m smtpd_core top 127.0.0.1:9125",)
    ),
    Command(
        "conform",
        "smtpd_core.app.cmd_conform",
        "try a server's protocol, rule by rule",
        ("python -m smtpd_core conform 127.0.0.1:2525",),
    ),
    Command(
        "replay",
        "smtpd_core.app.cmd_replay",
        "play a recorded transcript against a server",
        ("python -m smtpd_core replay --server 127.0.0.1:2525 session.txt",),
    ),
    Command(
        "completion",
        "smtpd_core.app.cmd_completion",
        "completion for bash, zsh or tcsh",
        ("python -m smtpd_core completion bash > /etc/bash_completion.d/smtpd_core",),
    ),
)


def available() -> tuple[Command, ...]:
    """The commands whose module is part of this installation."""
    return tuple(one for one in COMMANDS if importlib.util.find_spec(one.module) is not None)


def parser_of(command: Command) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {command.name}",
        description=command.meaning[0].upper() + command.meaning[1:] + ".",
        epilog="example:\n  " + "\n  ".join(command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importlib.import_module(command.module).arguments(parser)
    return parser


def overview() -> argparse.ArgumentParser:
    """The parser of the program, which knows the commands' names only."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="An SMTP server. Without a command it serves on its embedded defaults.",
        epilog=f"{PROGRAM} COMMAND --help tells more, with an example.",
    )
    parser.add_argument("--version", action="version", version=version())
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in available():
        verbs.add_parser(command.name, help=command.meaning, add_help=False)
    return parser


def whole_parser(program: str) -> argparse.ArgumentParser:
    """All commands with all of their options in one parser: for completion, since it takes a while to make."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--version", action="version", version=version())
    verbs = parser.add_subparsers(dest="command")
    for command in available():
        module = importlib.import_module(command.module)
        module.arguments(verbs.add_parser(command.name, help=command.meaning))
    return parser


def version() -> str:
    """What is installed."""
    try:
        return f"smtpd_core {importlib.metadata.version('smtpd_core')}"
    except importlib.metadata.PackageNotFoundError:
        return "smtpd_core, not installed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return ended(lambda: _run(given), lead="smtpd_core")


def _run(given: list[str]) -> int:
    names = {command.name: command for command in available()}
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "serve")
    if given[0] not in names:
        overview().parse_args(given)
        return WRONG
    command = names[given[0]]
    parser = parser_of(command)
    # Options may stand before and after names, but where verbs of the command's own have names of theirs.
    has_verbs = any(isinstance(one, argparse._SubParsersAction) for one in parser._actions)
    options = parser.parse_args(given[1:]) if has_verbs else parser.parse_intermixed_args(given[1:])
    try:
        code: int = importlib.import_module(command.module).run(options)
        return code
    except BadSettings as bad:
        print(bad, file=sys.stderr)
        return WRONG
    except ExtraMissing as missing:
        print(f"smtpd_core: {missing}", file=sys.stderr)
        return FAILED
