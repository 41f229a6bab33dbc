"""`completion`: a script that completes commands and options in bash or zsh, made from the parsers."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.add_argument("--program", default="smtpd_core", help="the name that is completed, default %(default)s")


def run(options: argparse.Namespace) -> int:
    # The parsers are made by the module that lists this one.
    from smtpd_core.app.cli import available, parser_of

    words = {command.name: _words(parser_of(command)) for command in available()}
    print(_script(options.program, words, options.shell), end="")
    return 0


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Options, and the names that an argument may have."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if action.choices is not None and not action.option_strings:
            found += [str(choice) for choice in action.choices]
    return found


def _script(program: str, words: dict[str, list[str]], shell: str) -> str:
    lines = ["autoload -U +X bashcompinit && bashcompinit"] if shell == "zsh" else []
    lines += [
        "_smtpd_core() {",
        '    local word=${COMP_WORDS[COMP_CWORD]} known=""',
        '    case "$COMP_CWORD:${COMP_WORDS[1]}" in',
        f'        1:*) known="{" ".join(words)}" ;;',
        *(f'        *:{name}) known="{" ".join(several)}" ;;' for name, several in words.items()),
        "    esac",
        '    COMPREPLY=($(compgen -W "$known" -- "$word"))',
        '    [[ $word == -* || ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$word"))',
        "}",
        f"complete -F _smtpd_core {program}",
        "",
    ]
    return "\n".join(lines)
