"""Mail servers of others as next hops, a row each: started on loopback for PEOPLE and nobody else. Of these
later@there.test is put off until relent(). Each is asked in the same words (Wanted). Root only.

Not here: their commands (exim.py, opensmtpd.py, postfix.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trustme

from tests.bench import stored
from tests.bench.running import Running, free_port
from tests.support import exim, opensmtpd
from tests.support.postfix import Postfix

PEOPLE = ("bob@there.test", "later@there.test", *(f"u{number}@there.test" for number in range(8)))
NAME, PASSWORD = "ann", "sesame"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a hop is to be like: the `size` of a message, the `messages` of a connection and the `people` of a
    transaction are the most that it takes, 0 for what it takes by itself; `logs_in` lets NAME log in."""

    authority: trustme.CA | None = None
    size: int = 0
    messages: int = 0
    people: int = 0
    logs_in: bool = False


class NextHop(Protocol):
    port: int

    def mail(self, count: int, holding: bytes = b"") -> list[bytes]:
        """What it keeps with this in it, at least so many, with the line ends of its system."""

    def log(self) -> str: ...

    def relent(self) -> None:
        """later@there.test is taken from now on, by a new connection."""


@dataclass(frozen=True, slots=True)
class Server:
    """Whether it `chunks`, `delivers` what it takes to each mailbox, can speak TLS as its package is built, counts the
    messages of a connection; `logs_in` is the mechanism that is chosen there, "" where it was not simple to set up."""

    name: str
    program: str
    start: Callable[[Wanted], AbstractContextManager[NextHop]]
    chunks: bool = False
    delivers: bool = False
    shakes_hands: bool = True
    counts_messages: bool = True
    logs_in: str = ""


@contextmanager
def scratch(authority: trustme.CA | None, owner: int) -> Iterator[Path]:
    """A folder that a server can look into without root, with a pair for this machine."""
    folder = Path(tempfile.mkdtemp(prefix="next-hop-"))
    folder.chmod(0o755)
    try:
        if authority is not None:
            pair = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
            (folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in pair.cert_chain_pems))
            (folder / "key.pem").touch(0o600)
            (folder / "key.pem").write_bytes(pair.private_key_pem.bytes())
            os.chown(folder / "key.pem", owner, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Queueing:
    """A server that keeps what it takes in the queue under its folder, before it says 250."""

    def __init__(self, port: int, folder: Path, queue: stored.Reader, logs: str) -> None:
        self.port = port
        self._folder = folder
        self._queue = queue
        self._logs = logs

    def mail(self, count: int, holding: bytes = b"") -> list[bytes]:
        found = [mail for mail in self._queue(self._folder) if holding in mail]
        assert len(found) >= count, self.log()
        return found

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._folder.glob(self._logs))

    def relent(self) -> None:
        (self._folder / "relented").touch()


@contextmanager
def started_exim(wanted: Wanted) -> Iterator[NextHop]:
    with scratch(wanted.authority, exim.USER) as folder:
        settings = "primary_hostname = exim.test\nacl_smtp_rcpt = recipient\n"
        settings += f"smtp_accept_max_per_connection = {wanted.messages}\n" if wanted.messages else ""
        settings += f"message_size_limit = {wanted.size}\n" if wanted.size else ""
        settings += f"recipients_max = {wanted.people}\nrecipients_max_reject = false\n" if wanted.people else ""
        if wanted.authority:
            settings += f"tls_certificate = {folder}/cert.pem\ntls_privatekey = {folder}/key.pem\n"
            settings += "tls_advertise_hosts = *\n"
        else:
            settings += "tls_advertise_hosts =\n"
        settings += "begin acl\nrecipient:\n"
        settings += f"""  defer recipients = later@there.test
        condition = ${{if !exists{{{folder}/relented}}}}
        message = Come back later
  accept recipients = {" : ".join(PEOPLE)}
  deny message = Nobody of that name
"""
        if wanted.logs_in:
            settings += f"""begin authenticators
PLAIN:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{NAME}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}
  server_set_id = $auth2
CRAM:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{NAME}}}{{{PASSWORD}}}fail}}
  server_set_id = $auth1
"""
        port = free_port()
        words = exim.command(port, folder, settings)
        assert words is not None, "exim4 is not there: python -m tests.support.unpacked"
        with Running(words, port, folder):
            yield Queueing(port, folder, stored.exim, "exim-log/*")


# The filter that puts off, in the protocol of smtpd-filters(7).
FILTER = """#!/bin/sh
while IFS='|' read -r kind version time way phase session token address; do
    case "$kind|$phase" in
    'config|'*) [ "$version" = ready ] && echo 'register|filter|smtp-in|rcpt-to' && echo 'register|ready' ;;
    'filter|rcpt-to')
        if [ "$address" = later@there.test ] && ! [ -e {folder}/relented ]; then
            echo "filter-result|$session|$token|reject|451 4.7.1 Come back later"
        else
            echo "filter-result|$session|$token|proceed"
        fi ;;
    esac
done
"""


@contextmanager
def started_opensmtpd(wanted: Wanted) -> Iterator[NextHop]:
    with scratch(wanted.authority, 0) as folder:
        (folder / "filter").write_text(FILTER.replace("{folder}", str(folder)))
        (folder / "filter").chmod(0o755)
        port = free_port()
        settings = f'filter "later" proc-exec "{folder}/filter"\n'
        settings += f"smtp limit max-mails {wanted.messages}\n" if wanted.messages else ""
        settings += f"smtp limit max-rcpt {wanted.people}\n" if wanted.people else ""
        settings += f"smtp max-message-size {wanted.size}\n" if wanted.size else ""
        listen = f"listen on 127.0.0.1 port {port}"
        if wanted.authority:
            settings += f'pki hop.test cert "{folder}/cert.pem"\npki hop.test key "{folder}/key.pem"\n'
            listen += " tls pki hop.test"
        settings += f'{listen} hostname opensmtpd.test filter "later"\n'
        settings += f"table people {{ {', '.join(PEOPLE)} }}\n"
        settings += 'match from any for rcpt-to <people> action "keep"\n'
        words = opensmtpd.command(folder, settings)
        assert words is not None, "opensmtpd is not there: python -m tests.support.unpacked"
        with Running(words, port, folder):
            yield Queueing(port, folder, stored.files("spool/queue/*/*/message"), "log")


class Delivering:
    """A Postfix, which delivers what it takes into a mailbox, a moment later."""

    def __init__(self, postfix: Postfix) -> None:
        self.port = postfix.port
        self.mail = postfix.mail
        self.log = postfix.log
        self._postfix = postfix

    def relent(self) -> None:
        self._postfix.change(smtpd_recipient_restrictions="")


@contextmanager
def started_postfix(wanted: Wanted) -> Iterator[NextHop]:
    with scratch(wanted.authority, 0) as folder:
        settings = {
            "virtual_mailbox_maps": f"inline:{{{','.join(f'{who}=inbox/' for who in PEOPLE)}}}",
            "smtpd_recipient_restrictions": "check_recipient_access inline:{{later@there.test = 451 4.7.1 Later}}",
        }
        if wanted.authority:
            settings |= {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": f"{folder}/cert.pem",
                "smtpd_tls_key_file": f"{folder}/key.pem",
            }
        if wanted.size:
            settings["message_size_limit"] = str(wanted.size)
        if wanted.people:
            settings["smtpd_recipient_limit"] = str(wanted.people)
            settings["smtpd_recipient_overshoot_limit"] = "1000"
        with Postfix(**settings) as hop:
            yield Delivering(hop)


SERVERS = (
    Server("Postfix", "postfix", started_postfix, chunks=True, delivers=True, counts_messages=False),
    Server("Exim", "exim4", started_exim, chunks=True, logs_in="CRAM-MD5"),
    # Its 6.8 of Debian 12 offers STARTTLS, but its way of keeping keys from the process that needs them fails with
    # OpenSSL 3, and it takes log-ins under TLS only.
    Server("OpenSMTPD", "opensmtpd", started_opensmtpd, shakes_hands=False),
)
