"""`user`: accounts from the command line. Passwords come from the prompt or standard input, never as an argument."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys

from smtpd_core.accounts import Account, StoreUnavailable
from smtpd_core.accounts.entry import STORABLE, Entry, stored_forms
from smtpd_core.accounts.extras import ExtraMissing
from smtpd_core.app.load import BadSettings, load
from smtpd_core.app.stores import open_editable, open_store


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "passwd", "del", "list", "check"))
    parser.add_argument("name", nargs="?", default="", metavar="NAME")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", metavar="F", help="a configuration with [accounts] store")
    where.add_argument("--store", metavar="URL", help="file:users.toml, sqlite:users.db, postgresql://...")
    parser.add_argument("--email", default="", help="add: the user's address")
    parser.add_argument("--display-name", default="", help="add: the user's name as people write it")
    parser.add_argument("--may-send-as", action="append", default=[], metavar="A", help="add: an address or @domain")
    parser.add_argument(
        "--kind",
        action="append",
        choices=STORABLE,
        default=[],
        help="add, passwd: what is stored besides the password's hash, for mechanisms that need it",
    )
    parser.add_argument("--json", action="store_true", help="list: as JSON")


def run(options: argparse.Namespace) -> int:
    if options.action != "list" and not options.name:
        print(f"user {options.action}: which NAME?", file=sys.stderr)
        return 2
    try:
        return _ACTIONS[options.action](options, _store(options))
    except (ValueError, ExtraMissing) as error:
        print(f"user {options.action}: {error}", file=sys.stderr)
        return 2
    except StoreUnavailable as error:
        print(f"user {options.action}: {error}", file=sys.stderr)
        return 1


def _store(options: argparse.Namespace) -> str:
    if options.store:
        return str(options.store)
    store = load(options.config, os.environ).accounts.store
    if not store:
        raise BadSettings([f"{options.config}: accounts.store: not set, so there are no accounts"])
    return store


def _add(options: argparse.Namespace, text: str) -> int:
    store = open_editable(text, may_make=True)
    secrets = stored_forms(_password(options.name, twice=True), options.kind or ("password",))
    account = Account(options.name, options.display_name, options.email, tuple(options.may_send_as))
    store.add(Entry(account, secrets))
    print(f"{options.name}: added to {text.partition(':')[0]} store")
    return 0


def _passwd(options: argparse.Namespace, text: str) -> int:
    store = open_editable(text)
    store.set_secrets(options.name, stored_forms(_password(options.name, twice=True), options.kind or ("password",)))
    print(f"{options.name}: password changed")
    return 0


def _del(options: argparse.Namespace, text: str) -> int:
    open_editable(text).remove(options.name)
    print(f"{options.name}: deleted")
    return 0


def _list(options: argparse.Namespace, text: str) -> int:
    users = open_editable(text).users()
    if options.json:
        shown = [{"user": one.user_name, "email": one.email, "display_name": one.display_name} for one in users]
        print(json.dumps(shown, indent=2))
        return 0
    for one in users:
        print("  ".join(part for part in (one.user_name, one.email, one.display_name) if part))
    return 0


def _check(options: argparse.Namespace, text: str) -> int:
    account = open_store(text).verify(options.name, _password(options.name))
    print(f"{options.name}: {'the password is right' if account else 'wrong password, or no such user'}")
    return 0 if account else 1


def _password(name: str, *, twice: bool = False) -> str:
    """From the prompt, or the first line of standard input where that is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"Password of {name}: ")
    if twice and getpass.getpass("Again: ") != first:
        raise ValueError("the two passwords differ")
    return first


_ACTIONS = {"add": _add, "passwd": _passwd, "del": _del, "list": _list, "check": _check}
