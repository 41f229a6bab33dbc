"""`completion`: a script that completes commands, options and files in a shell, made from the parsers by shtab (extra
`daemon`)."""

from __future__ import annotations

import argparse

from smtpd_core.accounts.extras import needed

SHELLS = ("bash", "zsh", "tcsh")

# What a value is, by the word that stands for it in the help.
_FILES, _DIRECTORIES = ("F", "FILE"), ("DIR",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("--program", default="smtpd_core", help="the name that is completed, default %(default)s")


def run(options: argparse.Namespace) -> int:
    needed("shtab", extra="daemon", purpose="completion")
    import shtab

    # The parsers are made by the module that lists this one.
    from smtpd_core.app.cli import whole_parser

    parser = whole_parser(options.program)
    _mark(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, options.shell))
    return 0


def _mark(parser: argparse.ArgumentParser, file: object, directory: object) -> None:
    """Tell which values are files and directories."""
    for action in parser._actions:
        if action.metavar in _FILES:
            action.complete = file  # type: ignore[attr-defined]
        elif action.metavar in _DIRECTORIES:
            action.complete = directory  # type: ignore[attr-defined]
        elif isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _mark(inner, file, directory)
