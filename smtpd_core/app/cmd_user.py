"""`user`: accounts from the command line. Passwords come from the prompt or standard input, never as an argument.

Thread: main.
Not here: what a store's URL says (accounts/opening.py), what is stored of a password (accounts/entry.py).
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from dataclasses import asdict

from smtpd_core.accounts import Account, StoreUnavailable, ntlm
from smtpd_core.accounts.entry import STORABLE, Entry, stored_forms
from smtpd_core.accounts.opening import Choices, open_editable, open_store, shows_password
from smtpd_core.accounts.store import AccountStore
from smtpd_core.app.cmd_user_import import bring_in
from smtpd_core.app.load import BadSettings, load
from smtpd_core.app.stores import choices_of
from smtpd_core.app.values import path
from smtpd_core.wire.sasl.mechanisms import MECHANISMS
from smtpd_core.wire.shown import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "passwd", "del", "list", "check", "import"))
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="check without it looks the store over, import takes all"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=path, metavar="F", help="a configuration with [accounts] store")
    where.add_argument(
        "--store", metavar="URL", help="file:users.toml, sqlite:users.db, postgresql://...?password_file=PATH"
    )
    parser.add_argument("--email", default="", help="add: the user's address")
    parser.add_argument("--display-name", default="", help="add: the user's name as people write it")
    parser.add_argument("--may-send-as", action="append", default=[], metavar="A", help="add: an address or @domain")
    parser.add_argument("--may-act-as", action="append", default=[], metavar="USER", help="add: whose part it may take")
    parser.add_argument(
        "--kind",
        action="append",
        choices=STORABLE,
        default=[],
        help="add, passwd: what is stored, may be given again; default: what the other accounts of the store have",
    )
    parser.add_argument(
        "--from", dest="source", default="", metavar="URL", help="import: a store like --store, or a file"
    )
    parser.add_argument("--replace", action="store_true", help="import: also accounts that are there already")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def run(options: argparse.Namespace) -> int:
    if options.action not in ("list", "check", "import") and not options.name:
        print(f"user {options.action}: which NAME?", file=sys.stderr)
        return 2
    try:
        url, choices = _where(options)
        return _ACTIONS[options.action](options, url, choices)
    except BadSettings:
        raise
    except ValueError as error:
        print(f"user {options.action}: {error}", file=sys.stderr)
        return 2
    except (StoreUnavailable, OSError) as error:
        print(f"user {options.action}: {error}", file=sys.stderr)
        return 1


def _where(options: argparse.Namespace) -> tuple[str, Choices]:
    if options.store:
        _warn_of_password("--store", options.store)
        return str(options.store), Choices()
    settings = load(options.config, os.environ).accounts
    if not settings.store:
        raise BadSettings([f"{options.config}: accounts.store: not set, so there are no accounts"])
    return settings.store, choices_of(settings)


def _warn_of_password(option: str, url: str) -> None:
    if shows_password(url):
        more = ", or --config" if option == "--store" else ""
        print(
            f"user: whoever lists the machine's processes sees the password in {option};"
            f" give ?password_file=PATH instead{more}",
            file=sys.stderr,
        )


def _add(options: argparse.Namespace, url: str, choices: Choices) -> int:
    _must_be_addresses(options)
    store = open_editable(url, choices, may_make=True)
    account = Account(
        options.name, options.display_name, options.email, tuple(options.may_send_as), tuple(options.may_act_as)
    )
    if any(one.user_name == options.name for one in store.users()):
        raise ValueError(f"account {options.name!r} is there already; passwd gives it a new password")
    store.add(Entry(account, _secrets(options, store)))
    return _done(options, "added", f" to the {url.partition(':')[0]} store")


def _must_be_addresses(options: argparse.Namespace) -> None:
    """The sender rule passes over what is no address, and so the user could not send as was meant."""
    for option, value in [("email", options.email), *(("may-send-as", one) for one in options.may_send_as)]:
        local, at, domain = value.rpartition("@")
        if value and not (at and domain and (local or option == "may-send-as")):
            more = " or @domain" if option == "may-send-as" else ""
            raise ValueError(f"--{option} {value!r}: an address{more} is due, as ann@example.test")


def _passwd(options: argparse.Namespace, url: str, choices: Choices) -> int:
    store = open_editable(url, choices)
    if store.account(options.name) is None:
        raise ValueError(f"there is no account {options.name!r}")
    store.set_secrets(options.name, _secrets(options, store))
    return _done(options, "password changed")


def _del(options: argparse.Namespace, url: str, choices: Choices) -> int:
    open_editable(url, choices).remove(options.name)
    return _done(options, "deleted")


def _done(options: argparse.Namespace, what: str, more: str = "") -> int:
    print(json.dumps({"user": options.name, "done": what}) if options.json else f"{options.name}: {what}{more}")
    return 0


def _list(options: argparse.Namespace, url: str, choices: Choices) -> int:
    users = open_editable(url, choices).users()
    if options.json:
        print(json.dumps([asdict(one) for one in users], indent=2))
        return 0
    for one in users:
        addresses = ", ".join(dict.fromkeys(filter(None, (one.email, *one.addresses))))
        print("  ".join(shown(part) for part in (one.user_name, addresses, one.display_name) if part))
    return 0


def _check(options: argparse.Namespace, url: str, choices: Choices) -> int:
    store = open_store(url, choices)
    if not options.name:
        return _look_over(store, options)
    account = store.verify(options.name, _password(options.name))
    if options.json:
        print(json.dumps({"user": options.name, "is_right": account is not None}))
    else:
        print(f"{options.name}: {'the password is right' if account else 'wrong password, or no such user'}")
    return 0 if account else 1


def _look_over(store: AccountStore, options: argparse.Namespace) -> int:
    """What a start would find: whether the store answers, and which mechanisms it can serve."""
    kinds = store.kinds
    store.account("smtpd-core-probe")
    served = [name for name, row in MECHANISMS.items() if row.kind in kinds]
    where_named = [ntlm.NAME] if "nt-hash" in kinds else []
    if options.json:
        print(json.dumps({"kinds": sorted(kinds), "mechanisms": served, "where_named": where_named}))
        return 0
    served += [f"{name} (where accounts.mechanisms names it)" for name in where_named]
    print(f"the store answers; it has {', '.join(sorted(kinds))}")
    print(f"mechanisms that it can serve: {' '.join(served) or 'none'}")
    return 0


def _import(options: argparse.Namespace, url: str, choices: Choices) -> int:
    if not options.source:
        raise ValueError("from where? Give --from URL, or --from FILE")
    _warn_of_password("--from", options.source)
    return bring_in(
        options.source,
        lambda: open_editable(url, choices, may_make=True),
        options.name,
        replaces=options.replace,
        as_json=options.json,
    )


def _secrets(options: argparse.Namespace, store: AccountStore) -> tuple[str, ...]:
    """As the other accounts have them, so that every mechanism offered goes on to work for all."""
    kinds = options.kind or [kind for kind in STORABLE if kind in store.kinds]
    return stored_forms(_password(options.name, twice=True), kinds)


def _password(name: str, *, twice: bool = False) -> str:
    """From the prompt, or the first line of standard input where that is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"Password of {name}: ")
    if twice and getpass.getpass("Again: ") != first:
        raise ValueError("the two passwords differ")
    return first


_ACTIONS = {"add": _add, "passwd": _passwd, "del": _del, "list": _list, "check": _check, "import": _import}
