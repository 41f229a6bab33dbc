"""`send`: a small client. One message from a file, standard input or, without either, one made on the spot."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate, make_msgid
from functools import partial
from pathlib import Path

from certs.contexts import ClientContext
from certs.policy import ClientPolicy
from relay.conversation import Conversation
from relay.hop import Hop, Load, Manners, StepTimes, TlsLevel, Trouble, Word
from relay.link import addresses_of
from smtpd_core.app.endpoint import bad_address, system_name
from smtpd_core.app.values import patience
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.sasl.client import Credentials
from smtpd_core.wire.shown import shown

_LEVELS = {level.value: level for level in TlsLevel}

_PLAIN = re.compile(r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*")  # needs no quotes in an address


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, action="append", metavar="A", help="a recipient; may be given again")
    parser.add_argument(
        "--from", dest="sender", metavar="B", help="the reverse-path; '' is the null one (default: you at this machine)"
    )
    parser.add_argument("--server", default="127.0.0.1:2525", metavar="H:P", help="default %(default)s")
    parser.add_argument("--tls", choices=[*_LEVELS, "implicit"], help="default opportunistic, with --user verify")
    parser.add_argument("--ca-file", default="", metavar="F", help="authorities for verify; default: the system's")
    parser.add_argument(
        "--user",
        default="",
        help="log in as this user; the password comes from SMTPD_PASSWORD or the prompt, or an OAuth bearer token from"
        " SMTPD_TOKEN",
    )
    parser.add_argument("--lmtp", action="store_true", help="speak LMTP")
    parser.add_argument("--hello", default="localhost", help="the name to give in EHLO")
    parser.add_argument("--timeout", type=patience, default=60.0, help="seconds for each step, default %(default)s")
    parser.add_argument(
        "--wait", type=patience, default=0.0, help="seconds in which a server that is not there yet may come up"
    )
    parser.add_argument("--json", action="store_true", help="the last word on each recipient as JSON, an object a line")
    parser.add_argument("--verbose", "-v", action="store_true", help="show the dialogue")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the message; - is standard input")


def run(options: argparse.Namespace) -> int:
    if reason := bad_address(options.server):
        print(f"send: --server: {reason}", file=sys.stderr)
        return 2
    if options.sender is None:
        options.sender = own_address(options.user)
    content = as_content(_message(options))
    load = Load(
        sender=options.sender,
        recipients=tuple(Recipient(address) for address in options.to),
        parameters=MailParameters(),
        size=len(content),
        pieces=partial(_pieces, content),
        body="" if content.isascii() else "8BITMIME",
        utf8=not (options.sender + "".join(options.to)).isascii(),
    )
    try:
        words = send(options.server, _manners(options), load, verbose=options.verbose, wait=options.wait)
    except EOFError:
        print("send: no password: set SMTPD_PASSWORD, or answer the prompt", file=sys.stderr)
        return 2
    except ValueError as error:  # a login that can't be one, authorities that are none
        print(f"send: {error}", file=sys.stderr)
        return 2
    except (Trouble, OSError) as trouble:
        print(f"send: {shown(str(trouble))}", file=sys.stderr)
        return 1
    for recipient, word in zip(load.recipients, words, strict=True):
        print(_as_json(recipient, word) if options.json else shown(f"{recipient.address}: {word.answer or word.error}"))
    return 0 if all(_is_taken(word) for word in words) else 1


def _as_json(recipient: Recipient, word: Word) -> str:
    code = word.answer.code if word.answer is not None else 0
    said = str(word.answer or word.error)
    return json.dumps({"recipient": recipient.address, "is_taken": _is_taken(word), "code": code, "said": said})


def send(server: str, manners: Manners, load: Load, *, verbose: bool = False, wait: float = 0.0) -> list[Word]:
    """One transaction with a server: the last word on each recipient. Raises Trouble and OSError."""
    ends = time.monotonic() + wait
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    observer = _Shown() if verbose else None
    trouble: Exception = OSError(f"{host}: no address")
    while True:
        is_open = False
        for address in addresses_of(host, int(port)):
            conversation = Conversation(Hop(host, address, int(port)), manners, observer)
            try:
                conversation.open()
                is_open = True
                return conversation.deliver(load)
            except Trouble as one:
                trouble = one
            finally:
                conversation.close()
        if is_open or time.monotonic() >= ends:
            raise trouble
        time.sleep(0.1)  # another process's port: nobody tells when it opens


def own_address(user: str = "") -> str:
    """Who sends where nobody was named: the login name where it is an address, else this system's user."""
    if "@" in user:
        return user
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user number without a name
        name = ""
    return f"{name if _PLAIN.fullmatch(name) else 'postmaster'}@{system_name()}"


def as_content(message: bytes) -> bytes:
    """A text file's message as SMTP wants it: lines end in CRLF, the last one too."""
    content = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def _manners(options: argparse.Namespace) -> Manners:
    """Raises OSError and ValueError where the authorities or the credentials are none."""
    implicit = options.tls == "implicit"
    credentials = _credentials(options.user) if options.user else None
    # A login wants the real server; who asks for less has to say so.
    default = TlsLevel.VERIFY if credentials else TlsLevel.REQUIRE if implicit else TlsLevel.OPPORTUNISTIC
    level = _LEVELS.get(options.tls, default)
    context = ClientContext(ClientPolicy(verify=level is TlsLevel.VERIFY, ca_file=options.ca_file))
    return Manners(
        hello=options.hello,
        lmtp=options.lmtp,
        tls=level,
        implicit_tls=implicit,
        open_tls=context.stream,
        credentials=credentials,
        clear_login_allowed=level is TlsLevel.NONE,
        times=StepTimes.all(options.timeout, options.timeout),
    )


def _credentials(user: str) -> Credentials:
    if token := os.environ.get("SMTPD_TOKEN"):
        return Credentials(user, token=token)
    return Credentials(user, os.environ.get("SMTPD_PASSWORD") or getpass.getpass(f"Password of {user}: "))


def _message(options: argparse.Namespace) -> bytes:
    if options.file is not None and str(options.file) != "-":
        return options.file.read_bytes()  # type: ignore[no-any-return]
    if options.file is not None or not sys.stdin.isatty():
        given = sys.stdin.buffer.read()
        if given or options.file is not None:
            return given
    return "\n".join(
        (
            f"From: <{options.sender or 'postmaster@localhost'}>",
            f"To: {', '.join(options.to)}",
            f"Date: {formatdate(localtime=True)}",
            f"Message-ID: {make_msgid()}",
            "Subject: A first mail",
            "",
            "This message was sent by python -m smtpd_core send.",
            "",
        )
    ).encode()


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def _is_taken(word: Word) -> bool:
    return word.answer is not None and word.answer.is_positive


class _Shown:
    """The dialogue on standard error."""

    def command(self, text: str) -> None:
        print(f"C: {text}", file=sys.stderr)

    def reply(self, answer: Answer) -> None:
        for line in str(answer).splitlines():
            print(f"S: {shown(line)}", file=sys.stderr)
